// One hart with RAM, no devices and a clock that only moves by hand, to run a few instructions on.
//
// The handlers of M- and S-mode spin in place, so a trap ends what run() runs: the state is then as the trap
// left it. Several machines may share the memory of one (harts of the same system).
//
// tests/engine compiles the tests that use it a second time, for the translator.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "assembler.h"
#include "base/virtual_clock.h"
#include "isa/riscv/csr.h"
#include "isa/riscv/hart.h"
#include "isa/riscv/interpreter.h"
#include "isa/riscv/mmu.h"
#ifdef DOPPEL_TEST_TRANSLATOR
#include "engine/translator_engine.h"
#endif

namespace doppel::riscv::test {

using u64 = std::uint64_t;

inline constexpr u64 kRam = 0x8000'0000, kRamBytes = 4 << 20;
inline constexpr u64 kCode = kRam;                  // where run() puts programs
inline constexpr u64 kMachineHandler = kRam + 0x10000, kSupervisorHandler = kRam + 0x11000;
inline constexpr u64 kTables = kRam + 0x20000;      // for page tables: 16 pages
inline constexpr u64 kData = kRam + 0x40000;        // for everything else
inline constexpr u64 kHole = 0x4000'0000;           // nothing answers here

class NoDevices final : public IoSpace {
 public:
  std::optional<u64> read(GuestPhysical, Width) const override { return std::nullopt; }
  bool write(GuestPhysical, Width, u64) const override { return false; }
};

inline GuestMemory make_ram() {
  GuestMemory memory;
  EXPECT_TRUE(memory.add_ram({{kRam}, kRamBytes}));
  return memory;
}

#ifdef DOPPEL_TEST_TRANSLATOR
// Leaves to the interpreter what is too short for a block: pieces must be long enough. A hart that spins at the
// end of its program meanwhile does no harm.
struct TestEngine {
  static constexpr u64 kPiece = 64;
  // It may report floating-point state as dirty that was only read (privileged manual, "Extension Context Status").
  static constexpr bool kDirtinessIsExact = false;
  explicit TestEngine(Hart& hart) : engine(TranslatorEngine::create(hart, {.translate_after = 0}).value()) {}
  Exit run(u64 budget) { return engine->run(budget); }
  std::unique_ptr<Engine> engine;
};
#else
struct TestEngine : Interpreter {
  static constexpr u64 kPiece = 1;
  static constexpr bool kDirtinessIsExact = true;
  using Interpreter::Interpreter;
};
#endif

struct TestMachine {
  explicit TestMachine(const IsaConfig& config = IsaConfig::rva22(), SupervisorCalls* firmware = nullptr)
      : TestMachine(nullptr, config, firmware) {}
  // Another hart in the memory of `first`.
  explicit TestMachine(TestMachine& first, SupervisorCalls* firmware = nullptr)
      : TestMachine(&first, first.hart.isa(), firmware) {}

  HartState& state() { return hart.state(); }
  u64& x(unsigned number) { return hart.state().x[number]; }
  u64& a(unsigned number) { return hart.state().x[10 + number]; }

  void load(u64 gpa, std::span<const std::uint16_t> code) {
    ASSERT_TRUE(memory.write({gpa}, std::as_bytes(code)));
  }
  void load(u64 gpa, std::string_view source) { load(gpa, assemble(source, gpa)); }
  template <class T = u64>
  T peek(u64 gpa) const { return memory.load<T>({gpa}).value(); }
  template <class T = u64>
  void poke(u64 gpa, T value) { ASSERT_TRUE(memory.store<T>({gpa}, value)); }

  // The mode that the next instruction runs in.
  void set_privilege(Privilege privilege) {
    state().privilege = privilege;
    hart.mmu().update();
  }
  void set_status(u64 set, u64 clear = 0) {
    state().mstatus = (state().mstatus & ~clear) | set;
    hart.mmu().update();
    hart.recheck_interrupts();
  }
  void set_satp(u64 satp) {
    state().satp = satp;
    hart.mmu().update();
  }
  void set_time(u64 ticks) { clock.set(ticks * kNanosecondsPerTick); }

  Exit resume(u64 instructions) { return engine.run(instructions); }

  // Runs the program from its first line until it has left its end, trapped, or run `most` instructions.
  // Gives the cause of a trap (mcause or scause).
  std::optional<u64> run(std::string_view source, u64 most = 64) { return run_at(kCode, source, most); }
  // The same with the program at gva, where it is translated to gpa (kCode, for example).
  std::optional<u64> run_at(u64 gva, std::string_view source, u64 most = 64, std::optional<u64> gpa = {}) {
    std::vector<std::uint16_t> code = assemble(source, gva);
    const u64 end = gva + 2 * code.size();
    code.push_back(0xa001);  // c.j .
    load(gpa.value_or(gva), code);
    hart.on_fence_i();
    state().pc = gva;
    for (u64 done = 0; done < most && state().pc != end && !trapped(); done += TestEngine::kPiece) {
      resume(std::min(most - done, TestEngine::kPiece));
    }
    return trapped();
  }

  // The cause, when the hart is in one of the handlers.
  std::optional<u64> trapped() {
    if (align_down(state().pc, kPageSize) == kMachineHandler) return state().mcause;
    if (align_down(state().pc, kPageSize) == kSupervisorHandler) return state().scause;
    return std::nullopt;
  }

 private:
  TestMachine(TestMachine* first, const IsaConfig& config, SupervisorCalls* firmware)
      : own_memory(first ? GuestMemory() : make_ram()),
        memory(first ? first->memory : own_memory),
        clock(0),
        hart(first ? 1 : 0, config, HartEnv{memory, io, clock, [this](u64 at) { timer = at; }, firmware}),
        engine(hart) {
    clock.pause();
    clock.set(0);
    hart.reset(kCode);
    state().mtvec = kMachineHandler;
    state().stvec = kSupervisorHandler;
    state().mstatus |= mstatus::kFs;
    state().pmpcfg[15] = 0x1f;  // all of memory, to every mode
    state().pmpaddr[15] = ~u64{0} >> 10;
    hart.mmu().flush();
    if (first != nullptr) return;
    const std::uint16_t spin = 0xa001;
    for (u64 offset = 0; offset < kPageSize; offset += 2) {
      poke(kMachineHandler + offset, spin);
      poke(kSupervisorHandler + offset, spin);
    }
  }

  GuestMemory own_memory;
  NoDevices io;

 public:
  const GuestMemory& memory;
  VirtualClock clock;
  std::optional<u64> timer;  // the last that the hart asked for, ns
  Hart hart;
  TestEngine engine;
};

}  // namespace doppel::riscv::test
