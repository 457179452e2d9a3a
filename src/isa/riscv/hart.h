// One RISC-V hart as the machine sees it: state, interrupt inputs, time, requests from other threads.
//
// The hart's own thread runs instructions (through an engine) and owns HartState. Any thread may raise and
// lower interrupt lines and post requests: they set `attention`, which an engine polls between instructions
// or blocks, and wake a hart that waits in WFI.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/virtual_clock.h"
#include "isa/riscv/hart_state.h"
#include "isa/riscv/isa_config.h"
#include "isa/riscv/trap.h"
#include "memory/flat_memory.h"
#include "memory/guest_memory.h"
#include "memory/io_space.h"
#include "state/state.h"

namespace doppel::riscv {

class Hart;
class Mmu;
enum class Access : std::uint8_t;

// Why an engine stopped running a hart.
enum class Exit : std::uint8_t {
  kStop,              // a stop was requested
  kWaitForInterrupt,  // WFI with nothing pending
  kParked,            // stopped by firmware (SBI HSM)
  kBudget,            // the given number of instructions has run
};

inline constexpr std::uint64_t kTimebaseHz = 10'000'000;  // of the time CSR and mtime
inline constexpr std::uint64_t kNanosecondsPerTick = 1'000'000'000 / kTimebaseHz;

// Serves environment calls from S-mode in place of machine-mode firmware. Called on the calling hart's
// thread, after pc has moved past the ECALL; answers through the hart's registers.
class SupervisorCalls {
 public:
  virtual ~SupervisorCalls() = default;
  virtual void supervisor_call(Hart& hart) = 0;
};

// Stands in for everything above U-mode when a hart runs one program of an operating system: memory is flat, and
// traps end here instead of in a handler. Called on the hart's thread.
class UserSpace {
 public:
  virtual ~UserSpace() = default;
  virtual const FlatMemory& flat() const = 0;
  // Whether the page of `gva`, anywhere at all, may be accessed so. Mmu::fence() or flush() must follow a change.
  virtual bool allows(std::uint64_t gva, Access access) const = 0;
  // Whether another run will find the same there, as it does what comes from a file.
  virtual bool recurs(std::uint64_t gva) const = 0;
  // `trap` of the instruction at `epc`; state().pc must be where the hart goes on.
  virtual void trap(Hart& hart, Trap trap, std::uint64_t epc) = 0;
};

// Work that one hart asks another to do before its next instruction (SBI RFENCE).
struct RemoteFence {
  bool instructions = false;         // FENCE.I
  bool translations = false;         // SFENCE.VMA
  std::uint64_t start = 0;           // of the virtual range
  std::uint64_t size = ~std::uint64_t{0};  // in bytes; all ones: everything
  std::optional<std::uint64_t> asid;
};

struct HartEnv {
  const GuestMemory& memory;
  const IoSpace& io;
  const VirtualClock& clock;
  // Asks for wake() at or soon after virtual time `at` (ns), replacing an earlier request.
  std::function<void(VirtualClock::Nanoseconds at)> arm_timer;
  SupervisorCalls* firmware = nullptr;  // the built-in SBI; null: S-mode calls trap to M-mode
  UserSpace* user = nullptr;  // the hart stays in U-mode, and this is its world
};

class Hart {
 public:
  Hart(unsigned id, const IsaConfig& isa, HartEnv env);
  ~Hart();
  Hart(const Hart&) = delete;
  Hart& operator=(const Hart&) = delete;

  unsigned id() const { return id_; }
  const IsaConfig& isa() const { return isa_; }
  HartState& state() { return state_; }
  const HartState& state() const { return state_; }
  Mmu& mmu() { return *mmu_; }
  const HartEnv& env() const { return env_; }

  // The state after reset: M-mode at `pc`, everything else as the manual's section "Reset" asks.
  void reset(std::uint64_t pc);
  // Enters S-mode at `pc` with a0 and a1 set, as SBI firmware hands over: delegation, counters and
  // environment configured, interrupts off, bare translation.
  void enter_supervisor(std::uint64_t pc, std::uint64_t a0, std::uint64_t a1);
  // Enters U-mode at `pc` as an operating system starts a program: floating point on, counters and cache-block
  // operations allowed.
  void enter_user(std::uint64_t pc);
  void save(StateWriter& writer) const;
  // Takes the state that save() wrote; for a hart just constructed.
  Result<void> restore(const StateReader& reader);

  // --- From any thread.

  void set_interrupt(Interrupt interrupt, bool level);
  // Makes the hart look at its requests, timers and interrupts soon.
  void wake();
  // Makes the engine's run() return (with kStop) soon; stays in force until clear_stop().
  void request_stop();
  void clear_stop();
  // Runs `fence` on the hart's thread soon: before its next block of code, if that is translated.
  void post_fence(const RemoteFence& fence);
  // Runs `fence` on the hart's thread before its next instruction; returns once that is certain to be so,
  // serving `caller`'s own requests meanwhile.
  void remote_fence(const RemoteFence& fence, Hart& caller);

