// Runs machines whose guests are a handful of instructions.
#include "machine/riscv/virt.h"

#include <gmock/gmock.h>

#include "machine/boot_files.h"

namespace doppel::riscv {
namespace {

using namespace doppel::test;
using testing::HasSubstr;

class BufferConsole final : public ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> output) override {
    for (const std::byte byte : output) text.push_back(static_cast<char>(byte));
    return output.size();
  }
  std::size_t read(std::span<std::byte>) override { return 0; }
  void set_listener(std::function<void()>) override {}

  std::string text;
};

// lui rd, value >> 12 (the high 20 bits; sign-extended on RV64 above 2 GiB)
constexpr std::uint32_t lui(unsigned rd, std::uint32_t value) { return (value & 0xffff'f000u) | rd << 7 | 0x37; }
constexpr std::uint32_t addi(unsigned rd, unsigned rs1, std::uint32_t value) {
  return (value & 0xfffu) << 20 | rs1 << 15 | rd << 7 | 0x13;
}
constexpr std::uint32_t slli(unsigned rd, unsigned rs1, std::uint32_t shift) {
  return shift << 20 | rs1 << 15 | 1u << 12 | rd << 7 | 0x13;
}
constexpr std::uint32_t store(unsigned width_log2, unsigned rs2, unsigned rs1) {
  return rs2 << 20 | rs1 << 15 | width_log2 << 12 | 0x23;
}
constexpr std::uint32_t kJumpHere = 0x0000006f, kEcall = 0x0000'0073, kWfi = 0x1050'0073;
constexpr std::uint32_t kJumpBack = 0xffdff06f;  // to the instruction before

// Stores `value` to the test finisher, then waits.
std::vector<std::uint32_t> finisher_code(std::uint32_t value) {
  const std::uint32_t low = (value & 0xfff) | ((value & 0x800) != 0 ? 0xffff'f000u : 0);
  return {lui(5, 0x10'0000), lui(6, value - low), addi(6, 6, low & 0xfff), store(2, 6, 5), kWfi, kJumpBack};
}

struct Ending {
  Outcome outcome;
  std::string console;
  MachineStatistics statistics;
};

class VirtTest : public testing::Test {
 protected:
  VirtTest() { config.memory_bytes = 16 << 20; }

  Result<Ending> run(const ElfSpec& elf) {
    const TemporaryFile kernel(make_elf(elf));
    config.boot.kernel = kernel.path();
    Ending result;
    EventLoop loop;
    BufferConsole console;
    auto machine = make_virt_machine(config, {loop, console, [&](Outcome outcome) {
                                                result.outcome = outcome;
                                                loop.stop();
                                              }});
    if (!machine) return std::unexpected(machine.error());
    if (stop_early) loop.post([&] { (*machine)->stop(); });
    if (pause_first) {
      loop.post([&] {
        (*machine)->pause();
        (*machine)->resume();
      });
    }
    (*machine)->start();
    loop.run();
    result.statistics = (*machine)->statistics();
    machine->reset();
    result.console = console.text;
    return result;
  }

  MachineConfig config;
  bool stop_early = false;
  bool pause_first = false;
};

constexpr std::uint64_t kSupervisorAt = 0x8020'0000;

TEST_F(VirtTest, FinisherEndsTheMachine) {
  config.boot.firmware = "none";
  EXPECT_EQ(run({.code = finisher_code(0x5555)}).value().outcome.kind, Outcome::Kind::kPowerOff);
  EXPECT_EQ(run({.code = finisher_code(0x7777)}).value().outcome.kind, Outcome::Kind::kReset);
  const Outcome failed = run({.code = finisher_code(0x0007'3333)}).value().outcome;
  EXPECT_EQ(failed.kind, Outcome::Kind::kExitCode);
  EXPECT_EQ(failed.code, 7);
  EXPECT_EQ(run({.code = finisher_code(0x0200'3333)}).value().outcome.code, 255) << "what an exit status can hold";
}

TEST_F(VirtTest, HtifEndsTheMachine) {
  config.boot.firmware = "none";
  // The segment's zero bytes begin behind six instructions: tohost is at a doubleword there.
  const auto spec = [](std::uint32_t value) {
    return ElfSpec{.code = {0x00000297 /* auipc t0, 0 */, addi(5, 5, 24), addi(6, 0, value), store(3, 6, 5), kWfi, kJumpBack},
                   .tohost = 0x8000'0018};
  };
  EXPECT_EQ(run(spec(1)).value().outcome.kind, Outcome::Kind::kPowerOff);
  const Outcome failed = run(spec(5 << 1 | 1)).value().outcome;
  EXPECT_EQ(failed.kind, Outcome::Kind::kExitCode);
  EXPECT_EQ(failed.code, 5);
}

TEST_F(VirtTest, BuiltinFirmwareStartsInSupervisorMode) {
  // sbi_debug_console_write_byte('K'), then system_reset(shutdown).
  const std::vector<std::uint32_t> code = {
      lui(17, 0x4442'4000), addi(17, 17, 0x34e),   addi(16, 0, 2), addi(10, 0, 'K'), kEcall,
      lui(17, 0x5352'5000), addi(17, 17, 0x354),   addi(16, 0, 0), addi(10, 0, 0),   addi(11, 0, 0), kEcall, kJumpHere};
  for (const EngineKind engine : {EngineKind::kInterpret, EngineKind::kTranslate}) {
    config.engine = engine;
    const Ending result =
        run({.virtual_address = kSupervisorAt, .physical_address = kSupervisorAt, .code = code}).value();
    EXPECT_EQ(result.outcome.kind, Outcome::Kind::kPowerOff);
    EXPECT_EQ(result.console, "K");
    EXPECT_EQ(result.statistics.engine, engine == EngineKind::kInterpret ? "interpret" : "translate");
    ASSERT_EQ(result.statistics.harts.size(), 2u);
    EXPECT_GE(result.statistics.harts[0].instructions, 10u);
    EXPECT_EQ(result.statistics.harts[1].instructions, 0u) << "parked";
  }
}

TEST_F(VirtTest, AllHartsStartWithoutFirmware) {
  config.boot.firmware = "none";
  config.harts = 4;
  // Each hart but the last waits; a0 is its number.
  const std::vector<std::uint32_t> code = {
      addi(5, 0, 3), 0x00550463 /* beq a0, t0, +8 */, kJumpHere,
      lui(5, 0x10'0000), lui(6, 0x5000), addi(6, 6, 0x555), store(2, 6, 5), kJumpHere};
  EXPECT_EQ(run({.code = code}).value().outcome.kind, Outcome::Kind::kPowerOff);
}

TEST_F(VirtTest, StopsAndPausesARunningGuest) {
  config.boot.firmware = "none";
  stop_early = true;
  EXPECT_EQ(run({.code = {kJumpHere}}).value().outcome.kind, Outcome::Kind::kStopped);
  stop_early = false;
  pause_first = true;
  EXPECT_EQ(run({.code = finisher_code(0x5555)}).value().outcome.kind, Outcome::Kind::kPowerOff);
}

TEST_F(VirtTest, RefusesWhatTheBoardCannotHave) {
  config.boot.firmware = "none";
  config.harts = kMaxHarts + 1;
  EXPECT_THAT(run({}).error().message, HasSubstr("1 to 64"));
  config.harts = 1;
  config.networks.resize(8);
  for (auto& network : config.networks) network.kind = NetworkKind::kUser;
  EXPECT_THAT(run({}).error().message, HasSubstr("too many"));
  config.networks.clear();
  config.disks.push_back({.path = "/nonexistent/disk"});
  EXPECT_THAT(run({}).error().message, HasSubstr("/nonexistent/disk"));
}

TEST_F(VirtTest, RunsWithTheMostHarts) {
  config.boot.firmware = "none";
  config.harts = kMaxHarts;
  EXPECT_EQ(run({.code = finisher_code(0x5555)}).value().outcome.kind, Outcome::Kind::kPowerOff);
}

}  // namespace
}  // namespace doppel::riscv
