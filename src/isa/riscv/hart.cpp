#include "isa/riscv/hart.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <span>
#include <thread>
#include <utility>

#include "base/bits.h"
#include "base/processors.h"
#include "isa/riscv/csr.h"
#include "isa/riscv/mmu.h"

namespace doppel::riscv {

Hart::Hart(unsigned id, const IsaConfig& isa, HartEnv env) : id_(id), isa_(isa), env_(std::move(env)) {
  mmu_ = std::make_unique<Mmu>(*this);
  reset(0);
}

Hart::~Hart() = default;

void Hart::reset(std::uint64_t pc) {
  const std::uint64_t instructions = state_.instructions;
  state_ = HartState{};
  state_.instructions = instructions;
  state_.mcycle_offset = state_.minstret_offset = -instructions;
  state_.pc = pc;
  state_.privilege = Privilege::kMachine;
  state_.mstatus = mstatus::kXl64;
  mmu_->flush();
}

void Hart::enter_supervisor(std::uint64_t pc, std::uint64_t a0, std::uint64_t a1) {
  reset(pc);
  state_.privilege = Privilege::kSupervisor;
  state_.x[10] = a0;
  state_.x[11] = a1;
  // Everything that a supervisor can handle goes to it; environment calls from S-mode are the firmware's.
  state_.medeleg = 0xb1ff;
  state_.mideleg = mask_of(Interrupt::kSupervisorSoftware) | mask_of(Interrupt::kSupervisorTimer) |
                   mask_of(Interrupt::kSupervisorExternal);
  state_.mcounteren = state_.scounteren = 0x7;
  state_.menvcfg = envcfg::kStce | envcfg::kPbmte | envcfg::kAdue | envcfg::kCbie | envcfg::kCbcfe | envcfg::kCbze;
  state_.pmpcfg[0] = 0x1f;  // NAPOT, read, write, execute: all of memory
  state_.pmpaddr[0] = ~std::uint64_t{0} >> 10;
  mmu_->flush();
}

void Hart::enter_user(std::uint64_t pc) {
  reset(pc);
  state_.privilege = Privilege::kUser;
  state_.mstatus |= mstatus::kFs;
  state_.mcounteren = state_.scounteren = 0x7;
  state_.menvcfg = state_.senvcfg = envcfg::kCbie | envcfg::kCbcfe | envcfg::kCbze;
  mmu_->flush();
}

// Every field of HartState that save() keeps, with its name in the saved state.
template <class State, class Visit>
static void for_each_number(State& s, Visit visit) {
  visit("pc", s.pc);
  visit("mstatus", s.mstatus);
  visit("medeleg", s.medeleg);
  visit("mideleg", s.mideleg);
  visit("mie", s.mie);
  visit("mip", s.mip);
  visit("mtvec", s.mtvec);
  visit("mscratch", s.mscratch);
  visit("mepc", s.mepc);
  visit("mcause", s.mcause);
  visit("mtval", s.mtval);
  visit("menvcfg", s.menvcfg);
  visit("mcounteren", s.mcounteren);
  visit("mcountinhibit", s.mcountinhibit);
  visit("mcycle_offset", s.mcycle_offset);
  visit("minstret_offset", s.minstret_offset);
  visit("mcycle_frozen", s.mcycle_frozen);
  visit("minstret_frozen", s.minstret_frozen);
  visit("stvec", s.stvec);
  visit("sscratch", s.sscratch);
  visit("sepc", s.sepc);
  visit("scause", s.scause);
  visit("stval", s.stval);
  visit("senvcfg", s.senvcfg);
  visit("scounteren", s.scounteren);
  visit("satp", s.satp);
  visit("stimecmp", s.stimecmp);
  visit("instructions", s.instructions);
}

void Hart::save(StateWriter& writer) const {
  writer.numbers("x", std::span(state_.x).first(32));
  writer.numbers("f", state_.f);
  writer.numbers("pmpaddr", state_.pmpaddr);
  writer.bytes("pmpcfg", std::as_bytes(std::span(state_.pmpcfg)));
  for_each_number(state_, [&](const char* name, std::uint64_t value) { writer.number(name, value); });
  writer.number("fflags", state_.fflags);
  writer.number("frm", state_.frm);
  writer.number("privilege", static_cast<std::uint64_t>(state_.privilege));
  writer.number("parked", parked() ? 1 : 0);
}

Result<void> Hart::restore(const StateReader& reader) {
  HartState restored;
  std::optional<Error> error;
  const auto number = [&](const char* name) -> std::uint64_t {
    const Result<std::uint64_t> value = reader.number(name);
    if (!value && !error) error = value.error();
    return value.value_or(0);
  };
  const auto numbers = [&](const char* name, std::span<std::uint64_t> into) {
    const Result<std::vector<std::uint64_t>> values = reader.numbers(name);
    if (!values || values->size() != into.size()) {
      if (!error) error = values ? Error{reader.path() + "/" + name + ": wrong length"} : values.error();
      return;
    }
    std::copy(values->begin(), values->end(), into.begin());
  };
  numbers("x", std::span(restored.x).first(32));
  numbers("f", restored.f);
  numbers("pmpaddr", restored.pmpaddr);
  if (const auto config = reader.bytes("pmpcfg"); config && config->size() == kPmpEntries) {
    std::transform(config->begin(), config->end(), restored.pmpcfg.begin(),
                   [](std::byte b) { return static_cast<std::uint8_t>(b); });
  } else if (!error) {
    error = Error{reader.path() + "/pmpcfg: missing or of the wrong length"};
  }
  for_each_number(restored, [&](const char* name, std::uint64_t& value) { value = number(name); });
  restored.fflags = number("fflags") & 0x1f;
  restored.frm = number("frm") & 7;
  const std::uint64_t privilege = number("privilege");
  if (privilege > 3 || privilege == 2) return fail("{}/privilege: {} is no privilege", reader.path(), privilege);
  restored.privilege = static_cast<Privilege>(privilege);
  parked_.store(number("parked") != 0, std::memory_order_release);
  if (error) return std::unexpected(*error);
  restored.x[0] = 0;
  state_ = restored;
  mmu_->flush();
  arm_supervisor_timer();
  recheck_interrupts();
  return {};
}

namespace {

// With Sstc the supervisor timer's bit follows stimecmp alone.
std::uint64_t with_timer(std::uint64_t pending, bool passed) {
  const std::uint64_t timer = mask_of(Interrupt::kSupervisorTimer);
  return passed ? pending | timer : pending & ~timer;
}

}  // namespace

std::uint64_t Hart::pending_interrupts() const {
  std::uint64_t pending = state_.mip | lines_.load(std::memory_order_acquire);
  return (state_.menvcfg & envcfg::kStce) != 0 ? with_timer(pending, supervisor_timer_passed()) : pending;
}

bool Hart::supervisor_timer_passed() const {
  return (state_.menvcfg & envcfg::kStce) != 0 && time() >= state_.stimecmp;
}

void Hart::set_interrupt(Interrupt interrupt, bool level) {
  if (level) {
    const std::uint64_t before = lines_.fetch_or(mask_of(interrupt), std::memory_order_acq_rel);
    if ((before & mask_of(interrupt)) == 0) attend(kInterruptChange);
  } else {
    lines_.fetch_and(~mask_of(interrupt), std::memory_order_acq_rel);
  }
}

void Hart::wake() { attend(kInterruptChange); }

void Hart::attend(std::uint32_t why) {
  attention_.fetch_or(why, std::memory_order_seq_cst);
  if (asleep_.load(std::memory_order_seq_cst)) {
    // Taking the lock orders this with the sleeper's last look at attention_.
    { const std::lock_guard lock(mutex_); }
    woken_.notify_all();
  }
}

void Hart::request_stop() { attend(kStopRequest); }

void Hart::clear_stop() { attention_.fetch_and(~kStopRequest, std::memory_order_seq_cst); }

void Hart::begin_run() {
  const std::lock_guard lock(mutex_);
  running_ = true;
}

void Hart::end_run() {
  const std::lock_guard lock(mutex_);
  running_ = false;
}

void Hart::post_fence(const RemoteFence& fence) {
  const std::lock_guard lock(mutex_);
  fences_.push_back(fence);
  ++fences_posted_;
  attention_.fetch_or(kFences, std::memory_order_seq_cst);
}

void Hart::remote_fence(const RemoteFence& fence, Hart& caller) {
  std::uint64_t ticket = 0;
  {
    const std::lock_guard lock(mutex_);
    fences_.push_back(fence);
    ticket = ++fences_posted_;
    // Set before the lock is dropped: a hart that begins to run now sees it before its first instruction.
    attention_.fetch_or(kFences, std::memory_order_seq_cst);
    if (!running_) return;
  }
  if (&caller == this) {
    serve_fences();
    return;
  }
  attend(kFences);  // it may sleep inside the engine, in a firmware call
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (!running_ || fences_served_ >= ticket) return;
    }
    // Two harts that fence each other must both make progress.
    caller.serve_fences();
    std::this_thread::yield();
  }
}

