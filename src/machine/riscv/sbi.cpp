// Section and table numbers are those of the RISC-V SBI specification, version 2.0.
#include "machine/riscv/sbi.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "base/bits.h"

namespace doppel::riscv {
namespace {

constexpr std::uint64_t kSpecVersion = 2u << 24;     // major in bits 30..24, minor in 23..0
constexpr std::uint64_t kImplementationId = 0x444f5050;  // none is registered for us: "DOPP"
constexpr std::uint64_t kImplementationVersion = 0x00'01'00;

// Extension ids.
constexpr std::uint64_t kBase = 0x10, kTime = 0x54494D45, kIpi = 0x735049, kRemoteFence = 0x52464E43,
                        kHartState = 0x48534D, kSystemReset = 0x53525354, kDebugConsole = 0x4442434E,
                        kSystemSuspend = 0x53555350;
// Legacy ones (chapter 5), of which these are served.
constexpr std::uint64_t kSetTimer = 0, kConsolePutchar = 1, kConsoleGetchar = 2, kShutdown = 8;

constexpr std::array kExtensions = {kBase,      kTime,        kIpi,          kRemoteFence,   kHartState,
                                    kSystemReset, kDebugConsole, kSystemSuspend, kSetTimer, kConsolePutchar,
                                    kConsoleGetchar, kShutdown};

constexpr std::uint64_t kAllHarts = ~std::uint64_t{0};
constexpr unsigned kA0 = 10, kA1 = 11, kA6 = 16, kA7 = 17;
constexpr std::uint64_t kEcallBytes = 4;

// 16550A: the receive and transmit register, the line status register and two of its bits.
constexpr std::uint64_t kUartData = 0, kUartLineStatus = 5;
constexpr unsigned kUartDataReady = 0, kUartTransmitEmpty = 5;

}  // namespace

struct Sbi::Call {
  Hart& hart;

