// A bare machine for comparing engines: one hart, a little RAM, one device page that answers and remembers,
// and a clock that only moves by hand. Two of them with the same contents do the same, whatever engine runs them.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/virtual_clock.h"
#include "engine/hart_thread.h"
#include "engine/translator_engine.h"
#include "isa/riscv/csr.h"
#include "isa/riscv/decode.h"
#include "isa/riscv/hart.h"
#include "isa/riscv/interpreter.h"
#include "isa/riscv/mmu.h"

namespace doppel::engine_test {

using u64 = std::uint64_t;

inline constexpr u64 kRam = 0x4000'0000, kRamBytes = 0x80000;
inline constexpr u64 kDevice = 0x0200'0000;

// Reads give numbers that depend on the address and on how many came before; half of the page does not answer.
// Like a device that keeps time, it computes in floating point, and checks that it is the host's.
class RecordingDevice final : public IoSpace {
 public:
  struct Event {
    bool write;
    u64 gpa;
    unsigned bytes;
    u64 value;
    friend bool operator==(const Event&, const Event&) = default;
  };

  std::optional<u64> read(GuestPhysical gpa, Width width) const override {
    if (!answers(gpa)) return std::nullopt;
    compute();
    const u64 noise = (gpa.value ^ events_.size() << 32) * 0x9e37'79b9'7f4a'7c15;
    const unsigned bits = 8 * bytes_of(width);
    events_.push_back({false, gpa.value, bytes_of(width), noise >> (64 - bits)});
    return events_.back().value;
  }
  bool write(GuestPhysical gpa, Width width, u64 value) const override {
    if (!answers(gpa)) return false;
    compute();
    events_.push_back({true, gpa.value, bytes_of(width), value});
    return true;
  }

  const std::vector<Event>& events() const { return events_; }

 private:
  static void compute() {
    volatile double third = 1.0;
    third = third / 3.0;
    if (third != 0x1.5555555555555p-2) std::abort();  // rounded to nearest
  }
  static bool answers(GuestPhysical gpa) { return gpa.value - kDevice < kPageSize / 2; }

  mutable std::vector<Event> events_;
};

// What a machine starts from.
struct Contents {
  riscv::HartState state;
  std::vector<std::byte> ram = std::vector<std::byte>(kRamBytes);

  template <class T>
  void poke(u64 gpa, T value) { std::memcpy(&ram.at(gpa - kRam), &value, sizeof value); }
  template <class T>
  T peek(u64 gpa) const {
    T value;
    std::memcpy(&value, &ram.at(gpa - kRam), sizeof value);
    return value;
  }
  void load(u64 gpa, const std::vector<std::uint16_t>& code) {
    std::memcpy(&ram.at(gpa - kRam), code.data(), 2 * code.size());
  }
};

// The state after reset, with floating point on and all of memory open to every mode.
inline riscv::HartState open_state(u64 pc) {
  riscv::HartState state;
  state.pc = pc;
  state.mstatus = riscv::mstatus::kXl64 | riscv::mstatus::kFs;
  state.pmpcfg[0] = 0x1f;
  state.pmpaddr[0] = ~u64{0} >> 10;
  return state;
}

class Machine {
 public:
  Machine(EngineKind kind, const Contents& contents) : Machine(kind, contents, nullptr) {}
  // One that sees loops as hot at once: regions form wherever they can.
  static constexpr TranslatorEngine::Options kEager{
      .slice = 31, .slices_a_sample = 2, .hot_after = 1, .translate_after = 0,
      .shadow_after = TranslatorEngine::Options::kNever, .window_after = TranslatorEngine::Options::kNever};
  // Likewise, and shadows programs and opens the supervisor's window as soon as it can.
  static constexpr TranslatorEngine::Options kShadowing{
      .slice = 31, .slices_a_sample = 2, .hot_after = 1, .translate_after = 0, .shadow_after = 1, .window_after = 1};
  Machine(const TranslatorEngine::Options& options, const Contents& contents,
          const MachineCode& kept = {})
      : Machine(EngineKind::kInterpret, contents, nullptr) {
    engine_.reset();  // engines leave what they hook into the hart as they found it
    auto engine = TranslatorEngine::create(hart_, options).value();
    engine->keep_code(kept);
    engine_ = std::move(engine);
  }
  // Another hart in the memory of `first`, in a state of its own.
  Machine(EngineKind kind, const riscv::HartState& state, Machine& first)
      : Machine(kind, Contents{state, {}}, &first) {}