void Hart::serve_fences() {
  std::vector<RemoteFence> fences;
  std::uint64_t posted = 0;
  {
    const std::lock_guard lock(mutex_);
    if (fences_.empty()) return;
    fences.swap(fences_);
    posted = fences_posted_;
  }
  // Many small fences cost more than one large one.
  constexpr std::uint64_t kMostPages = 32;
  for (const RemoteFence& fence : fences) {
    if (fence.instructions && on_fence_i) on_fence_i();
    if (!fence.translations) continue;
    const std::uint64_t* asid = fence.asid ? &*fence.asid : nullptr;
    if (fence.size > kMostPages * kPageSize) {
      mmu_->fence(nullptr, asid);
      continue;
    }
    const std::uint64_t first = align_down(fence.start, kPageSize);
    for (std::uint64_t offset = 0; offset < fence.size + (fence.start - first); offset += kPageSize) {
      const std::uint64_t gva = first + offset;
      mmu_->fence(&gva, asid);
    }
  }
  const std::lock_guard lock(mutex_);
  fences_served_ = posted;
}

std::optional<Exit> Hart::serve_attention() {
  const std::uint32_t why =
      attention_.fetch_and(~(kInterruptChange | kFences | kWait | kPark), std::memory_order_seq_cst);
  if ((why & kFences) != 0) serve_fences();
  if ((why & kStopRequest) != 0) {
    // Whatever else there was is still to be answered when the hart runs again.
    attention_.fetch_or((why & (kInterruptChange | kWait)) | (parked() ? kPark : 0), std::memory_order_seq_cst);
    return Exit::kStop;
  }
  if (parked()) return Exit::kParked;
  if (hold_interrupts) return std::nullopt;
  timer_passed_ = supervisor_timer_passed();
  state_.interrupt_waiting = pending_interrupts() & state_.mie;
  if (const std::optional<Interrupt> interrupt = deliverable_interrupt(state_.interrupt_waiting)) {
    ++statistics_.interrupts[static_cast<unsigned>(*interrupt)];
    const bool to_supervisor =
        state_.privilege != Privilege::kMachine && (state_.mideleg & mask_of(*interrupt)) != 0;
    enter_handler(static_cast<unsigned>(*interrupt), 0, state_.pc, to_supervisor, true);
    return std::nullopt;
  }
  if ((why & kWait) != 0 && (pending_interrupts() & state_.mie) == 0) return Exit::kWaitForInterrupt;
  return std::nullopt;
}

