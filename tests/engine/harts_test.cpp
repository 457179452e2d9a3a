// Two harts on two threads in one memory: atomic operations and the memory model, on either engine.
#include <gtest/gtest.h>

#include <thread>

#include "isa/riscv/assembler.h"
#include "machine.h"

namespace doppel::engine_test {
namespace {

constexpr u64 kShared = kRam + 0x1000;   // a page for what the harts share
constexpr u64 kRecords = kRam + 0x2000;  // four arrays
constexpr u64 kRecordsBytes = 0x10000;
constexpr u64 kRounds = 100'000;
constexpr u64 kFewRounds = 2000;  // where they are recorded, or wait for each other
static_assert(8 * kFewRounds <= kRecordsBytes);

class Harts : public testing::TestWithParam<EngineKind> {
 protected:
  // Runs `source` on both harts, from when both are there to its end: a0 is the hart's number, a1 kShared, a2
  // `rounds`, s0 to s3 the arrays. Gives the memory that is left, as the first of the machines.
  std::unique_ptr<Machine> run(const std::string& source, u64 rounds = kRounds) {
    Contents contents;
    const std::string meet = "addi t0, zero, 1; addi t1, a1, 512; addi t2, zero, 2; amoadd.d zero, t0, (t1)\n"
                             "meet: ld t0, 0(t1); bne t0, t2, meet; addi t2, zero, 0\n";
    const std::vector<std::uint16_t> code = riscv::test::assemble(meet + source + "\nend: jal zero, end", kRam);
    contents.load(kRam, code);
    const u64 end = kRam + 2 * code.size() - 4;
    contents.state = open_state(kRam);
    contents.state.x[11] = kShared;
    contents.state.x[12] = rounds;
    for (unsigned i = 0; i < 4; ++i) contents.state.x[std::array{8, 9, 18, 19}[i]] = kRecords + i * kRecordsBytes;
    auto first = std::make_unique<Machine>(GetParam(), contents);
    contents.state.x[10] = 1;
    Machine second(GetParam(), contents.state, *first);
    std::thread other([&] { second.run_to(end); });
    first->run_to(end);
    other.join();
    return first;
  }
};

TEST_P(Harts, CountByAmo) {
  const auto machine = run(R"(
    loop: addi t0, zero, 1; amoadd.w zero, t0, (a1)
          addi t1, a1, 64; amoadd.d t2, t0, (t1)
          addi a2, a2, -1; bne a2, zero, loop)");
  EXPECT_EQ(machine->peek<std::uint32_t>(kShared), 2 * kRounds);
  EXPECT_EQ(machine->peek(kShared + 64), 2 * kRounds);
}

TEST_P(Harts, CountByReservation) {
  const auto machine = run(R"(
    loop: lr.d t0, (a1); addi t0, t0, 1; sc.d t1, t0, (a1); bne t1, zero, loop
          addi a2, a2, -1; bne a2, zero, loop)");
  EXPECT_EQ(machine->peek(kShared), 2 * kRounds);
}

TEST_P(Harts, CountUnderALock) {
  const auto machine = run(R"(
          addi a3, a1, 128
    loop: addi t0, zero, 1
    take: amoswap.w t1, t0, (a1); fence 0x010; bne t1, zero, take
          ld t2, 0(a3); addi t2, t2, 1; sd t2, 0(a3)
          fence 0x031; sw zero, 0(a1)
          addi a2, a2, -1; bne a2, zero, loop)", kFewRounds);
  EXPECT_EQ(machine->peek(kShared + 128), 2 * kFewRounds);
}

// Whoever sees the flag sees the data that was stored before it.
TEST_P(Harts, PassMessages) {
  const auto machine = run(R"(
          addi a3, a1, 128
          bne a0, zero, receive
    send: sd a2, 0(a3); fence 0x011; sd a2, 0(a1)
          addi a2, a2, -1; bne a2, zero, send
          jal zero, end
    receive: ld t0, 0(a1); beq t0, zero, receive
          fence 0x022; ld t1, 0(a3)
          bgeu t0, t1, good; addi t2, t2, 1
    good: addi t3, zero, 1; bne t0, t3, receive
          sd t2, 256(a1))");
  EXPECT_EQ(machine->peek(kShared + 256), 0u);
}

// Both harts store, fence, and load what the other stores: one of them at least sees the other's store.
TEST_P(Harts, BufferNoStoreOverAFence) {
  const auto machine = run(R"(
          addi t4, zero, 0
          beq a0, zero, loop
          xor s0, s0, s1; xor s1, s0, s1; xor s0, s0, s1
          xor s2, s2, s3; xor s3, s2, s3; xor s2, s2, s3
    loop: addi t4, t4, 2; addi t0, zero, 1; amoadd.d zero, t0, (a1)
    wait: ld t1, 0(a1); blt t1, t4, wait
          sd t0, 0(s0); fence 0x033; ld t2, 0(s1)
          sd t2, 0(s2)
          addi s0, s0, 8; addi s1, s1, 8; addi s2, s2, 8
          addi a2, a2, -1; bne a2, zero, loop)", kFewRounds);
  unsigned neither = 0;
  for (u64 i = 0; i < kFewRounds; ++i) {
    const bool first = machine->peek(kRecords + 2 * kRecordsBytes + 8 * i) != 0;
    const bool second = machine->peek(kRecords + 3 * kRecordsBytes + 8 * i) != 0;
    neither += !first && !second;
  }
  EXPECT_EQ(neither, 0u);
}

INSTANTIATE_TEST_SUITE_P(Engines, Harts, testing::Values(EngineKind::kInterpret, EngineKind::kTranslate),
                         [](const auto& param) {
                           return param.param == EngineKind::kInterpret ? "interpret" : "translate";
                         });

}  // namespace
}  // namespace doppel::engine_test