  riscv::Hart& hart() { return hart_; }
  riscv::HartState& state() { return hart_.state(); }
  const riscv::HartState& state() const { return hart_.state(); }
  const RecordingDevice& device() const { return device_; }
  std::byte* ram() const { return memory_.host({kRam}, kRamBytes); }
  template <class T = u64>
  T peek(u64 gpa) const { return memory_.load<T>({gpa}).value(); }

  // Runs exactly so many instructions, and takes the interrupt that the last of them may have allowed. Waiting
  // for interrupts takes no time.
  void run(u64 instructions) {
    const u64 end = state().instructions + instructions;
    while (state().instructions < end) engine_->run(end - state().instructions);
    if (hart_.attention()) hart_.serve_attention();
  }
  // Runs until pc is `address`, where the guest spins.
  void run_to(u64 address) {
    while (state().pc != address) engine_->run(1000);
  }
  void set_interrupts(u64 lines) {
    using riscv::Interrupt;
    for (const Interrupt interrupt :
         {Interrupt::kSupervisorSoftware, Interrupt::kMachineSoftware, Interrupt::kSupervisorTimer,
          Interrupt::kMachineTimer, Interrupt::kSupervisorExternal, Interrupt::kMachineExternal}) {
      hart_.set_interrupt(interrupt, (lines & riscv::mask_of(interrupt)) != 0);
    }
  }
  EngineStatistics statistics() const { return engine_->statistics(); }
  void set_time(u64 ticks) {
    clock_.set(ticks * riscv::kNanosecondsPerTick);
    hart_.wake();
  }

 private:
  Machine(EngineKind kind, const Contents& contents, Machine* first)
      : own_memory_(first == nullptr ? make_ram(contents) : GuestMemory()),
        memory_(first == nullptr ? own_memory_ : first->memory_),
        hart_(first == nullptr ? 0 : 1, riscv::IsaConfig::rva22(), {memory_, device_, clock_, [](u64) {}}) {
    clock_.pause();
    clock_.set(0);
    hart_.state() = contents.state;
    hart_.mmu().flush();
    hart_.wake();
    engine_ = make_engine(kind, hart_).value();
  }

  static GuestMemory make_ram(const Contents& contents) {
    GuestMemory memory;
    if (!memory.add_ram({{kRam}, kRamBytes}) || !memory.write({kRam}, contents.ram)) std::abort();
    return memory;
  }

  GuestMemory own_memory_;
  const GuestMemory& memory_;
  RecordingDevice device_;
  VirtualClock clock_;
  riscv::Hart hart_;
  std::unique_ptr<Engine> engine_;
};

// A machine that is interpreted one instruction, or one trap, at a time.
class SteppedMachine {
 public:
  explicit SteppedMachine(const Contents& contents)
      : machine_(EngineKind::kInterpret, contents), interpreter_(machine_.hart()) {}

  riscv::Hart& hart() { return machine_.hart(); }
  const riscv::HartState& state() const { return machine_.state(); }
  const Machine& machine() const { return machine_; }

  void begin_chunk(u64 interrupts, u64 time) {
    machine_.set_time(time);
    machine_.set_interrupts(interrupts);
    take_interrupt();
  }
  // What may be taken has been, and pc is where the next step is.
  void step() {
    interpreter_.step();
    take_interrupt();
  }
  // Tells also `notify`.
  void on_fence_i(std::function<void()> notify) {
    hart().on_fence_i = [this, notify = std::move(notify)] {
      interpreter_.expect_code_changes();
      notify();
    };
  }