std::optional<Interrupt> Hart::deliverable_interrupt(std::uint64_t enabled) const {
  if (enabled == 0) return std::nullopt;
  const bool machine_enabled =
      state_.privilege != Privilege::kMachine || (state_.mstatus & mstatus::kMie) != 0;
  const bool supervisor_enabled =
      state_.privilege == Privilege::kUser ||
      (state_.privilege == Privilege::kSupervisor && (state_.mstatus & mstatus::kSie) != 0);
  std::uint64_t candidates = machine_enabled ? enabled & ~state_.mideleg : 0;
  if (candidates == 0 && supervisor_enabled) candidates = enabled & state_.mideleg;
  // Privileged manual, "Machine Interrupt Registers": external, software, timer; machine before supervisor.
  for (const Interrupt interrupt :
       {Interrupt::kMachineExternal, Interrupt::kMachineSoftware, Interrupt::kMachineTimer,
        Interrupt::kSupervisorExternal, Interrupt::kSupervisorSoftware, Interrupt::kSupervisorTimer}) {
    if ((candidates & mask_of(interrupt)) != 0) return interrupt;
  }
  return std::nullopt;
}

// Reads no clock, since every return from a trap comes here: once stimecmp passes, wake() makes the hart look.
void Hart::recheck_interrupts() {
  std::uint64_t pending = state_.mip | lines_.load(std::memory_order_acquire);
  if ((state_.menvcfg & envcfg::kStce) != 0) pending = with_timer(pending, timer_passed_);
  state_.interrupt_waiting = pending & state_.mie;
  if (deliverable_interrupt(state_.interrupt_waiting)) attend(kInterruptChange);
}

