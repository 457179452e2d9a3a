// Calls the built-in firmware as a supervisor would, on harts whose threads do not run.
#include "machine/riscv/sbi.h"

#include <gtest/gtest.h>

#include <string>

namespace doppel::riscv {
namespace {

constexpr GuestPhysical kRam{0x8000'0000};
constexpr GuestPhysical kUart{0x1000'0000};

constexpr std::uint64_t kBase = 0x10, kTime = 0x54494D45, kIpi = 0x735049, kRemoteFence = 0x52464E43,
                        kHartState = 0x48534D, kSystemReset = 0x53525354, kDebugConsole = 0x4442434E,
                        kSystemSuspend = 0x53555350;
constexpr std::int64_t kSuccess = 0, kFailed = -1, kNotSupported = -2, kInvalidParam = -3, kDenied = -4,
                       kInvalidAddress = -5, kAlreadyAvailable = -6;
constexpr std::uint64_t kAll = ~std::uint64_t{0};
constexpr std::uint64_t kPc = kRam.value + 0x1000;

// A 16550A as the debug console sees it.
class FakeUart final : public IoSpace {
 public:
  std::optional<std::uint64_t> read(GuestPhysical gpa, Width) const override {
    if (gpa == kUart + 5) return (room > 0 ? 0x20u : 0u) | (input.empty() ? 0u : 1u);
    if (gpa != kUart || input.empty()) return std::nullopt;
    const char byte = input.front();
    input.erase(0, 1);
    return static_cast<std::uint8_t>(byte);
  }
  bool write(GuestPhysical gpa, Width, std::uint64_t value) const override {
    if (gpa != kUart) return false;
    output.push_back(static_cast<char>(value));
    --room;
    return true;
  }

  mutable std::string output, input;
  mutable std::size_t room = 1000;
};

class SbiTest : public testing::Test {
 protected:
  static constexpr unsigned kHarts = 3;

  SbiTest() {
    EXPECT_TRUE(memory.add_ram({kRam, 1 << 20}));
    clock.pause();
    clock.set(0);
    sbi.emplace(SbiEnv{harts, memory, uart, kUart, [this](PowerRequest request) { requests.push_back(request); }}, kHarts);
    for (unsigned id = 0; id < kHarts; ++id) {
      const HartEnv env{memory, uart, clock, [this](auto at) { armed.push_back(at); }, &*sbi};
      owned.push_back(std::make_unique<Hart>(id, IsaConfig::rva22(), env));
      harts[id] = owned.back().get();
    }
    sbi->boot(0, kPc, 0x1234);
  }

  struct Answer {
    std::int64_t error;
    std::uint64_t value;
    friend bool operator==(const Answer&, const Answer&) = default;
    friend std::ostream& operator<<(std::ostream& out, const Answer& a) { return out << a.error << ", " << a.value; }
  };

  Answer call_from(unsigned hart_id, std::uint64_t extension, std::uint64_t function,
                   std::initializer_list<std::uint64_t> arguments) {
    HartState& state = harts[hart_id]->state();
    std::size_t index = 10;
    for (const std::uint64_t argument : arguments) state.x[index++] = argument;
    state.x[16] = function;
    state.x[17] = extension;
    sbi->supervisor_call(*harts[hart_id]);
    return {static_cast<std::int64_t>(state.x[10]), state.x[11]};
  }
  Answer call(std::uint64_t extension, std::uint64_t function, std::initializer_list<std::uint64_t> arguments) {
    return call_from(0, extension, function, arguments);
  }

  bool software_interrupt(unsigned hart_id) const {
    return (harts[hart_id]->pending_interrupts() & mask_of(Interrupt::kSupervisorSoftware)) != 0;
  }
  // What the started hart's own thread does.
  void run_start(unsigned hart_id) { harts[hart_id]->wait_while_parked(); }

  GuestMemory memory;
  VirtualClock clock;
  FakeUart uart;
  std::vector<PowerRequest> requests;
  std::vector<VirtualClock::Nanoseconds> armed;
  std::vector<Hart*> harts = std::vector<Hart*>(kHarts);
  std::optional<Sbi> sbi;
  std::vector<std::unique_ptr<Hart>> owned;
};

TEST_F(SbiTest, BootsOneHartAndParksTheOthers) {
  const HartState& state = harts[0]->state();
  EXPECT_EQ(state.privilege, Privilege::kSupervisor);
  EXPECT_EQ(state.pc, kPc);
  EXPECT_EQ(state.x[10], 0u);
  EXPECT_EQ(state.x[11], 0x1234u);
  EXPECT_FALSE(harts[0]->parked());
  EXPECT_TRUE(harts[1]->parked());
  EXPECT_TRUE(harts[2]->parked());
}

TEST_F(SbiTest, BaseTellsVersionAndExtensions) {
  EXPECT_EQ(call(kBase, 0, {}), (Answer{kSuccess, 0x0200'0000}));
  for (const std::uint64_t known : {kBase, kTime, kIpi, kRemoteFence, kHartState, kSystemReset, kDebugConsole, kSystemSuspend}) {
    EXPECT_EQ(call(kBase, 3, {known}), (Answer{kSuccess, 1})) << std::hex << known;
  }
  EXPECT_EQ(call(kBase, 3, {0x535441}), (Answer{kSuccess, 0}));
  EXPECT_EQ(call(kBase, 4, {}), (Answer{kSuccess, 0}));
  EXPECT_EQ(call(kBase, 7, {}).error, kNotSupported);
}

TEST_F(SbiTest, UnknownExtensionsAndFunctionsAreNotSupported) {
  EXPECT_EQ(call(0x0900'0000, 0, {}), (Answer{kNotSupported, 0}));
  EXPECT_EQ(call(3, 0, {}), (Answer{kNotSupported, 0}));
  for (const std::uint64_t extension : {kTime, kIpi, kSystemReset, kSystemSuspend}) {
    EXPECT_EQ(call(extension, 1, {}).error, kNotSupported);
  }
  EXPECT_EQ(call(kRemoteFence, 3, {1, 0}).error, kNotSupported);
  EXPECT_EQ(call(kHartState, 4, {}).error, kNotSupported);
  EXPECT_EQ(call(kDebugConsole, 3, {}).error, kNotSupported);
}

TEST_F(SbiTest, TimeProgramsTheSupervisorTimer) {
  EXPECT_EQ(call(kTime, 0, {500}), (Answer{kSuccess, 0}));
  EXPECT_EQ(harts[0]->state().stimecmp, 500u);
  EXPECT_EQ(armed, std::vector<VirtualClock::Nanoseconds>{50'000});
  EXPECT_EQ(harts[0]->pending_interrupts() & mask_of(Interrupt::kSupervisorTimer), 0u);
  call(kTime, 0, {0});
  EXPECT_NE(harts[0]->pending_interrupts() & mask_of(Interrupt::kSupervisorTimer), 0u);
}

TEST_F(SbiTest, IpiReachesRunningHartsOfTheMask) {
  call(kHartState, 0, {1, kPc, 0});
  run_start(1);
  EXPECT_EQ(call(kIpi, 0, {0b11, 1}).error, kSuccess);
  EXPECT_FALSE(software_interrupt(0));
  EXPECT_TRUE(software_interrupt(1));
  EXPECT_FALSE(software_interrupt(2)) << "a stopped hart gets none";
  EXPECT_EQ(call(kIpi, 0, {0, kAll}).error, kSuccess);
  EXPECT_TRUE(software_interrupt(0)) << "base -1 means all, whatever the mask";
}

TEST_F(SbiTest, HartMasks) {
  for (const std::uint64_t extension : {kIpi, kRemoteFence}) {
    EXPECT_EQ(call(extension, 0, {0b111, 0}).error, kSuccess);
    EXPECT_EQ(call(extension, 0, {0b1000, 0}).error, kInvalidParam);
    EXPECT_EQ(call(extension, 0, {0b1, 3}).error, kInvalidParam);
    EXPECT_EQ(call(extension, 0, {0b10, 2}).error, kInvalidParam);
    EXPECT_EQ(call(extension, 0, {0b100, kAll - 1}).error, kInvalidParam) << "must not wrap to a hart";
    EXPECT_EQ(call(extension, 0, {0, 1000}).error, kSuccess) << "no bit names no hart";
  }
  harts[0]->set_interrupt(Interrupt::kSupervisorSoftware, false);
  call(kIpi, 0, {0b1001, 0});
  EXPECT_FALSE(software_interrupt(0)) << "one wrong hart, and none is interrupted";
}

TEST_F(SbiTest, RemoteFencesAreServed) {
  EXPECT_EQ(call(kRemoteFence, 0, {0b110, 0}).error, kSuccess);
  EXPECT_EQ(call(kRemoteFence, 1, {0, kAll, 0, 0}).error, kSuccess);
  EXPECT_EQ(call(kRemoteFence, 1, {1, 0, kAll - 4096, 8192}).error, kSuccess);
  EXPECT_EQ(call(kRemoteFence, 2, {1, 0, 0x1000, 0x1000, 7}).error, kSuccess);
  // A hart at rest is not waited for; it serves before its next instruction.
  EXPECT_TRUE(harts[1]->attention());
}

TEST_F(SbiTest, HartsStartAndStop) {
  EXPECT_EQ(call(kHartState, 2, {0}), (Answer{kSuccess, 0}));
  EXPECT_EQ(call(kHartState, 2, {1}), (Answer{kSuccess, 1}));
  EXPECT_EQ(call(kHartState, 2, {kHarts}).error, kInvalidParam);

  EXPECT_EQ(call(kHartState, 0, {1, kPc, 0x99}), (Answer{kSuccess, 0}));
  run_start(1);
  EXPECT_FALSE(harts[1]->parked());
  EXPECT_EQ(harts[1]->state().pc, kPc);
  EXPECT_EQ(harts[1]->state().privilege, Privilege::kSupervisor);
  EXPECT_EQ(harts[1]->state().x[10], 1u);
  EXPECT_EQ(harts[1]->state().x[11], 0x99u);
  EXPECT_EQ(harts[1]->state().satp, 0u);
  EXPECT_EQ(call(kHartState, 2, {1}), (Answer{kSuccess, 0}));

  call_from(1, kHartState, 1, {});
  EXPECT_TRUE(harts[1]->parked());
  EXPECT_EQ(call(kHartState, 2, {1}), (Answer{kSuccess, 1}));
  EXPECT_EQ(call(kHartState, 0, {1, kPc, 0}).error, kSuccess) << "and again";
}

TEST_F(SbiTest, HartStartRefuses) {
  EXPECT_EQ(call(kHartState, 0, {kHarts, kPc, 0}).error, kInvalidParam);
  EXPECT_EQ(call(kHartState, 0, {kAll, kPc, 0}).error, kInvalidParam);
  EXPECT_EQ(call(kHartState, 0, {1, 0, 0}).error, kInvalidAddress);
  EXPECT_EQ(call(kHartState, 0, {1, kPc + 1, 0}).error, kInvalidAddress);
  EXPECT_EQ(call(kHartState, 0, {1, kAll - 1, 0}).error, kInvalidAddress);
  EXPECT_EQ(call(kHartState, 0, {1, kUart.value, 0}).error, kInvalidAddress);
  EXPECT_EQ(call(kHartState, 0, {0, kPc, 0}).error, kAlreadyAvailable);
  EXPECT_EQ(call(kHartState, 0, {1, kPc, 0}).error, kSuccess);
  EXPECT_EQ(call(kHartState, 0, {1, kPc, 0}).error, kAlreadyAvailable);
}

TEST_F(SbiTest, SuspendReturnsWhenAnInterruptIsPending) {
  HartState& state = harts[0]->state();
  state.mie = mask_of(Interrupt::kSupervisorSoftware);
  harts[0]->set_interrupt(Interrupt::kSupervisorSoftware, true);
  EXPECT_EQ(call(kHartState, 3, {0, 0, 0}), (Answer{kSuccess, 0}));
  EXPECT_EQ(state.pc, kPc);

  state.satp = std::uint64_t{8} << 60;
  call(kHartState, 3, {0x8000'0000, kPc + 0x100, 0x55});
  EXPECT_EQ(state.pc, kPc + 0x100);
  EXPECT_EQ(state.x[10], 0u);
  EXPECT_EQ(state.x[11], 0x55u);
  EXPECT_EQ(state.satp, 0u);
}

TEST_F(SbiTest, SuspendInterruptedByAPauseIsCalledAgain) {
  HartState& state = harts[0]->state();
  state.pc = kPc + 4;  // behind the ECALL
  harts[0]->request_stop();
  call(kHartState, 3, {0, 11, 22});
  EXPECT_EQ(state.pc, kPc);
  EXPECT_EQ(state.x[10], 0u) << "the arguments are as they were";
  EXPECT_EQ(state.x[11], 11u);
  EXPECT_EQ(call_from(1, kHartState, 2, {0}).value, 4u);
}

TEST_F(SbiTest, SuspendRefuses) {
  EXPECT_EQ(call(kHartState, 3, {1, kPc, 0}).error, kInvalidParam);
  EXPECT_EQ(call(kHartState, 3, {0x8000'0001, kPc, 0}).error, kInvalidParam);
  EXPECT_EQ(call(kHartState, 3, {0x8000'0000, 0, 0}).error, kInvalidAddress);
  EXPECT_EQ(call(kSystemSuspend, 0, {1, kPc, 0}).error, kInvalidParam);
  EXPECT_EQ(call(kSystemSuspend, 0, {0, 3, 0}).error, kInvalidAddress);
  call(kHartState, 0, {1, kPc, 0});
  EXPECT_EQ(call(kSystemSuspend, 0, {0, kPc, 0}).error, kDenied) << "another hart still runs";
}

TEST_F(SbiTest, SystemSuspendResumesAtTheGivenPlace) {
  harts[0]->state().mie = mask_of(Interrupt::kSupervisorExternal);
  harts[0]->set_interrupt(Interrupt::kSupervisorExternal, true);
  call(kSystemSuspend, 0, {0, kPc + 8, 0x66});
  EXPECT_EQ(harts[0]->state().pc, kPc + 8);
  EXPECT_EQ(harts[0]->state().x[11], 0x66u);
}

TEST_F(SbiTest, SystemResetAsksForPower) {
  EXPECT_EQ(call(kSystemReset, 0, {3, 0}).error, kInvalidParam);
  EXPECT_EQ(call(kSystemReset, 0, {0, 2}).error, kInvalidParam);
  EXPECT_TRUE(requests.empty());
  call(kSystemReset, 0, {0, 0});
  call(kSystemReset, 0, {1, 0});
  call(kSystemReset, 0, {2, 1});
  using Action = PowerRequest::Action;
  EXPECT_EQ(requests, (std::vector<PowerRequest>{{Action::kPowerOff}, {Action::kReset}, {Action::kReset}}));
  EXPECT_TRUE(harts[0]->parked()) << "it does not return";
}

TEST_F(SbiTest, DebugConsoleWritesAndReads) {
  const std::string text = "hello";
  ASSERT_TRUE(memory.write(kRam, std::as_bytes(std::span(text))));
  EXPECT_EQ(call(kDebugConsole, 0, {5, kRam.value, 0}), (Answer{kSuccess, 5}));
  EXPECT_EQ(call(kDebugConsole, 2, {0x100 + '!'}), (Answer{kSuccess, 0}));
  EXPECT_EQ(uart.output, "hello!");
  uart.room = 2;
  EXPECT_EQ(call(kDebugConsole, 0, {5, kRam.value, 0}), (Answer{kSuccess, 2})) << "never waits";
  EXPECT_EQ(call(kDebugConsole, 2, {'x'}).error, kFailed);

  uart.input = "abc";
  EXPECT_EQ(call(kDebugConsole, 1, {2, kRam.value + 0x100, 0}), (Answer{kSuccess, 2}));
  EXPECT_EQ(memory.load<std::uint16_t>(kRam + 0x100), 'a' | 'b' << 8);
  EXPECT_EQ(call(kDebugConsole, 1, {9, kRam.value, 0}), (Answer{kSuccess, 1}));
  EXPECT_EQ(call(kDebugConsole, 1, {9, kRam.value, 0}), (Answer{kSuccess, 0}));
}

TEST_F(SbiTest, DebugConsoleRefusesWildBuffers) {
  for (const std::uint64_t function : {0, 1}) {
    EXPECT_EQ(call(kDebugConsole, function, {1, 0, 0}).error, kInvalidParam);
    EXPECT_EQ(call(kDebugConsole, function, {1, kRam.value, 1}).error, kInvalidParam);
    EXPECT_EQ(call(kDebugConsole, function, {2, kRam.value + (1 << 20) - 1, 0}).error, kInvalidParam);
    EXPECT_EQ(call(kDebugConsole, function, {kAll, kRam.value, 0}).error, kInvalidParam);
    EXPECT_EQ(call(kDebugConsole, function, {0, 0, 0}), (Answer{kSuccess, 0}));
  }
  EXPECT_EQ(uart.output, "");
}

TEST_F(SbiTest, LegacyCallsAnswerInA0Alone) {
  uart.input = "z";
  harts[0]->state().x[11] = 77;
  EXPECT_EQ(call(1, 0, {'A'}), (Answer{0, 77}));
  EXPECT_EQ(uart.output, "A");
  EXPECT_EQ(call(2, 0, {}), (Answer{'z', 77}));
  EXPECT_EQ(call(2, 0, {}), (Answer{-1, 77}));
  EXPECT_EQ(call(0, 0, {123}), (Answer{0, 77}));
  EXPECT_EQ(harts[0]->state().stimecmp, 123u);
  call(8, 0, {});
  EXPECT_EQ(requests.size(), 1u);
}

}  // namespace
}  // namespace doppel::riscv
