// The CSR table: one entry a register, or a register range, with what reading and writing mean. WARL fields
// keep legal values only (privileged manual, chapters "CSRs", "Machine-Level ISA", "Supervisor-Level ISA").
#include "isa/riscv/csr.h"

#include <array>

#include "base/bits.h"
#include "isa/riscv/ext/system.h"
#include "isa/riscv/hart.h"
#include "isa/riscv/mmu.h"

namespace doppel::riscv {
namespace {

using u64 = std::uint64_t;

constexpr u64 kSupervisorInterrupts = mask_of(Interrupt::kSupervisorSoftware) |
                                      mask_of(Interrupt::kSupervisorTimer) |
                                      mask_of(Interrupt::kSupervisorExternal);
constexpr u64 kMachineInterrupts = mask_of(Interrupt::kMachineSoftware) | mask_of(Interrupt::kMachineTimer) |
                                   mask_of(Interrupt::kMachineExternal);
constexpr u64 kAllInterrupts = kSupervisorInterrupts | kMachineInterrupts;

constexpr u64 kSstatusFields = mstatus::kSie | mstatus::kSpie | mstatus::kSpp | mstatus::kFs | mstatus::kSum |
                               mstatus::kMxr;
constexpr u64 kMstatusFields = kSstatusFields | mstatus::kMie | mstatus::kMpie | mstatus::kMpp | mstatus::kMprv |
                               mstatus::kTvm | mstatus::kTw | mstatus::kTsr;
constexpr u64 kUxl = u64{3} << 32;

using Read = u64 (*)(const Hart&, unsigned number);
using Write = CsrEffect (*)(Hart&, unsigned number, u64 value);
using Present = bool (*)(const Hart&);

struct Csr {
  const char* name = nullptr;
  Read read = nullptr;    // null: no such register
  Write write = nullptr;  // null: writes are ignored (WARL with one legal value)
  Present present = nullptr;  // null: always
};

u64 with_dirty_summary(u64 status) {
  return (status & mstatus::kFs) == mstatus::kFs ? status | mstatus::kSd : status;
}

CsrEffect write_status(Hart& hart, u64 value, u64 fields) {
  u64& status = hart.state().mstatus;
  const u64 before = status;
  status = (status & ~fields) | (value & fields);
  // MPP is WARL: 2 is no privilege.
  if (bits(status, 12, 11) == 2) status = with_bits(status, 12, 11, bits(before, 12, 11));
  return CsrEffect::kBoth;
}

u64 legal_vector(u64 value) { return value & ~u64{2}; }
// IALIGN is 16: bit 0 of an exception pc is always zero.
u64 legal_epc(u64 value) { return value & ~u64{1}; }

u64 legal_envcfg(u64 value, u64 before, u64 fields) {
  u64 next = (before & ~fields) | (value & fields);
  if (bits(next, 5, 4) == 2) next = with_bits(next, 5, 4, bits(before, 5, 4));  // CBIE: 2 is reserved
  return next;
}

// mcycle and minstret both count retired instructions: an emulated hart has no truer cycle. The access
// itself is not yet counted.
u64 read_counter(const Hart& hart, unsigned index) {
  const HartState& s = hart.state();
  if (bit(s.mcountinhibit, index)) return index == 0 ? s.mcycle_frozen : s.minstret_frozen;
  return s.instructions + (index == 0 ? s.mcycle_offset : s.minstret_offset);
}

void set_counter(Hart& hart, unsigned index, u64 value) {
  HartState& s = hart.state();
  u64& frozen = index == 0 ? s.mcycle_frozen : s.minstret_frozen;
  u64& offset = index == 0 ? s.mcycle_offset : s.minstret_offset;
  frozen = value;
  // The write takes the place of this instruction's own increment.
  offset = value - (s.instructions + 1);
}

CsrEffect write_inhibit(Hart& hart, unsigned, u64 value) {
  HartState& s = hart.state();
  for (const unsigned index : {0u, 2u}) {
    if (bit(s.mcountinhibit, index) == bit(value, index)) continue;
    u64& frozen = index == 0 ? s.mcycle_frozen : s.minstret_frozen;
    u64& offset = index == 0 ? s.mcycle_offset : s.minstret_offset;
    if (bit(value, index)) {
      frozen = s.instructions + offset + 1;
    } else {
      offset = frozen - (s.instructions + 1);
    }
  }
  s.mcountinhibit = value & 5;
  return CsrEffect::kNone;
}

CsrEffect write_satp(Hart& hart, unsigned, u64 value) {
  const unsigned mode = static_cast<unsigned>(bits(value, 63, 60));
  const unsigned widest = (hart.isa().virtual_address_bits - 39) / 9 + 8;
  // A write with an unsupported MODE has no effect at all.
  if (mode != 0 && (mode < 8 || mode > widest)) return CsrEffect::kNone;
  hart.state().satp = value;
  return CsrEffect::kTranslation;
}

CsrEffect write_pmpcfg(Hart& hart, unsigned number, u64 value) {
  const unsigned first = (number - csr::kPmpcfg0) * 4;
  for (unsigned i = 0; i < 8; ++i) {
    std::uint8_t& config = hart.state().pmpcfg[first + i];
    if (bit(config, 7)) continue;
    std::uint8_t next = static_cast<std::uint8_t>(value >> (8 * i)) & 0x9f;
    if ((next & 3) == 2) next &= static_cast<std::uint8_t>(~2u);  // W without R is reserved
    config = next;
  }
  hart.mmu().flush();
  return CsrEffect::kTranslation;
}

CsrEffect write_pmpaddr(Hart& hart, unsigned number, u64 value) {
  const unsigned i = number - csr::kPmpaddr0;
  const auto& config = hart.state().pmpcfg;
  const bool locked_as_top = i + 1 < kPmpEntries && bit(config[i + 1], 7) && bits(config[i + 1], 4, 3) == 1;
  if (!bit(config[i], 7) && !locked_as_top) {
    hart.state().pmpaddr[i] = value & (~u64{0} >> 10);
    hart.mmu().flush();
  }
  return CsrEffect::kTranslation;
}

u64 read_pmpcfg(const Hart& hart, unsigned number) {
  const unsigned first = (number - csr::kPmpcfg0) * 4;
  u64 value = 0;
  for (unsigned i = 0; i < 8; ++i) value |= u64{hart.state().pmpcfg[first + i]} << (8 * i);
  return value;
}

bool has_floating_point(const Hart& hart) { return (hart.state().mstatus & mstatus::kFs) != 0; }
bool has_sstc(const Hart& hart) { return hart.isa().has(Extension::kSstc); }

u64 zero(const Hart&, unsigned) { return 0; }

u64 misa_of(const Hart& hart, unsigned) {
  u64 value = u64{2} << 62;
  constexpr std::array kLetters{std::pair{Extension::kI, 'I'}, std::pair{Extension::kM, 'M'},
                                std::pair{Extension::kA, 'A'}, std::pair{Extension::kF, 'F'},
                                std::pair{Extension::kD, 'D'}, std::pair{Extension::kC, 'C'}};
  for (const auto& [extension, letter] : kLetters) {
    if (hart.isa().has(extension)) value |= u64{1} << (letter - 'A');
  }
  return value | u64{1} << ('S' - 'A') | u64{1} << ('U' - 'A');
}

void mark_dirty(Hart& hart) {
  hart.state().mstatus |= mstatus::kFsDirty;
}

// By number. Few of the 4096 are there: a table with pointers for all of them would take longer to relocate, whenever the
// program starts, than many guests run.
class Table {
 public:
  constexpr Csr& operator[](unsigned number) {
    if (places_[number] == 0) places_[number] = ++used_;
    return csrs_[places_[number]];
  }
  constexpr const Csr& operator[](unsigned number) const { return csrs_[places_[number]]; }