  std::uint64_t extension() const { return hart.state().x[kA7]; }
  std::uint64_t function() const { return hart.state().x[kA6]; }
  std::uint64_t argument(unsigned index) const { return hart.state().x[kA0 + index]; }
  // Of a parameter that the specification declares as uint32_t.
  std::uint32_t argument32(unsigned index) const { return static_cast<std::uint32_t>(argument(index)); }
};

Sbi::Sbi(SbiEnv env, unsigned hart_count) : env_(std::move(env)), status_(hart_count) {
  for (auto& status : status_) status = HartStatus::kStopped;
}

void Sbi::boot(unsigned hart_id, std::uint64_t pc, std::uint64_t a1) {
  for (Hart* hart : env_.harts) {
    if (hart->id() != hart_id) hart->park();
  }
  status_[hart_id] = HartStatus::kStarted;
  env_.harts[hart_id]->enter_supervisor(pc, hart_id, a1);
}

void Sbi::supervisor_call(Hart& hart) {
  const Call call{hart};
  std::optional<Return> result;
  switch (call.extension()) {
    case kBase: result = base(call); break;
    case kTime: result = time(call); break;
    case kIpi: result = ipi(call); break;
    case kRemoteFence: result = remote_fence(call); break;
    case kHartState: result = hart_state(call); break;
    case kSystemReset: result = system_reset(call); break;
    case kDebugConsole: result = debug_console(call); break;
    case kSystemSuspend: result = system_suspend(call); break;
    case kSetTimer:
    case kConsolePutchar:
    case kConsoleGetchar:
    case kShutdown:
      hart.state().x[kA0] = legacy(call);  // and a1 stays as it is
      return;
    default: result = Return{Error::kNotSupported};
  }
  if (!result) return;
  hart.state().x[kA0] = static_cast<std::uint64_t>(result->error);
  hart.state().x[kA1] = result->value;
}

// Chapter 4, Base Extension.
Sbi::Return Sbi::base(const Call& call) const {
  switch (call.function()) {
    case 0: return {Error::kSuccess, kSpecVersion};
    case 1: return {Error::kSuccess, kImplementationId};
    case 2: return {Error::kSuccess, kImplementationVersion};
    case 3: return {Error::kSuccess, std::ranges::find(kExtensions, call.argument(0)) != kExtensions.end()};
    case 4:  // mvendorid
    case 5:  // marchid
    case 6:  // mimpid
      return {};  // zero, as the CSRs
    default: return {Error::kNotSupported};
  }
}

// Chapter 6, Timer Extension: with Sstc, stimecmp is what it programs.
Sbi::Return Sbi::time(const Call& call) {
  if (call.function() != 0) return {Error::kNotSupported};
  call.hart.state().stimecmp = call.argument(0);
  call.hart.arm_supervisor_timer();
  return {};
}

// Chapter 7, IPI Extension.
Sbi::Return Sbi::ipi(const Call& call) {
  if (call.function() != 0) return {Error::kNotSupported};
  const auto targets = harts_of(call.argument(0), call.argument(1));
  if (!targets) return {Error::kInvalidParam};
  for (Hart* target : *targets) {
    if (running(target->id())) target->set_interrupt(Interrupt::kSupervisorSoftware, true);
  }
  return {};
}

// Chapter 8, RFENCE Extension. The fences for hypervisors (3 to 6) need the H extension.
Sbi::Return Sbi::remote_fence(const Call& call) {
  RemoteFence fence;
  switch (call.function()) {
    case 0: fence.instructions = true; break;
    case 2:
      fence.asid = call.argument(4);
      [[fallthrough]];
    case 1:
      fence.translations = true;
      fence.start = call.argument(2);
      fence.size = call.argument(3);
      break;
    default: return {Error::kNotSupported};
  }
  // "start_addr and size are both 0", or size all ones: the whole address space. So does what would wrap.
  if ((fence.start == 0 && fence.size == 0) || fence.start + fence.size < fence.start) {
    fence.start = 0;
    fence.size = ~std::uint64_t{0};
  }
  const auto targets = harts_of(call.argument(0), call.argument(1));
  if (!targets) return {Error::kInvalidParam};
  for (Hart* target : *targets) target->remote_fence(fence, call.hart);
  return {};
}

// Chapter 9, Hart State Management Extension.
std::optional<Sbi::Return> Sbi::hart_state(const Call& call) {
  switch (call.function()) {
    case 0: return hart_start(call.argument(0), call.argument(1), call.argument(2));
    case 1:
      status_[call.hart.id()] = HartStatus::kStopped;
      call.hart.park();
      return std::nullopt;
    case 2:
      if (call.argument(0) >= status_.size()) return Return{Error::kInvalidParam};
      return Return{Error::kSuccess, static_cast<std::uint64_t>(status_[call.argument(0)].load())};
    case 3: return hart_suspend(call);
    default: return Return{Error::kNotSupported};
  }
}

Sbi::Return Sbi::hart_start(std::uint64_t hart_id, std::uint64_t pc, std::uint64_t opaque) {
  if (hart_id >= status_.size()) return {Error::kInvalidParam};
  if (!valid_start(pc)) return {Error::kInvalidAddress};
  HartStatus expected = HartStatus::kStopped;
  if (!status_[hart_id].compare_exchange_strong(expected, HartStatus::kStartPending)) {
    return {Error::kAlreadyAvailable};
  }
  Hart& target = *env_.harts[hart_id];
  target.set_interrupt(Interrupt::kSupervisorSoftware, false);
  target.start(pc, hart_id, opaque);
  status_[hart_id] = HartStatus::kStarted;
  return {};
}

// Section 9.4: the low half keeps the hart's state, the high half loses it.
std::optional<Sbi::Return> Sbi::hart_suspend(const Call& call) {
  constexpr std::uint32_t kRetentive = 0, kNonRetentive = 0x8000'0000;
  switch (call.argument32(0)) {
    case kRetentive: return sleep(call, std::nullopt);
    case kNonRetentive:
      if (!valid_start(call.argument(1))) return Return{Error::kInvalidAddress};
      return sleep(call, call.argument(1));
    default: return Return{Error::kInvalidParam};
  }
}

// Chapter 10, System Reset Extension.
std::optional<Sbi::Return> Sbi::system_reset(const Call& call) {
  constexpr std::uint32_t kShutdownType = 0, kColdReboot = 1, kWarmReboot = 2, kLastReason = 1;
  if (call.function() != 0) return Return{Error::kNotSupported};
  if (call.argument32(1) > kLastReason) return Return{Error::kInvalidParam};
  switch (call.argument32(0)) {
    case kShutdownType: end(call.hart, PowerRequest::Action::kPowerOff); return std::nullopt;
    case kColdReboot:
    case kWarmReboot: end(call.hart, PowerRequest::Action::kReset); return std::nullopt;
    default: return Return{Error::kInvalidParam};
  }
}

// Chapter 12, Debug Console Extension.
Sbi::Return Sbi::debug_console(const Call& call) {
  if (call.function() == 2) {
    return {put_byte(static_cast<std::byte>(call.argument(0))) ? Error::kSuccess : Error::kFailed};
  }
  if (call.function() > 2) return {Error::kNotSupported};

  const std::uint64_t count = call.argument(0);
  std::byte* const at = env_.memory.host({call.argument(1)}, count);
  if (call.argument(2) != 0 || at == nullptr) return {count == 0 ? Error::kSuccess : Error::kInvalidParam};
  const std::span<std::byte> buffer(at, count);
  if (call.function() == 0) return {Error::kSuccess, put_bytes(buffer)};

  std::size_t read = 0;
  while (read < count) {
    const auto byte = get_byte();
    if (!byte) break;
    buffer[read++] = *byte;
  }
  return {Error::kSuccess, read};
}

// Chapter 13, System Suspend Extension: to RAM, once all other harts are stopped.
std::optional<Sbi::Return> Sbi::system_suspend(const Call& call) {
  constexpr std::uint32_t kSuspendToRam = 0;
  if (call.function() != 0) return Return{Error::kNotSupported};
  if (call.argument32(0) != kSuspendToRam) return Return{Error::kInvalidParam};
  if (!valid_start(call.argument(1))) return Return{Error::kInvalidAddress};
  for (const Hart* hart : env_.harts) {
    if (hart != &call.hart && status_[hart->id()] != HartStatus::kStopped) return Return{Error::kDenied};
  }
  return sleep(call, call.argument(1));
}

// Chapter 5, Legacy Extensions: what is returned goes into a0.
std::uint64_t Sbi::legacy(const Call& call) {
  constexpr auto kNone = static_cast<std::uint64_t>(-1);
  switch (call.extension()) {
    case kSetTimer: time({call.hart}); return 0;
    case kConsolePutchar: return put_byte(static_cast<std::byte>(call.argument(0))) ? 0 : kNone;
    case kConsoleGetchar: {
      const auto byte = get_byte();
      return byte ? static_cast<std::uint64_t>(*byte) : kNone;
    }
    default: end(call.hart, PowerRequest::Action::kPowerOff); return 0;
  }
}

// Waits for an interrupt. Without one (the machine pauses or stops) the call is made again afterwards: pc goes
// back to the ECALL. Waking at `resume_pc`, when given, loses the registers (section 9.4, table 3).
std::optional<Sbi::Return> Sbi::sleep(const Call& call, std::optional<std::uint64_t> resume_pc) {
  Hart& hart = call.hart;
  status_[hart.id()] = HartStatus::kSuspended;
  hart.wait_for_interrupt();
  if ((hart.pending_interrupts() & hart.state().mie) == 0) {
    hart.state().pc -= kEcallBytes;
    return std::nullopt;
  }
  status_[hart.id()] = HartStatus::kStarted;
  if (!resume_pc) return Return{};
  hart.enter_supervisor(*resume_pc, hart.id(), call.argument(2));
  return std::nullopt;
}

void Sbi::end(Hart& hart, PowerRequest::Action action) {
  env_.power({action});
  hart.park();  // a request that is granted does not return
}

std::optional<std::vector<Hart*>> Sbi::harts_of(std::uint64_t mask, std::uint64_t base) const {
  if (base == kAllHarts) return std::vector(env_.harts.begin(), env_.harts.end());
  std::vector<Hart*> named;
  for (; mask != 0; mask &= mask - 1) {
    const auto position = static_cast<unsigned>(std::countr_zero(mask));
    // A base of its own choosing cannot wrap: it is below the number of harts.
    if (base >= env_.harts.size() || position >= env_.harts.size() - base) return std::nullopt;
    named.push_back(env_.harts[base + position]);
  }
  return named;
}

bool Sbi::valid_start(std::uint64_t pc) const {
  return pc % 2 == 0 && env_.memory.host({pc}, 2) != nullptr;
}

bool Sbi::running(unsigned hart_id) const {
  return status_[hart_id] != HartStatus::kStopped && status_[hart_id] != HartStatus::kStartPending;
}

// The console is the board's UART, programmed as any firmware would.
bool Sbi::put_byte(std::byte byte) const {
  // A console that takes nothing for this long (a stopped terminal) shall not hold the hart for ever.
  constexpr int kPatience = 100;
  for (int tries = 0; tries < kPatience; ++tries) {
    if (put_bytes(std::span(&byte, 1)) == 1) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

std::size_t Sbi::put_bytes(std::span<const std::byte> bytes) const {
  std::size_t written = 0;
  for (const std::byte byte : bytes) {
    const auto status = env_.io.read(env_.uart + kUartLineStatus, Width::k1);
    if (!status || !bit(*status, kUartTransmitEmpty)) break;
    if (!env_.io.write(env_.uart + kUartData, Width::k1, static_cast<std::uint64_t>(byte))) break;
    ++written;
  }
  return written;
}

std::optional<std::byte> Sbi::get_byte() const {
  const auto status = env_.io.read(env_.uart + kUartLineStatus, Width::k1);
  if (!status || !bit(*status, kUartDataReady)) return std::nullopt;
  const auto byte = env_.io.read(env_.uart + kUartData, Width::k1);
  return byte ? std::optional(static_cast<std::byte>(*byte)) : std::nullopt;
}

}  // namespace doppel::riscv