 private:
  void take_interrupt() {
    if (hart().attention()) hart().serve_attention();
  }

  Machine machine_;
  riscv::Interpreter interpreter_;  // has taken the place of the machine's own
};

// What a guest could tell the machines apart by, one line each; empty when there is nothing.
inline std::string differences(const Machine& a, const Machine& b) {
  using riscv::HartState;
  const HartState& s = a.state();
  const HartState& t = b.state();
  std::string text;
  const auto compare = [&](std::string_view name, u64 left, u64 right) {
    if (left != right) text += fmt::format("  {:<16} {:#018x} {:#018x}\n", name, left, right);
  };
  for (unsigned i = 0; i < 32; ++i) compare(riscv::integer_register_names()[i], s.x[i], t.x[i]);
  for (unsigned i = 0; i < 32; ++i) compare(riscv::float_register_names()[i], s.f[i], t.f[i]);
#define DOPPEL_COMPARE(field) compare(#field, static_cast<u64>(s.field), static_cast<u64>(t.field))
  DOPPEL_COMPARE(pc);
  DOPPEL_COMPARE(instructions);
  DOPPEL_COMPARE(privilege);
  DOPPEL_COMPARE(fflags);
  DOPPEL_COMPARE(frm);
  DOPPEL_COMPARE(mstatus);
  DOPPEL_COMPARE(medeleg);
  DOPPEL_COMPARE(mideleg);
  DOPPEL_COMPARE(mie);
  DOPPEL_COMPARE(mip);
  DOPPEL_COMPARE(mtvec);
  DOPPEL_COMPARE(mscratch);
  DOPPEL_COMPARE(mepc);
  DOPPEL_COMPARE(mcause);
  DOPPEL_COMPARE(mtval);
  DOPPEL_COMPARE(menvcfg);
  DOPPEL_COMPARE(mcounteren);
  DOPPEL_COMPARE(mcountinhibit);
  DOPPEL_COMPARE(mcycle_offset);
  DOPPEL_COMPARE(minstret_offset);
  DOPPEL_COMPARE(mcycle_frozen);
  DOPPEL_COMPARE(minstret_frozen);
  DOPPEL_COMPARE(stvec);
  DOPPEL_COMPARE(sscratch);
  DOPPEL_COMPARE(sepc);
  DOPPEL_COMPARE(scause);
  DOPPEL_COMPARE(stval);
  DOPPEL_COMPARE(senvcfg);
  DOPPEL_COMPARE(scounteren);
  DOPPEL_COMPARE(satp);
  DOPPEL_COMPARE(stimecmp);
#undef DOPPEL_COMPARE
  for (unsigned i = 0; i < riscv::kPmpEntries; ++i) {
    compare(fmt::format("pmp {}", i), s.pmpcfg[i], t.pmpcfg[i]);
    compare(fmt::format("pmpaddr{}", i), s.pmpaddr[i], t.pmpaddr[i]);
  }
  for (u64 offset = 0, shown = 0; offset < kRamBytes && shown < 16; offset += kPageSize) {
    if (std::memcmp(a.ram() + offset, b.ram() + offset, kPageSize) == 0) continue;
    for (u64 at = offset; at < offset + kPageSize; at += 8) {
      if (a.peek(kRam + at) == b.peek(kRam + at)) continue;
      compare(fmt::format("[{:#x}]", kRam + at), a.peek(kRam + at), b.peek(kRam + at));
      if (++shown == 16) break;
    }
  }
  const auto& left = a.device().events();
  const auto& right = b.device().events();
  const std::size_t events = std::min(left.size(), right.size());
  for (std::size_t i = 0; i < events; ++i) {
    if (left[i] == right[i]) continue;
    compare(fmt::format("event {} gpa", i), left[i].gpa, right[i].gpa);
    compare(fmt::format("event {} value", i), left[i].value, right[i].value);
    break;
  }
  compare("device events", left.size(), right.size());
  return text;
}

}  // namespace doppel::engine_test
