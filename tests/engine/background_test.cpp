// Hot code that is compiled in the background: whenever its results come, and whatever has become of the page, the cache
// or the shadow meanwhile, the translator does what the interpreter does.
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <thread>

#include "lockstep.h"

namespace doppel::engine_test {
namespace {

// Does jobs when it is told to.
class Delayed final : public Background {
 public:
  bool submit(std::function<void()> job) override {
    if (waiting_.size() >= 8) return false;
    waiting_.push_back(std::move(job));
    return true;
  }
  void do_one() {
    if (waiting_.empty()) return;
    waiting_.front()();
    waiting_.pop_front();
    ++done;
  }
  void do_all() {
    while (!waiting_.empty()) do_one();
  }
  std::size_t waiting() const { return waiting_.size(); }

  unsigned done = 0;

 private:
  std::deque<std::function<void()>> waiting_;
};

TranslatorEngine::Options with(TranslatorEngine::Options options, Background& background) {
  options.background = &background;
  return options;
}

// Runs the scenario in pieces, between which `between` is called. Nothing if the engines agree.
std::string compare_in_pieces(const Scenario& scenario, const TranslatorEngine::Options& options, u64 seed,
                              const std::function<void(u64)>& between, EngineStatistics& sum,
                              const MachineCode& kept = {}) {
  std::mt19937_64 random(seed);
  Lockstep lockstep(scenario, options, kept);
  for (std::size_t i = 0; i < scenario.chunks.size(); ++i) {
    for (u64 left = scenario.chunks[i].instructions; left != 0;) {
      const u64 piece = std::min<u64>(left, 1 + random() % 400);
      lockstep.run(i, piece);
      left -= piece;
      between(random());
    }
    const std::string differences = lockstep.differences();
    if (differences.empty()) continue;
    if (UnfencedFetch::happens(scenario, i, scenario.chunks[i].instructions)) break;
    return fmt::format("chunk {} differs:\n{}", i, differences);
  }
  sum += lockstep.statistics();
  return {};
}

#ifdef __SANITIZE_THREAD__
constexpr u64 kPrograms = 20;
#else
constexpr u64 kPrograms = 150;
#endif

// They write code of their own, change address spaces, and have shadows that end. Every other one finds what has been
// made for another hart.
TEST(InBackground, RandomPrograms) {
  const KeptCode kept;
  EngineStatistics all;
  unsigned done = 0;
  for (u64 seed = 1; seed <= kPrograms; ++seed) {
    const MachineCode code = seed % 2 == 0 ? kept.of_machine(seed) : MachineCode();
    for (const TranslatorEngine::Options& options : {Machine::kEager, Machine::kShadowing, Machine::kEager}) {
      Delayed delayed;
      const auto between = [&](u64 lot) { lot % 4 == 0 ? delayed.do_all() : lot % 4 == 1 ? delayed.do_one() : void(); };
      ASSERT_EQ(compare_in_pieces(ScenarioMaker(seed).make(), with(options, delayed), seed, between, all, code), "")
          << "seed " << seed;
      delayed.do_all();  // whoever wanted it is gone
      done += delayed.done;
    }
  }
  EXPECT_GT(all.regions_translated, kPrograms / 4);
  EXPECT_GT(all.background_seconds, 0);
  EXPECT_GT(done, kPrograms);
}

// So little code memory that it is cleared all the time, with jobs for what was there.
TEST(InBackground, TheCacheIsCleared) {
  EngineStatistics all;
  for (u64 seed = 1; seed <= kPrograms / 3; ++seed) {
    Delayed delayed;
    TranslatorEngine::Options options = with(seed % 2 == 0 ? Machine::kEager : Machine::kShadowing, delayed);
    options.code_bytes = 16 << 10;
    const auto between = [&](u64 lot) { if (lot % 2 == 0) delayed.do_all(); };
    ASSERT_EQ(compare_in_pieces(ScenarioMaker(seed).make(), options, seed, between, all), "") << "seed " << seed;
  }
  EXPECT_GT(all.cache_evicted, kPrograms / 3);
}

// A loop with a side that does not run until s2 is set, in a line of its own.
constexpr u64 kSide = kCode + 0x100;
Scenario loop_with_a_side() {
  Scenario scenario;
  std::string source = "loop: addi a4, a4, 1; bne s2, zero, side; back: addi a5, a5, 1; jal zero, loop";
  for (u64 at = kCode + 16; at < kSide; at += 4) source += "; addi zero, zero, 0";
  scenario.contents.load(kCode, riscv::test::assemble(source + "; side: addi a6, a6, 1; jal zero, back", kCode));
  scenario.contents.state = open_state(kCode);
  return scenario;
}

// Both machines of a comparison, by hand.
class Pair {
 public:
  Pair(const Scenario& scenario, const TranslatorEngine::Options& options)
      : reference_(EngineKind::kInterpret, scenario.contents), translated_(options, scenario.contents) {}
  void run(u64 instructions) {
    for (Machine* machine : {&reference_, &translated_}) machine->run(instructions);
    EXPECT_EQ(differences(reference_, translated_), "");
  }
  void set(unsigned x, u64 value) {
    for (Machine* machine : {&reference_, &translated_}) machine->state().x[x] = value;
  }
  // And makes it known.
  void change_code(u64 gpa, const std::string& instruction) {
    const std::vector<std::uint16_t> code = riscv::test::assemble(instruction, gpa);
    for (Machine* machine : {&reference_, &translated_}) {
      std::memcpy(machine->ram() + (gpa - kRam), code.data(), 2 * code.size());
      machine->hart().post_fence({.instructions = true, .asid = {}});
    }
  }
  u64 x(unsigned index) const { return reference_.state().x[index]; }
  EngineStatistics statistics() const { return translated_.statistics(); }