void Hart::take_trap(Trap trap, std::uint64_t epc) {
  if (trap.cause == Exception::kBreakpoint && on_breakpoint && on_breakpoint(epc)) {
    state_.pc = epc;
    return;
  }
  const unsigned cause = static_cast<unsigned>(trap.cause);
  ++statistics_.exceptions[cause];
  if (env_.user != nullptr) {
    state_.reservation = HartState::kNoReservation;
    env_.user->trap(*this, trap, epc);
    return;
  }
  const bool to_supervisor = state_.privilege != Privilege::kMachine && bit(state_.medeleg, cause);
  enter_handler(cause, trap.value, epc, to_supervisor, false);
}

void Hart::enter_handler(std::uint64_t cause, std::uint64_t value, std::uint64_t epc, bool to_supervisor,
                         bool interrupt) {
  const std::uint64_t code = cause | (interrupt ? std::uint64_t{1} << 63 : 0);
  std::uint64_t& status = state_.mstatus;
  std::uint64_t vector = 0;
  state_.reservation = HartState::kNoReservation;
  if (to_supervisor) {
    state_.scause = code;
    state_.sepc = epc;
    state_.stval = value;
    const bool enabled = (status & mstatus::kSie) != 0;
    status = with_bits(status, 5, 5, enabled);
    status = with_bits(status, 8, 8, static_cast<std::uint64_t>(state_.privilege));
    status &= ~mstatus::kSie;
    state_.privilege = Privilege::kSupervisor;
    vector = state_.stvec;
  } else {
    state_.mcause = code;
    state_.mepc = epc;
    state_.mtval = value;
    const bool enabled = (status & mstatus::kMie) != 0;
    status = with_bits(status, 7, 7, enabled);
    status = with_bits(status, 12, 11, static_cast<std::uint64_t>(state_.privilege));
    status &= ~mstatus::kMie;
    state_.privilege = Privilege::kMachine;
    vector = state_.mtvec;
  }
  state_.pc = (vector & ~std::uint64_t{3}) + ((vector & 1) != 0 && interrupt ? 4 * cause : 0);
  mmu_->update();
}