 private:
  std::array<std::uint8_t, 4096> places_{};
  std::array<Csr, 200> csrs_{};  // the first one is those that are not there
  std::uint8_t used_ = 0;
};

constexpr auto kTable = [] {
  Table t;
  // Plain storage: DOPPEL_FIELD(name) reads and writes state().name as it is.
#define DOPPEL_FIELD(field)                                             \
  [](const Hart& h, unsigned) -> u64 { return h.state().field; },       \
      [](Hart& h, unsigned, u64 v) {                                    \
        h.state().field = v;                                            \
        return CsrEffect::kNone;                                        \
      }
  t[csr::kFflags] = {"fflags", [](const Hart& h, unsigned) -> u64 { return h.state().fflags; },
                     [](Hart& h, unsigned, u64 v) {
                       h.state().fflags = v & 0x1f;
                       mark_dirty(h);
                       return CsrEffect::kNone;
                     },
                     has_floating_point};
  t[csr::kFrm] = {"frm", [](const Hart& h, unsigned) -> u64 { return h.state().frm; },
                  [](Hart& h, unsigned, u64 v) {
                    h.state().frm = v & 7;
                    mark_dirty(h);
                    return CsrEffect::kNone;
                  },
                  has_floating_point};
  t[csr::kFcsr] = {"fcsr",
                   [](const Hart& h, unsigned) { return u64{h.state().fflags} | u64{h.state().frm} << 5; },
                   [](Hart& h, unsigned, u64 v) {
                     h.state().fflags = v & 0x1f;
                     h.state().frm = bits(v, 7, 5) & 7;
                     mark_dirty(h);
                     return CsrEffect::kNone;
                   },
                   has_floating_point};
  t[csr::kCycle] = {"cycle", [](const Hart& h, unsigned) { return read_counter(h, 0); }};
  t[csr::kTime] = {"time", [](const Hart& h, unsigned) { return h.time(); }};
  t[csr::kInstret] = {"instret", [](const Hart& h, unsigned) { return read_counter(h, 2); }};
  t[csr::kMcycle] = {"mcycle", [](const Hart& h, unsigned) { return read_counter(h, 0); },
                     [](Hart& h, unsigned, u64 v) { return set_counter(h, 0, v), CsrEffect::kNone; }};
  t[csr::kMinstret] = {"minstret", [](const Hart& h, unsigned) { return read_counter(h, 2); },
                       [](Hart& h, unsigned, u64 v) { return set_counter(h, 2, v), CsrEffect::kNone; }};
  // Zihpm: the programmable counters exist and stand still.
  for (unsigned i = 0; i < 29; ++i) {
    t[csr::kHpmcounter3 + i] = {"hpmcounter", zero};
    t[csr::kMhpmcounter3 + i] = {"mhpmcounter", zero};
    t[csr::kMhpmevent3 + i] = {"mhpmevent", zero};
  }
  t[csr::kMcountinhibit] = {"mcountinhibit", [](const Hart& h, unsigned) { return h.state().mcountinhibit; },
                            write_inhibit};

  t[csr::kSstatus] = {"sstatus",
                      [](const Hart& h, unsigned) {
                        return with_dirty_summary(h.state().mstatus & (kSstatusFields | kUxl));
                      },
                      [](Hart& h, unsigned, u64 v) { return write_status(h, v, kSstatusFields); }};
  t[csr::kMstatus] = {"mstatus",
                      [](const Hart& h, unsigned) { return with_dirty_summary(h.state().mstatus); },
                      [](Hart& h, unsigned, u64 v) { return write_status(h, v, kMstatusFields); }};
  t[csr::kSie] = {"sie", [](const Hart& h, unsigned) { return h.state().mie & h.state().mideleg; },
                  [](Hart& h, unsigned, u64 v) {
                    const u64 fields = h.state().mideleg & kSupervisorInterrupts;
                    h.state().mie = (h.state().mie & ~fields) | (v & fields);
                    return CsrEffect::kInterrupts;
                  }};
  t[csr::kMie] = {"mie", [](const Hart& h, unsigned) { return h.state().mie; },
                  [](Hart& h, unsigned, u64 v) {
                    h.state().mie = v & kAllInterrupts;
                    return CsrEffect::kInterrupts;
                  }};
  t[csr::kSip] = {"sip", [](const Hart& h, unsigned) { return h.pending_interrupts() & h.state().mideleg; },
                  [](Hart& h, unsigned, u64 v) {
                    // Only SSIP is writable from S-mode.
                    const u64 fields = h.state().mideleg & mask_of(Interrupt::kSupervisorSoftware);
                    h.state().mip = (h.state().mip & ~fields) | (v & fields);
                    return CsrEffect::kInterrupts;
                  }};
  t[csr::kMip] = {"mip", [](const Hart& h, unsigned) { return h.pending_interrupts(); },
                  [](Hart& h, unsigned, u64 v) {
                    u64 fields = kSupervisorInterrupts;
                    if ((h.state().menvcfg & envcfg::kStce) != 0) fields &= ~mask_of(Interrupt::kSupervisorTimer);
                    h.state().mip = (h.state().mip & ~fields) | (v & fields);
                    return CsrEffect::kInterrupts;
                  }};
  t[csr::kMideleg] = {"mideleg", [](const Hart& h, unsigned) { return h.state().mideleg; },
                      [](Hart& h, unsigned, u64 v) {
                        h.state().mideleg = v & kSupervisorInterrupts;
                        return CsrEffect::kInterrupts;
                      }};
  t[csr::kMedeleg] = {"medeleg", [](const Hart& h, unsigned) { return h.state().medeleg; },
                      [](Hart& h, unsigned, u64 v) {
                        h.state().medeleg = v & 0xb3ff;  // all but calls from M-mode and reserved causes
                        return CsrEffect::kNone;
                      }};
  t[csr::kStvec] = {"stvec", [](const Hart& h, unsigned) { return h.state().stvec; },
                    [](Hart& h, unsigned, u64 v) {
                      h.state().stvec = legal_vector(v);
                      return CsrEffect::kNone;
                    }};
  t[csr::kMtvec] = {"mtvec", [](const Hart& h, unsigned) { return h.state().mtvec; },
                    [](Hart& h, unsigned, u64 v) {
                      h.state().mtvec = legal_vector(v);
                      return CsrEffect::kNone;
                    }};
  t[csr::kSepc] = {"sepc", [](const Hart& h, unsigned) { return h.state().sepc; },
                   [](Hart& h, unsigned, u64 v) {
                     h.state().sepc = legal_epc(v);
                     return CsrEffect::kNone;
                   }};
  t[csr::kMepc] = {"mepc", [](const Hart& h, unsigned) { return h.state().mepc; },
                   [](Hart& h, unsigned, u64 v) {
                     h.state().mepc = legal_epc(v);
                     return CsrEffect::kNone;
                   }};
  t[csr::kSscratch] = {"sscratch", DOPPEL_FIELD(sscratch)};
  t[csr::kMscratch] = {"mscratch", DOPPEL_FIELD(mscratch)};
  t[csr::kScause] = {"scause", DOPPEL_FIELD(scause)};
  t[csr::kMcause] = {"mcause", DOPPEL_FIELD(mcause)};
  t[csr::kStval] = {"stval", DOPPEL_FIELD(stval)};
  t[csr::kMtval] = {"mtval", DOPPEL_FIELD(mtval)};
#undef DOPPEL_FIELD
  t[csr::kScounteren] = {"scounteren", [](const Hart& h, unsigned) { return h.state().scounteren; },
                         [](Hart& h, unsigned, u64 v) {
                           h.state().scounteren = v & 0xffff'ffff;
                           return CsrEffect::kNone;
                         }};
  t[csr::kMcounteren] = {"mcounteren", [](const Hart& h, unsigned) { return h.state().mcounteren; },
                         [](Hart& h, unsigned, u64 v) {
                           h.state().mcounteren = v & 0xffff'ffff;
                           return CsrEffect::kNone;
                         }};
  t[csr::kSenvcfg] = {"senvcfg", [](const Hart& h, unsigned) { return h.state().senvcfg; },
                      [](Hart& h, unsigned, u64 v) {
                        constexpr u64 kFields = envcfg::kFiom | envcfg::kCbie | envcfg::kCbcfe | envcfg::kCbze;
                        h.state().senvcfg = legal_envcfg(v, h.state().senvcfg, kFields);
                        return CsrEffect::kNone;
                      }};
  t[csr::kMenvcfg] = {"menvcfg", [](const Hart& h, unsigned) { return h.state().menvcfg; },
                      [](Hart& h, unsigned, u64 v) {
                        u64 fields = envcfg::kFiom | envcfg::kCbie | envcfg::kCbcfe | envcfg::kCbze;
                        if (h.isa().has(Extension::kSvadu)) fields |= envcfg::kAdue;
                        if (h.isa().has(Extension::kSvpbmt)) fields |= envcfg::kPbmte;
                        if (h.isa().has(Extension::kSstc)) fields |= envcfg::kStce;
                        h.state().menvcfg = legal_envcfg(v, h.state().menvcfg, fields);
                        h.mmu().flush();
                        h.arm_supervisor_timer();
                        return CsrEffect::kBoth;
                      }};
  t[csr::kStimecmp] = {"stimecmp", [](const Hart& h, unsigned) { return h.state().stimecmp; },
                       [](Hart& h, unsigned, u64 v) {
                         h.state().stimecmp = v;
                         h.arm_supervisor_timer();
                         return CsrEffect::kNone;
                       },
                       has_sstc};
  t[csr::kSatp] = {"satp", [](const Hart& h, unsigned) { return h.state().satp; }, write_satp};
  t[csr::kMvendorid] = {"mvendorid", zero};
  t[csr::kMarchid] = {"marchid", zero};
  t[csr::kMimpid] = {"mimpid", zero};
  t[csr::kMconfigptr] = {"mconfigptr", zero};
  t[csr::kMhartid] = {"mhartid", [](const Hart& h, unsigned) { return u64{h.id()}; }};
  t[csr::kMisa] = {"misa", misa_of};  // WARL: no extension can be switched off
  for (unsigned i = 0; i < kPmpEntries; ++i) {
    t[csr::kPmpaddr0 + i] = {"pmpaddr",
                             [](const Hart& h, unsigned number) {
                               return h.state().pmpaddr[number - csr::kPmpaddr0];
                             },
                             write_pmpaddr};
  }
  for (const unsigned number : {csr::kPmpcfg0, csr::kPmpcfg0 + 2}) t[number] = {"pmpcfg", read_pmpcfg, write_pmpcfg};
  // No debug triggers: tselect names none, and type 0 in tdata1 says so.
  t[csr::kTselect] = {"tselect", zero};
  t[csr::kTdata1] = {"tdata1", zero};
  t[csr::kTdata2] = {"tdata2", zero};
  t[csr::kTdata3] = {"tdata3", zero};
  return t;
}();

// Whether the current mode may touch the register at all, beyond the privilege in its number.
bool enabled(const Hart& hart, unsigned number) {
  const HartState& s = hart.state();
  const bool below_machine = s.privilege != Privilege::kMachine;
  const bool user = s.privilege == Privilege::kUser;
  if (number >= csr::kCycle && number < csr::kCycle + 32) {
    const unsigned index = number - csr::kCycle;
    if (below_machine && !bit(s.mcounteren, index)) return false;
    return !user || bit(s.scounteren, index);
  }
  if (number == csr::kSatp) return s.privilege != Privilege::kSupervisor || (s.mstatus & mstatus::kTvm) == 0;
  if (number == csr::kStimecmp && below_machine) {
    return (s.menvcfg & envcfg::kStce) != 0 && bit(s.mcounteren, 1);
  }
  return true;
}

}  // namespace

std::expected<CsrResult, IllegalCsr> access_csr(Hart& hart, unsigned number, CsrOp op, u64 operand, bool writes) {
  const Csr& csr = kTable[number & 0xfff];
  const unsigned lowest = static_cast<unsigned>(bits(number, 9, 8));
  const bool read_only = bits(number, 11, 10) == 3;
  if (csr.read == nullptr || static_cast<unsigned>(hart.state().privilege) < lowest || (writes && read_only) ||
      (csr.present != nullptr && !csr.present(hart)) || !enabled(hart, number)) {
    return std::unexpected(IllegalCsr{});
  }
  const u64 old_value = csr.read(hart, number);
  if (!writes || csr.write == nullptr) return CsrResult{old_value, CsrEffect::kNone};
  u64 value = operand;
  if (op != CsrOp::kWrite) {
    u64 base = old_value;
    // Read-modify-write of mip works on the software-writable SEIP, not on the controller's line ("mip").
    if (number == csr::kMip || number == csr::kSip) base = hart.state().mip;
    value = op == CsrOp::kSet ? base | operand : base & ~operand;
  }
  // An interrupt from another hart's firmware call is latched in the input, until software clears SSIP here. Only
  // an operand that names the bit clears it: one that arrives meanwhile must not get lost.
  const u64 cleared = op == CsrOp::kClear ? operand : op == CsrOp::kWrite ? ~operand : 0;
  const bool reaches_ssip = number == csr::kMip || (number == csr::kSip && bit(hart.state().mideleg, 1));
  if (reaches_ssip && bit(cleared, 1)) hart.set_interrupt(Interrupt::kSupervisorSoftware, false);
  return CsrResult{old_value, csr.write(hart, number, value)};
}

const char* csr_name(unsigned number) { return kTable[number & 0xfff].name; }

}  // namespace doppel::riscv
