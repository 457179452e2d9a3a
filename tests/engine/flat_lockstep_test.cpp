// The translator does what the interpreter does for programs in flat memory, where accesses are not checked, blocks are
// linked across pages, and host faults become the guest's traps.
#include "flat_machine.h"
#include "lockstep.h"

#include <gtest/gtest.h>

#include <random>

namespace doppel::engine_test {
namespace {

class FlatLockstep : public testing::TestWithParam<FlatMachine::Place> {
 protected:
  // Nothing if the engines agree; `archive` may be null.
  static std::string compare(const Scenario& scenario, const TranslatorEngine::Options& options,
                             const std::shared_ptr<CodeArchive>& archive) {
    const auto reference = FlatMachine::make(FlatMachine::Place::kElsewhere, scenario.contents);
    auto translated = FlatMachine::make(GetParam(), scenario.contents);
    if (reference == nullptr || translated == nullptr) return "no room";
    reference->interpret();
    translated->translate(options, archive);
    for (std::size_t i = 0; i < scenario.chunks.size(); ++i) {
      reference->run(scenario.chunks[i]);
      translated->run(scenario.chunks[i]);
      const std::string differences = FlatMachine::differences(*reference, *translated);
      if (differences.empty()) continue;
      translated.reset();
      return differences + explain(scenario, options, i);
    }
    translated_ += translated->statistics().blocks_translated;
    regions_ += translated->statistics().regions_translated;
    loaded_ += translated->statistics().cache_loaded;
    return {};
  }

  // The difference that the engines reach in chunk `index`, and the instructions before it.
  static std::string explain(const Scenario& scenario, const TranslatorEngine::Options& options, std::size_t index) {
    const auto run = [&](FlatMachine& machine, u64 instructions) {
      for (std::size_t i = 0; i < index; ++i) machine.run(scenario.chunks[i]);
      Scenario::Chunk last = scenario.chunks[index];
      last.instructions = instructions;
      machine.run(last);
    };
    const auto differ_after = [&](u64 instructions) {
      const auto reference = FlatMachine::make(FlatMachine::Place::kElsewhere, scenario.contents);
      const auto translated = FlatMachine::make(GetParam(), scenario.contents);
      reference->interpret();
      translated->translate(options);
      run(*reference, instructions);
      run(*translated, instructions);
      return FlatMachine::differences(*reference, *translated);
    };
    u64 equal = 0, different = scenario.chunks[index].instructions;
    while (different - equal > 1) {
      const u64 middle = equal + (different - equal) / 2;
      (differ_after(middle).empty() ? equal : different) = middle;
    }
    std::string text = fmt::format("chunk {} differs after {} instructions, if it does without kept code:\n{}", index,
                                   different, differ_after(different));
    const auto reference = FlatMachine::make(FlatMachine::Place::kElsewhere, scenario.contents);
    reference->interpret();
    const u64 first = different - std::min<u64>(different, 40);
    run(*reference, first);
    const riscv::Decoder decoder(reference->hart().isa());
    for (u64 done = first; done < different; ++done) {
      const u64 pc = reference->hart().state().pc;
      std::uint32_t raw = 0;
      if (reference->allows(pc, riscv::Access::kFetch)) std::memcpy(&raw, reference->flat().host(pc), sizeof raw);
      if (riscv::instruction_bytes(static_cast<std::uint16_t>(raw)) == 2) raw &= 0xffff;
      text += fmt::format("  {:#x}: {}\n", pc, riscv::disassemble(decoder, raw, pc));
      reference->run({1, 0, scenario.chunks[index].time});
    }
    return text;
  }

  void SetUp() override {
    if (FlatMachine::make(GetParam(), Contents{open_state(kCode)}) == nullptr) {
      GTEST_SKIP() << "the host has something else there";
    }
  }