 private:
  Machine reference_, translated_;
};

// The loop, which has become hot: a job waits.
struct HotLoop {
  Delayed delayed;
  Pair pair{loop_with_a_side(), with(Machine::kEager, delayed)};

  HotLoop() { pair.run(2000); }
  // Code changes and runs before the job is done.
  void change_first(u64 gpa, const std::string& instruction) {
    pair.change_code(gpa, instruction);
    pair.run(100);
    finish();
  }
  void finish() {
    delayed.do_all();
    pair.run(2000);
  }
  u64 regions() const { return pair.statistics().regions_translated; }
};

TEST(InBackground, TheHartRunsOn) {
  HotLoop loop;
  EXPECT_GT(loop.delayed.waiting(), 0u);
  EXPECT_EQ(loop.regions(), 0u);
  loop.delayed.do_all();
  EXPECT_EQ(loop.regions(), 0u) << "it is the hart that takes it";
  loop.pair.run(2000);
  EXPECT_GT(loop.regions(), 0u);
}

// What the region takes in has changed since, where no code was made of yet.
TEST(InBackground, CodeChangesThatHasNotRun) {
  HotLoop loop;
  loop.change_first(kSide, "addi a6, a6, 100");
  EXPECT_EQ(loop.regions(), 0u);
  loop.pair.set(18, 1);
  loop.pair.run(2000);
  EXPECT_EQ(loop.pair.x(16) % 100, 0u);
  // It is compiled again.
  loop.finish();
  EXPECT_GT(loop.regions(), 0u);
}

// So has the loop itself.
TEST(InBackground, CodeChangesThatRuns) {
  HotLoop loop;
  loop.change_first(kCode, "addi a4, a4, 100");
  loop.finish();
  EXPECT_GT(loop.regions(), 0u);
  // And there and back.
  loop.pair.change_code(kCode, "addi a4, a4, 1");
  loop.pair.run(100);
  loop.pair.change_code(kCode, "addi a4, a4, 100");
  loop.finish();
}

// Code that stays the same is not thrown away for what changes beside it.
TEST(InBackground, CodeChangesElsewhere) {
  HotLoop loop;
  loop.pair.change_code(kCode + 0x800, "addi a6, a6, 100");
  loop.finish();
  EXPECT_GT(loop.regions(), 0u);
}

// The thread itself, at its own pace.
TEST(InBackground, OnAThread) {
  BackgroundCompiler compiler;
  EngineStatistics all;
  for (u64 seed = 1; seed <= kPrograms; ++seed) {
    const auto& options = seed % 2 == 0 ? Machine::kEager : Machine::kShadowing;
    const auto between = [&](u64 lot) { if (lot % 8 == 0) std::this_thread::yield(); };
    ASSERT_EQ(compare_in_pieces(ScenarioMaker(seed).make(), with(options, compiler), seed, between, all), "")
        << "seed " << seed;
  }
}

// Harts that share it, with loops that become hot and are changed.
TEST(InBackground, SharedByHarts) {
  BackgroundCompiler compiler;
  const auto run = [&] {
    Pair pair(loop_with_a_side(), with(Machine::kEager, compiler));
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    for (unsigned round = 0; round < 20; ++round) {
      pair.run(500);
      pair.change_code(round % 2 == 0 ? kSide : kCode, fmt::format("addi a{0}, a{0}, {1}", round % 2 == 0 ? 6 : 4, round));
      pair.set(18, round / 2 % 2);
      const u64 before = pair.statistics().regions_translated;
      while (pair.statistics().regions_translated == before && round % 4 == 0) {
        ASSERT_LT(std::chrono::steady_clock::now(), until);
        pair.run(1000);
      }
    }
  };
  std::thread other(run);
  run();
  other.join();
}

}  // namespace
}  // namespace doppel::engine_test
