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
#include "memory/guest_memory.h"
#include "memory/io_space.h"
#include "state/state.h"

namespace doppel::riscv {

class Hart;
class Mmu;

inline constexpr std::uint64_t kTimebaseHz = 10'000'000;  // of the time CSR and mtime
inline constexpr std::uint64_t kNanosecondsPerTick = 1'000'000'000 / kTimebaseHz;

// Serves environment calls from S-mode in place of machine-mode firmware. Called on the calling hart's
// thread, after pc has moved past the ECALL; answers through the hart's registers.
class SupervisorCalls {
 public:
  virtual ~SupervisorCalls() = default;
  virtual void supervisor_call(Hart& hart) = 0;
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
};

class Hart {
 public:
  Hart(unsigned id, const IsaConfig& isa, HartEnv env);
  Hart(unsigned id, const IsaConfig& isa, HartEnv env, const StateReader& saved);  // throws nothing; see valid
  ~Hart();

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
  void save(StateWriter& writer) const;

  // --- From any thread.

  void set_interrupt(Interrupt interrupt, bool level);
  // Makes the hart look at its requests, timers and interrupts soon.
  void wake();
  // Makes the engine's run() return (with kStop) soon; stays in force until clear_stop().
  void request_stop();
  void clear_stop();
  // Runs `fence` on the hart's thread before its next instruction; returns once that is certain to be so,
  // serving `caller`'s own requests meanwhile.
  void remote_fence(const RemoteFence& fence, Hart& caller);

  // --- On the hart's thread, for engines and firmware.

  std::uint64_t time() const { return env_.clock.now() / kNanosecondsPerTick; }
  std::uint64_t pending_interrupts() const;  // mip as a read would see it
  bool attention() const { return attention_.load(std::memory_order_relaxed) != 0; }
  // Answers attention: fences, then the highest-priority enabled interrupt, if any, is taken (pc moves to
  // the handler). Returns true when the hart must leave the engine (stop requested, parked).
  bool serve_attention();
  void take_trap(Trap trap, std::uint64_t epc);
  // Blocks until an enabled interrupt is pending, a request arrives, or a stop.
  void wait_for_interrupt();
  void arm_supervisor_timer();

  // HSM: a parked hart runs nothing until unpark(), which any thread may call.
  void park();
  void unpark();
  bool parked() const { return parked_.load(std::memory_order_acquire); }

  // Counted by --stats.
  struct Statistics {
    std::array<std::uint64_t, 16> exceptions{};
    std::array<std::uint64_t, 16> interrupts{};
    std::uint64_t waits = 0;
  };
  const Statistics& statistics() const { return statistics_; }

 private:
  friend class HartThread;
  static constexpr std::uint32_t kInterruptChange = 1, kStopRequest = 2, kFences = 4;

  void attend(std::uint32_t why);
  std::optional<Interrupt> deliverable_interrupt() const;
  void take_interrupt(Interrupt interrupt);

  const unsigned id_;
  const IsaConfig isa_;
  HartEnv env_;
  HartState state_;
  std::unique_ptr<Mmu> mmu_;
  Statistics statistics_;

  std::atomic<std::uint32_t> attention_{0};
  std::atomic<std::uint64_t> lines_{0};  // interrupt inputs, in mip's bit positions
  std::atomic<bool> parked_{false};

  std::mutex mutex_;
  std::condition_variable woken_;
  std::vector<RemoteFence> fences_;  // guarded by mutex_
  std::uint64_t fences_posted_ = 0;  // guarded by mutex_
  std::atomic<std::uint64_t> fences_served_{0};
  bool waiting_ = false;  // guarded by mutex_: the thread runs no guest code
};

}  // namespace doppel::riscv