  const GuestFaults faults_;
  static inline u64 translated_ = 0, regions_ = 0, loaded_ = 0;
};

// Until everything has been translated, and most of it as regions.
std::vector<Scenario::Chunk> longer(std::vector<Scenario::Chunk> chunks) {
  for (Scenario::Chunk& chunk : chunks) chunk.instructions *= 4;
  return chunks;
}

TEST_P(FlatLockstep, RandomPrograms) {
  translated_ = regions_ = 0;
  for (u64 seed = 1; seed <= 60; ++seed) {
    Scenario scenario = ScenarioMaker(seed).make(true, false);
    if (seed % 3 == 0) scenario.chunks = longer(scenario.chunks);
    const auto options = seed % 2 == 0 ? Machine::kEager : TranslatorEngine::Options{};
    ASSERT_EQ(compare(scenario, options, nullptr), "") << "seed " << seed;
  }
  EXPECT_GT(translated_, 1000u);
  EXPECT_GT(regions_, 5u);
}

// Stores to code are seen once the program has asked for that, also by what follows at once.
TEST_P(FlatLockstep, CodeThatChanges) {
  const std::uint32_t increment = riscv::test::row_of("addi").pattern.encode({.rd = 10, .rs1 = 10});
  Scenario scenario = ScenarioMaker(1).make(true, false);
  const std::string source = fmt::format(
      "addi a1, zero, 0; again: addi a1, a1, 1; slli t0, a1, 20; li t2, {:#x}; or t2, t2, t0; auipc t1, 0; "
      "sw t2, 12(t1); fence.i; addi a0, a0, 0; addi t0, zero, 100; bne a1, t0, again; end: jal zero, end", increment);
  scenario.contents.load(kCode, riscv::test::assemble(source, kCode));
  scenario.chunks = {{7, 0, 0}, {2000, 0, 0}};
  for (const auto& options : {Machine::kEager, TranslatorEngine::Options{}}) {
    const auto machine = FlatMachine::make(GetParam(), scenario.contents);
    machine->let_code_change();
    machine->translate(options);
    const u64 before = machine->hart().state().x[10];
    for (const Scenario::Chunk& chunk : scenario.chunks) machine->run(chunk);
    EXPECT_EQ(machine->hart().state().x[10] - before, 100u * 101 / 2);
  }
}

// A branch over a few operations, on registers with and without a place in the host's.
std::string random_conditional(u64 seed) {
  std::mt19937_64 random(seed);
  const auto one_of = [&](auto... all) {
    const std::array<std::string_view, sizeof...(all)> options{all...};
    return options[random() % options.size()];
  };
  const auto r = [&] { return one_of("a0", "a2", "a3", "a4", "a5", "a7", "s2", "s5", "s6", "t3", "t4", "zero"); };
  const auto rd = [&] { return one_of("a2", "a3", "a4", "a5", "a7", "s2", "s5", "s6", "t3", "t4"); };
  const int bit = 1 << random() % 10;
  std::string text = random() % 2 == 0
                         ? fmt::format("andi t0, a0, {}; {} t0, zero, over", bit, one_of("beq", "bne"))
                         : fmt::format("{} {}, {}, over", one_of("blt", "bge", "bltu", "bgeu"), one_of("a0", "t1"), r());
  for (u64 i = 0, count = 1 + random() % 4; i < count; ++i) {
    if (random() % 2 == 0) {
      text += fmt::format("; {} {}, {}, {}", one_of("add", "subw", "xor", "sltu", "sra"), rd(), r(), r());
    } else {
      text += fmt::format("; {} {}, {}, {}", one_of("addi", "addiw", "slli", "srai", "andi"), rd(), r(), random() % 32);
    }
  }
  return text;
}

// Branches over little code that go this way and that become choices, and all instructions are counted as before.
TEST_P(FlatLockstep, BranchesThatGoBothWays) {
  std::vector<std::string> conditionals{
      "and t0, a0, a2; beq t0, zero, over; xor a4, a4, a0", "blt a3, a0, over; addi a3, a0, 0; add a4, a4, a1",
      "bne a1, a2, over; sltu a1, a0, a3; addi zero, zero, 0",
      "andi t0, a0, 2; bne t0, zero, next; subw a3, a3, a0; next: andi t0, a0, 4; beq t0, zero, over; srai a5, a0, 7"};
  for (u64 seed = 0; seed < 20; ++seed) conditionals.push_back(random_conditional(seed));
  for (const std::string& conditional : conditionals) {
    Scenario scenario = ScenarioMaker(1).make(true, false);
    // Bits in which no rule is to be seen; behind what is chosen a load that faults now and then.
    const std::string source = fmt::format(
        "addi a0, zero, 1; addi a2, zero, 16; addi t6, zero, 0; loop: slli t1, a0, 13; xor a0, a0, t1; srli t1, a0, 7; "
        "xor a0, a0, t1; slli t1, a0, 17; xor a0, a0, t1; {}; over: addi t6, t6, 1; andi t2, t6, 511; bne t2, zero, more; "
        "ld t2, 0(zero); more: bne a0, zero, loop; end: jal zero, end", conditional);
    scenario.contents.load(kCode, riscv::test::assemble(source, kCode));
    scenario.chunks.clear();
    for (u64 i = 0; i < 60; ++i) scenario.chunks.push_back({.instructions = 600 + i, .interrupts = 0, .time = 0});
    regions_ = 0;
    ASSERT_EQ(compare(scenario, Machine::kEager, nullptr), "") << conditional;
    EXPECT_GT(regions_, 0u);
  }
}

TEST_P(FlatLockstep, KeptCode) {
  const KeptCode kept;
  loaded_ = 0;
  for (u64 seed = 1; seed <= 8; ++seed) {
    Scenario scenario = ScenarioMaker(seed).make(true, false);
    scenario.chunks = longer(scenario.chunks);
    for (unsigned run = 0; run < 3; ++run) {
      const auto archive = kept.archive(seed);
      ASSERT_EQ(compare(scenario, Machine::kEager, archive), "") << "seed " << seed << ", run " << run;
      archive->write();
    }
  }
  EXPECT_GT(loaded_, 200u);
}

INSTANTIATE_TEST_SUITE_P(Places, FlatLockstep,
                         testing::Values(FlatMachine::Place::kIdentity, FlatMachine::Place::kElsewhere),
                         [](const auto& place) {
                           return place.param == FlatMachine::Place::kIdentity ? "Identity" : "Elsewhere";
                         });

}  // namespace
}  // namespace doppel::engine_test
