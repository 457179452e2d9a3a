#include "device/plic/plic.h"

#include <thread>

#include "device/fdt_view.h"
#include "device/test_env.h"

namespace doppel::test {
namespace {

constexpr unsigned kSources = 96;
constexpr unsigned kContexts = 4;

constexpr std::uint64_t priority(unsigned source) { return 4 * source; }
constexpr std::uint64_t pending(unsigned word) { return 0x1000 + 4 * word; }
constexpr std::uint64_t enable(unsigned context, unsigned word) { return 0x2000 + 0x80 * context + 4 * word; }
constexpr std::uint64_t threshold(unsigned context) { return 0x20'0000 + 0x1000 * context; }
constexpr std::uint64_t claim_complete(unsigned context) { return 0x20'0004 + 0x1000 * context; }

struct PlicTest : testing::Test {
  std::array<Wire, kContexts> outputs;
  std::unique_ptr<Plic> plic = std::make_unique<Plic>(kSources, lines());

  std::vector<InterruptLine> lines() {
    std::vector<InterruptLine> contexts;
    for (Wire& wire : outputs) contexts.push_back(wire.line());
    return contexts;
  }

  void set(std::uint64_t offset, std::uint32_t value) { write(*plic, offset, Width::k4, value); }
  std::uint32_t get(std::uint64_t offset) { return static_cast<std::uint32_t>(read(*plic, offset, Width::k4)); }

  void use(unsigned source, unsigned level, unsigned context = 0) {
    set(priority(source), level);
    const std::uint64_t word = enable(context, source / 32);
    set(word, get(word) | 1u << (source % 32));
  }
  std::uint32_t claim(unsigned context = 0) { return get(claim_complete(context)); }
  void complete(std::uint32_t source, unsigned context = 0) { set(claim_complete(context), source); }
  bool is_pending(unsigned source) { return (get(pending(source / 32)) >> (source % 32) & 1) != 0; }
};

TEST_F(PlicTest, InterruptIsClaimedAndCompleted) {
  use(10, 1);
  const InterruptLine line = plic->line(10);
  EXPECT_FALSE(outputs[0].level);
  line.set(true);
  EXPECT_TRUE(outputs[0].level);
  EXPECT_TRUE(is_pending(10));
  EXPECT_EQ(claim(), 10u);
  EXPECT_FALSE(outputs[0].level);
  EXPECT_FALSE(is_pending(10));
  EXPECT_EQ(claim(), 0u);
  line.set(false);
  complete(10);
  EXPECT_FALSE(outputs[0].level);
}

TEST_F(PlicTest, LevelStillHighAtCompletionAsksAgain) {
  use(10, 1);
  plic->line(10).set(true);
  EXPECT_EQ(claim(), 10u);
  plic->line(10).set(true);
  EXPECT_FALSE(is_pending(10)) << "the gateway is closed until completion";
  complete(10);
  EXPECT_TRUE(outputs[0].level);
  EXPECT_EQ(claim(), 10u);
}

// Section 5: once forwarded, the request stays although the level drops.
TEST_F(PlicTest, ForwardedRequestOutlivesItsLevel) {
  use(10, 1);
  plic->line(10).set(true);
  plic->line(10).set(false);
  EXPECT_TRUE(outputs[0].level);
  EXPECT_EQ(claim(), 10u);
  complete(10);
  EXPECT_FALSE(outputs[0].level);
}

TEST_F(PlicTest, HigherPriorityFirstThenLowerNumber) {
  use(5, 2);
  use(70, 7);
  use(40, 2);
  for (const unsigned source : {40u, 5u, 70u}) plic->line(source).set(true);
  EXPECT_EQ(claim(), 70u);
  EXPECT_EQ(claim(), 5u);
  EXPECT_EQ(claim(), 40u);
  EXPECT_EQ(claim(), 0u);
}

TEST_F(PlicTest, PriorityZeroNeverInterrupts) {
  use(5, 0);
  plic->line(5).set(true);
  EXPECT_TRUE(is_pending(5));
  EXPECT_FALSE(outputs[0].level);
  EXPECT_EQ(claim(), 0u);
  set(priority(5), 1);
  EXPECT_TRUE(outputs[0].level);
}

TEST_F(PlicTest, ThresholdMasksNotificationButNotClaim) {
  use(5, 3);
  set(threshold(0), 3);
  plic->line(5).set(true);
  EXPECT_FALSE(outputs[0].level);
  set(threshold(0), 2);
  EXPECT_TRUE(outputs[0].level);
  set(threshold(0), 7);
  EXPECT_FALSE(outputs[0].level);
  EXPECT_EQ(claim(), 5u);
}

TEST_F(PlicTest, ContextsAreIndependentButShareTheSource) {
  use(9, 1, 1);
  use(9, 1, 3);
  plic->line(9).set(true);
  EXPECT_FALSE(outputs[0].level);
  EXPECT_TRUE(outputs[1].level);
  EXPECT_TRUE(outputs[3].level);
  EXPECT_EQ(claim(0), 0u) << "not enabled there";
  EXPECT_EQ(claim(3), 9u);
  EXPECT_FALSE(outputs[1].level) << "somebody took it";
  EXPECT_EQ(claim(1), 0u);
}

TEST_F(PlicTest, CompletionCountsFromAnyContextThatHasItEnabledAndNoOther) {
  use(9, 1, 1);
  use(9, 1, 3);
  plic->line(9).set(true);
  ASSERT_EQ(claim(1), 9u);
  complete(9, 0);
  EXPECT_FALSE(is_pending(9));
  for (const std::uint32_t wild : {0u, 97u, 1024u, ~0u, 10u}) complete(wild, 1);
  EXPECT_FALSE(is_pending(9));
  complete(9, 3);
  EXPECT_TRUE(is_pending(9));
}

TEST_F(PlicTest, CompletionWithoutClaimChangesNothing) {
  use(9, 1);
  complete(9);
  EXPECT_FALSE(is_pending(9));
  plic->line(9).set(true);
  complete(9);
  EXPECT_EQ(claim(), 9u);
  EXPECT_EQ(claim(), 0u);
}

TEST_F(PlicTest, RegistersHoldOnlyWhatExists) {
  set(priority(0), 7);
  EXPECT_EQ(get(priority(0)), 0u);
  set(priority(96), 0xff);
  EXPECT_EQ(get(priority(96)), 7u);
  set(priority(97), 7);
  EXPECT_EQ(get(priority(97)), 0u);
  for (unsigned word = 0; word < 5; ++word) set(enable(0, word), ~0u);
  EXPECT_EQ(get(enable(0, 0)), ~1u);
  EXPECT_EQ(get(enable(0, 2)), ~0u);
  EXPECT_EQ(get(enable(0, 3)), 1u);
  EXPECT_EQ(get(enable(0, 4)), 0u);
  set(enable(kContexts, 0), ~0u);
  EXPECT_EQ(get(enable(kContexts, 0)), 0u);
  set(threshold(1), 0xff);
  EXPECT_EQ(get(threshold(1)), 7u);
  set(pending(0), ~0u);
  EXPECT_EQ(get(pending(0)), 0u);
}

TEST_F(PlicTest, OtherWidthsAreInert) {
  use(9, 1);
  plic->line(9).set(true);
  EXPECT_EQ(read(*plic, claim_complete(0), Width::k1), 0u);
  EXPECT_EQ(read(*plic, threshold(0), Width::k8), 0u);
  EXPECT_TRUE(is_pending(9));
}

TEST_F(PlicTest, ResetForgetsTheGuestsChoicesButNotTheWires) {
  use(9, 1);
  plic->line(9).set(true);
  ASSERT_EQ(claim(), 9u);
  {
    const std::lock_guard lock(plic->monitor());
    plic->reset();
  }
  EXPECT_FALSE(outputs[0].level);
  EXPECT_EQ(get(priority(9)), 0u);
  EXPECT_EQ(get(enable(0, 0)), 0u);
  use(9, 1);
  EXPECT_TRUE(outputs[0].level);
}

TEST_F(PlicTest, RestoredControllerGoesOnWhereTheSavedOneWas) {
  use(9, 1);
  use(20, 5, 2);
  set(threshold(1), 4);
  plic->line(9).set(true);
  plic->line(20).set(true);
  ASSERT_EQ(claim(0), 9u);
  const StateNode state = save(*plic);
  for (Wire& wire : outputs) wire.level = false;

  auto restored = Plic::restore(kSources, lines(), StateReader(state, "plic"));
  ASSERT_TRUE(restored) << restored.error().message;
  plic = std::move(*restored);
  EXPECT_TRUE(outputs[2].level);
  EXPECT_EQ(get(threshold(1)), 4u);
  // The devices drive their lines again; what is in service stays so.
  plic->line(9).set(true);
  plic->line(20).set(true);
  EXPECT_FALSE(outputs[0].level);
  complete(9);
  EXPECT_TRUE(outputs[0].level);
  EXPECT_EQ(claim(2), 20u);

  EXPECT_FALSE(Plic::restore(kSources + 32, lines(), StateReader(state, "plic")));
  EXPECT_FALSE(Plic::restore(kSources, {}, StateReader(state, "plic")));
}

TEST_F(PlicTest, RestoreKeepsWildBitsOut) {
  StateNode state = save(*plic);
  for (const char* name : {"pending", "in_service", "enabled", "threshold", "priority"}) {
    for (std::byte& byte : std::get<std::vector<std::byte>>(state.values.at(name))) byte = std::byte{0xff};
  }
  auto restored = Plic::restore(kSources, lines(), StateReader(state, "plic"));
  ASSERT_TRUE(restored);
  plic = std::move(*restored);
  EXPECT_EQ(get(priority(1)), 7u);
  EXPECT_EQ(get(priority(0)), 0u);
  for (unsigned i = 1; i <= kSources; ++i) EXPECT_EQ(claim(), i);
  EXPECT_EQ(claim(), 0u);
}

TEST_F(PlicTest, SurvivesRandomAccess) {
  for (unsigned source = 1; source <= kSources; source += 5) plic->line(source).set(true);
  access_at_random(*plic, Plic::kSizeBytes, 100'000, 2);
  access_at_random(*plic, 0x3000, 100'000, 3);
}

// Every level that rises is claimed at least once, and none is lost between threads.
TEST_F(PlicTest, LinesAndClaimsFromManyThreads) {
  constexpr unsigned kRounds = 500;
  constexpr unsigned kDevices = 3;
  std::array<std::atomic<bool>, kDevices + 1> served{};
  for (unsigned source = 1; source <= kDevices; ++source) {
    use(source, 1, 0);
    use(source, 1, 1);
  }
  std::atomic<bool> done = false;
  const auto hart = [&](unsigned context) {
    while (!done) {
      const std::uint32_t source = claim(context);
      if (source == 0) {
        std::this_thread::yield();
        continue;
      }
      plic->line(source).set(false);
      complete(source, context);
      served[source] = true;
    }
  };
  std::thread first(hart, 0);
  std::thread second(hart, 1);
  std::vector<std::thread> devices;
  for (unsigned source = 1; source <= kDevices; ++source) {
    devices.emplace_back([&, source] {
      const InterruptLine line = plic->line(source);
      for (unsigned round = 0; round < kRounds; ++round) {
        line.set(true);
        while (!served[source].exchange(false)) std::this_thread::yield();
      }
    });
  }
  for (std::thread& device : devices) device.join();
  done = true;
  first.join();
  second.join();
}

TEST_F(PlicTest, DescribesItself) {
  const std::array<Phandle, 2> harts = {4, 2};
  const FdtView fdt = describe(
      *plic, {.range = {{0xc00'0000}, Plic::kSizeBytes}, .self = 5, .hart_controllers = harts});
  const std::string path = "/plic@c000000";
  EXPECT_EQ(fdt.texts(path, "compatible"), "sifive,plic-1.0.0 riscv,plic0");
  EXPECT_EQ(fdt.cells(path, "reg"), (Cells{0, 0xc00'0000, 0, 0x60'0000}));
  EXPECT_EQ(fdt.cells(path, "interrupts-extended"), (Cells{4, 11, 4, 9, 2, 11, 2, 9}));
  EXPECT_EQ(fdt.cells(path, "riscv,ndev"), Cells{96});
  EXPECT_EQ(fdt.cells(path, "#interrupt-cells"), Cells{1});
  EXPECT_EQ(fdt.cells(path, "#address-cells"), Cells{0});
  EXPECT_EQ(fdt.cells(path, "phandle"), Cells{5});
  EXPECT_TRUE(fdt.has(path, "interrupt-controller"));
}

}  // namespace
}  // namespace doppel::test
