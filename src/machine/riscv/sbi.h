// The built-in machine-mode firmware: RISC-V Supervisor Binary Interface 2.0, and the legacy calls that old
// software still makes.
//
// Calls run on the calling hart's thread; harts call concurrently. Each hart's HSM state is an atomic of its
// own, and a hart is started only by the call that moves it from stopped to start-pending.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "device/syscon/syscon.h"
#include "isa/riscv/hart.h"
#include "memory/guest_memory.h"
#include "memory/io_space.h"

namespace doppel::riscv {

struct SbiEnv {
  std::span<Hart* const> harts;  // by hart id; filled before the first call
  const GuestMemory& memory;
  const IoSpace& io;
  GuestPhysical uart;  // the debug console: a 16550A with one byte to a register
  // Asks for the machine's end, soon after it returns. Any thread.
  std::function<void(PowerRequest)> power;
};

class Sbi final : public SupervisorCalls {
 public:
  // Error codes: chapter 3, table 1.
  enum class Error : std::int64_t {
    kSuccess = 0,
    kFailed = -1,
    kNotSupported = -2,
    kInvalidParam = -3,
    kDenied = -4,
    kInvalidAddress = -5,
    kAlreadyAvailable = -6,
  };

  // Chapter 9, table 1, by number.
  enum class HartStatus : std::uint8_t {
    kStarted,
    kStopped,
    kStartPending,
    kStopPending,
    kSuspended,
    kSuspendPending,
    kResumePending,
  };

  Sbi(SbiEnv env, unsigned hart_count);

  // Starts the first hart in S-mode, before its thread runs; the others are parked.
  void boot(unsigned hart_id, std::uint64_t pc, std::uint64_t a1);

  void supervisor_call(Hart& hart) override;

 private:
  struct Return {
    Error error = Error::kSuccess;
    std::uint64_t value = 0;
  };
  struct Call;

  // Without a value: the call does not return, or its registers are already set.
  Return base(const Call& call) const;
  Return time(const Call& call);
  Return ipi(const Call& call);
  Return remote_fence(const Call& call);
  std::optional<Return> hart_state(const Call& call);
  std::optional<Return> system_reset(const Call& call);
  Return debug_console(const Call& call);
  std::optional<Return> system_suspend(const Call& call);
  std::uint64_t legacy(const Call& call);

  Return hart_start(std::uint64_t hart_id, std::uint64_t pc, std::uint64_t opaque);
  std::optional<Return> hart_suspend(const Call& call);
  std::optional<Return> sleep(const Call& call, std::optional<std::uint64_t> resume_pc);
  void end(Hart& hart, PowerRequest::Action action);

  // The harts that a mask names (section 3.1), or nullopt when one of them does not exist.
  std::optional<std::vector<Hart*>> harts_of(std::uint64_t mask, std::uint64_t base) const;
  bool valid_start(std::uint64_t pc) const;
  bool running(unsigned hart_id) const;

  bool put_byte(std::byte byte) const;
  std::optional<std::byte> get_byte() const;
  std::size_t put_bytes(std::span<const std::byte> bytes) const;

  SbiEnv env_;
  std::vector<std::atomic<HartStatus>> status_;
};

}  // namespace doppel::riscv