void Hart::return_from_machine_trap() {
  std::uint64_t& status = state_.mstatus;
  const auto previous = static_cast<Privilege>(bits(status, 12, 11));
  status = with_bits(status, 3, 3, bit(status, 7));
  status |= mstatus::kMpie;
  status &= ~mstatus::kMpp;
  if (previous != Privilege::kMachine) status &= ~mstatus::kMprv;
  state_.privilege = previous;
  state_.pc = state_.mepc;
  mmu_->update();
  recheck_interrupts();
}

void Hart::return_from_supervisor_trap() {
  std::uint64_t& status = state_.mstatus;
  state_.privilege = bit(status, mstatus::kSppShift) ? Privilege::kSupervisor : Privilege::kUser;
  status = with_bits(status, 1, 1, bit(status, 5));
  status |= mstatus::kSpie;
  status &= ~(mstatus::kSpp | mstatus::kMprv);
  state_.pc = state_.sepc;
  mmu_->update();
  recheck_interrupts();
}

void Hart::request_wait() {
  if ((pending_interrupts() & state_.mie) == 0) return attend(kWait);
  // It may be the timer, of which nobody else has told yet: an idle loop would ask until somebody does.
  if (supervisor_timer_passed() && !std::exchange(timer_passed_, true)) recheck_interrupts();
}

bool Hart::wait_is_over() const {
  // In this order: who raises a line asks for attention after that.
  const std::uint32_t why = attention_.load(std::memory_order_seq_cst);
  return (why & ~kInterruptChange) != 0 || (pending_interrupts() & state_.mie) != 0;
}

void Hart::wait_for_interrupt() {
  // A thread that sleeps takes some 30 microseconds to wake. Where waits are short, as when harts work together, the hart
  // looks for a little longer than that by itself; one that idles sleeps.
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::microseconds kPollTime{50}, kShortWait{500};
  static const bool kCanPoll = has_several_processors();
  ++statistics_.waits;
  const Clock::time_point begin = Clock::now();
  bool over = wait_is_over();
  while (!over && waits_are_short_ && Clock::now() - begin < kPollTime) {
    relax_processor();
    over = wait_is_over();
  }
  if (!over) {
    std::unique_lock lock(mutex_);
    asleep_.store(true, std::memory_order_seq_cst);
    woken_.wait(lock, [this] { return wait_is_over(); });
    asleep_.store(false, std::memory_order_relaxed);
  }
  waits_are_short_ = kCanPoll && Clock::now() - begin < kShortWait;
  attention_.fetch_or(kInterruptChange, std::memory_order_seq_cst);  // for the engine to take it
}

void Hart::park() {
  parked_.store(true, std::memory_order_release);
  attend(kPark);
}

void Hart::start(std::uint64_t pc, std::uint64_t a0, std::uint64_t a1) {
  {
    const std::lock_guard lock(mutex_);
    start_ = {pc, a0, a1};
  }
  woken_.notify_all();
}

void Hart::wait_while_parked() {
  std::unique_lock lock(mutex_);
  asleep_.store(true, std::memory_order_seq_cst);
  woken_.wait(lock, [this] {
    return start_.has_value() || (attention_.load(std::memory_order_seq_cst) & kStopRequest) != 0;
  });
  asleep_.store(false, std::memory_order_relaxed);
  if (!start_) return;
  enter_supervisor(start_->pc, start_->a0, start_->a1);
  start_.reset();
  parked_.store(false, std::memory_order_release);
}

void Hart::arm_supervisor_timer() {
  timer_passed_ = supervisor_timer_passed();
  if ((state_.menvcfg & envcfg::kStce) == 0 || !env_.arm_timer) return;
  // Beyond this the clock in nanoseconds has no such time; nobody waits for it either.
  constexpr std::uint64_t kNever = ~std::uint64_t{0} / kNanosecondsPerTick / 2;
  if (state_.stimecmp < kNever) {
    if (time() < state_.stimecmp) {
      env_.arm_timer(state_.stimecmp * kNanosecondsPerTick);
    } else {
      recheck_interrupts();
    }
  }
}

}  // namespace doppel::riscv