  // --- On the hart's thread, for engines and firmware.

  std::uint64_t time() const { return env_.clock.now() / kNanosecondsPerTick; }
  std::uint64_t pending_interrupts() const;  // mip as a read would see it
  bool attention() const { return attention_.load(std::memory_order_relaxed) != 0; }
  // Where that is, for engines' code that reads it without a lock: not zero when somebody asks.
  const void* attention_word() const {
    static_assert(sizeof attention_ == sizeof(std::uint32_t));
    return &attention_;
  }
  // An engine brackets its work with these: between them remote fences wait for the hart to serve them.
  void begin_run();
  void end_run();
  // Answers attention at an instruction boundary: remote fences are served, then the highest-priority
  // enabled interrupt, if any, is taken (state().pc moves to the handler). Gives the reason to leave the
  // engine, if there is one.
  std::optional<Exit> serve_attention();
  // To be called when something that decides on interrupts changed (mie, mstatus, privilege, stimecmp):
  // asks for attention if one is deliverable.
  void recheck_interrupts();
  // Enters the handler for `trap` of the instruction at `epc`: state().pc, privilege, CSRs.
  void take_trap(Trap trap, std::uint64_t epc);
  // MRET and SRET, already known to be legal: state().pc and privilege.
  void return_from_machine_trap();
  void return_from_supervisor_trap();
  // WFI: the engine leaves with kWaitForInterrupt unless something is pending.
  void request_wait();
  // What FENCE.I must also do in the engine, set by it.
  std::function<void()> on_fence_i;
  // Blocks until an interrupt that mie enables is pending, a fence arrives, or a stop. For the hart's
  // thread, outside the engine.
  void wait_for_interrupt();
  // Blocks while parked, or until a stop.
  void wait_while_parked();
  void arm_supervisor_timer();  // after stimecmp or menvcfg.STCE changed

  // --- For a debugger, which changes these while the hart runs nothing.

  // Looks at an EBREAK at `epc` before it traps. True: the debugger put it there, and has asked for a stop; pc stays
  // at it, and nothing happened.
  std::function<bool(std::uint64_t epc)> on_breakpoint;
  // Interrupts are not taken. After it falls, wake() makes the hart look at what came meanwhile.
  bool hold_interrupts = false;

  // HSM: a parked hart runs nothing until start(), which any thread may call: then the hart's own thread enters
  // S-mode as enter_supervisor() does. A hart may be started before its thread has come to rest.
  void park();
  void start(std::uint64_t pc, std::uint64_t a0, std::uint64_t a1);
  bool parked() const { return parked_.load(std::memory_order_acquire); }

  // Counted by --stats.
  struct Statistics {
    std::array<std::uint64_t, 16> exceptions{};  // taken as traps, by cause
    std::uint64_t firmware_calls = 0;
    std::array<std::uint64_t, 16> interrupts{};
    std::uint64_t waits = 0;
  };
  const Statistics& statistics() const { return statistics_; }
  Statistics& statistics() { return statistics_; }

 private:
  // Bits of attention_.
  static constexpr std::uint32_t kInterruptChange = 1, kStopRequest = 2, kFences = 4, kWait = 8, kPark = 16;

  void attend(std::uint32_t why);
  void serve_fences();
  void enter_handler(std::uint64_t cause, std::uint64_t value, std::uint64_t epc, bool to_supervisor,
                     bool interrupt);
  std::optional<Interrupt> deliverable_interrupt(std::uint64_t enabled) const;
  bool supervisor_timer_passed() const;
  bool wait_is_over() const;  // of WFI

  const unsigned id_;
  const IsaConfig isa_;
  HartEnv env_;
  HartState state_;
  bool timer_passed_ = false;      // whether stimecmp had passed when last looked at
  bool waits_are_short_ = false;   // the last WFI was
  std::unique_ptr<Mmu> mmu_;
  Statistics statistics_;

  std::atomic<std::uint32_t> attention_{0};
  std::atomic<std::uint64_t> lines_{0};  // interrupt inputs, in mip's bit positions
  std::atomic<bool> parked_{false};

  std::mutex mutex_;
  std::condition_variable woken_;
  std::vector<RemoteFence> fences_;  // guarded by mutex_
  std::uint64_t fences_posted_ = 0;  // guarded by mutex_
  std::uint64_t fences_served_ = 0;  // guarded by mutex_
  struct Start {
    std::uint64_t pc, a0, a1;
  };
  std::optional<Start> start_;       // guarded by mutex_: what a parked hart is to do
  bool running_ = false;             // guarded by mutex_: between begin_run() and end_run()
  std::atomic<bool> asleep_{false};  // in a wait_ function: wake-ups must notify
};

}  // namespace doppel::riscv
