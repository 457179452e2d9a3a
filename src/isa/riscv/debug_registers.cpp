#include "isa/riscv/debug_registers.h"

#include <array>

#include <fmt/format.h>

#include "isa/riscv/csr.h"
#include "isa/riscv/ext/system.h"
#include "isa/riscv/mmu.h"

namespace doppel::riscv {
namespace {

using namespace debug_register;

constexpr std::array kIntegerNames{"zero", "ra", "sp", "gp", "tp",  "t0",  "t1", "t2", "fp", "s1", "a0",
                                   "a1",   "a2", "a3", "a4", "a5",  "a6",  "a7", "s2", "s3", "s4", "s5",
                                   "s6",   "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6"};
constexpr std::array kFloatNames{"ft0", "ft1", "ft2",  "ft3",  "ft4", "ft5", "ft6",  "ft7",  "fs0", "fs1", "fa0",
                                 "fa1", "fa2", "fa3",  "fa4",  "fa5", "fa6", "fa7",  "fs2",  "fs3", "fs4", "fs5",
                                 "fs6", "fs7", "fs8",  "fs9",  "fs10", "fs11", "ft8", "ft9", "ft10", "ft11"};

// The CSRs that a debugger shows. Those of floating point are apart.
constexpr std::array kPlainCsrs{
    csr::kCycle,    csr::kTime,     csr::kInstret,    csr::kSstatus,   csr::kSie,       csr::kStvec,
    csr::kScounteren, csr::kSenvcfg, csr::kSscratch,  csr::kSepc,      csr::kScause,    csr::kStval,
    csr::kSip,      csr::kStimecmp, csr::kSatp,       csr::kMstatus,   csr::kMisa,      csr::kMedeleg,
    csr::kMideleg,  csr::kMie,      csr::kMtvec,      csr::kMcounteren, csr::kMenvcfg,  csr::kMcountinhibit,
    csr::kMscratch, csr::kMepc,     csr::kMcause,     csr::kMtval,     csr::kMip,       csr::kMcycle,
    csr::kMinstret, csr::kMvendorid, csr::kMarchid,   csr::kMimpid,    csr::kMhartid};

unsigned size_of(unsigned number) {
  return number >= kFirstCsr + csr::kFflags && number <= kFirstCsr + csr::kFcsr ? 4 : 8;
}

// As an instruction in machine mode would access it.
std::optional<std::uint64_t> access(Hart& hart, unsigned number, std::uint64_t value, bool writes) {
  HartState& state = hart.state();
  const Privilege privilege = state.privilege;
  state.privilege = Privilege::kMachine;
  const auto result = access_csr(hart, number, CsrOp::kWrite, value, writes);
  state.privilege = privilege;
  if (!result) return std::nullopt;
  if (writes) {
    hart.mmu().update();
    hart.recheck_interrupts();
  }
  return result->old_value;
}

std::optional<std::uint64_t> value_of(Hart& hart, unsigned number) {
  const HartState& state = hart.state();
  if (number < 32) return state.x[number];
  if (number == kPc) return state.pc;
  if (number < kFirstCsr) return state.f[number - kFirstFloat];
  if (number == kFirstCsr + csr::kFflags) return state.fflags;
  if (number == kFirstCsr + csr::kFrm) return state.frm;
  if (number == kFirstCsr + csr::kFcsr) return std::uint64_t{state.frm} << 5 | state.fflags;
  if (number < kPrivilege) return access(hart, number - kFirstCsr, 0, false);
  if (number == kPrivilege) return static_cast<std::uint64_t>(state.privilege);
  return std::nullopt;
}

}  // namespace

std::string debug_description(bool privileged) {
  std::string text =
      "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n<target version=\"1.0\">\n"
      "<architecture>riscv:rv64</architecture>\n";
  if (!privileged) text += "<osabi>GNU/Linux</osabi>\n";
  const auto add = [&](std::string_view name, unsigned number, std::string_view type) {
    text += fmt::format("<reg name=\"{}\" bitsize=\"{}\" type=\"{}\" regnum=\"{}\"/>\n", name, 8 * size_of(number), type,
                        number);
  };
  text += "<feature name=\"org.gnu.gdb.riscv.cpu\">\n";
  for (unsigned i = 0; i < 32; ++i) {
    add(kIntegerNames[i], i, i == 1 ? "code_ptr" : i >= 2 && i <= 4 ? "data_ptr" : "int");
  }
  add("pc", kPc, "code_ptr");
  text +=
      "</feature>\n<feature name=\"org.gnu.gdb.riscv.fpu\">\n<union id=\"riscv_double\">"
      "<field name=\"float\" type=\"ieee_single\"/><field name=\"double\" type=\"ieee_double\"/></union>\n";
  for (unsigned i = 0; i < 32; ++i) add(kFloatNames[i], kFirstFloat + i, "riscv_double");
  add("fflags", kFirstCsr + csr::kFflags, "int");
  add("frm", kFirstCsr + csr::kFrm, "int");
  add("fcsr", kFirstCsr + csr::kFcsr, "int");
  text += "</feature>\n";
  if (privileged) {
    text += "<feature name=\"org.gnu.gdb.riscv.virtual\">\n";
    add("priv", kPrivilege, "int");
    text += "</feature>\n<feature name=\"org.gnu.gdb.riscv.csr\">\n";
    for (const unsigned number : kPlainCsrs) add(csr_name(number), kFirstCsr + number, "int");
    for (unsigned i = 0; i < kPmpEntries; i += 8) add(fmt::format("pmpcfg{}", i / 4), kFirstCsr + csr::kPmpcfg0 + i / 4, "int");
    for (unsigned i = 0; i < kPmpEntries; ++i) add(fmt::format("pmpaddr{}", i), kFirstCsr + csr::kPmpaddr0 + i, "int");
    text += "</feature>\n";
  }
  return text + "</target>\n";
}

std::optional<std::string> read_debug_register(Hart& hart, unsigned number) {
  const std::optional<std::uint64_t> value = value_of(hart, number);
  if (!value) return std::nullopt;
  std::string bytes;
  for (unsigned i = 0; i < size_of(number); ++i) bytes.push_back(static_cast<char>(*value >> (8 * i)));
  return bytes;
}

bool write_debug_register(Hart& hart, unsigned number, std::string_view bytes) {
  if (bytes.size() != size_of(number)) return false;
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) value |= std::uint64_t{static_cast<std::uint8_t>(bytes[i])} << (8 * i);
  HartState& state = hart.state();
  if (number < 32) {
    if (number != 0) state.x[number] = value;
  } else if (number == kPc) {
    state.pc = value & ~std::uint64_t{1};
  } else if (number < kFirstCsr) {
    state.f[number - kFirstFloat] = value;
  } else if (number == kFirstCsr + csr::kFflags) {
    state.fflags = value & 0x1f;
  } else if (number == kFirstCsr + csr::kFrm) {
    state.frm = value & 7;
  } else if (number == kFirstCsr + csr::kFcsr) {
    state.fflags = value & 0x1f;
    state.frm = value >> 5 & 7;
  } else if (number < kPrivilege) {
    return access(hart, number - kFirstCsr, value, true).has_value();
  } else if (number == kPrivilege && (value <= 1 || value == 3)) {
    state.privilege = static_cast<Privilege>(value);
    hart.mmu().update();
    hart.recheck_interrupts();
  } else {
    return false;
  }
  return true;
}

}  // namespace doppel::riscv
