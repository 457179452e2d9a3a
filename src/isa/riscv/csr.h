// Control and status registers: numbers, fields, and the table-driven access that every engine uses.
#pragma once

#include <cstdint>
#include <expected>

#include "isa/riscv/hart_state.h"

namespace doppel::riscv {

class Hart;

namespace csr {
inline constexpr unsigned kFflags = 0x001, kFrm = 0x002, kFcsr = 0x003;
inline constexpr unsigned kCycle = 0xc00, kTime = 0xc01, kInstret = 0xc02, kHpmcounter3 = 0xc03;
inline constexpr unsigned kSstatus = 0x100, kSie = 0x104, kStvec = 0x105, kScounteren = 0x106, kSenvcfg = 0x10a,
                          kSscratch = 0x140, kSepc = 0x141, kScause = 0x142, kStval = 0x143, kSip = 0x144,
                          kStimecmp = 0x14d, kSatp = 0x180;
inline constexpr unsigned kMvendorid = 0xf11, kMarchid = 0xf12, kMimpid = 0xf13, kMhartid = 0xf14,
                          kMconfigptr = 0xf15;
inline constexpr unsigned kMstatus = 0x300, kMisa = 0x301, kMedeleg = 0x302, kMideleg = 0x303, kMie = 0x304,
                          kMtvec = 0x305, kMcounteren = 0x306, kMenvcfg = 0x30a, kMcountinhibit = 0x320,
                          kMhpmevent3 = 0x323, kMscratch = 0x340, kMepc = 0x341, kMcause = 0x342, kMtval = 0x343,
                          kMip = 0x344, kPmpcfg0 = 0x3a0, kPmpaddr0 = 0x3b0, kTselect = 0x7a0, kTdata1 = 0x7a1,
                          kTdata2 = 0x7a2, kTdata3 = 0x7a3, kMcycle = 0xb00, kMinstret = 0xb02,
                          kMhpmcounter3 = 0xb03;
}  // namespace csr

namespace mstatus {
inline constexpr std::uint64_t kSie = 1u << 1, kMie = 1u << 3, kSpie = 1u << 5, kMpie = 1u << 7, kSpp = 1u << 8,
                               kMpp = 3u << 11, kFs = 3u << 13, kMprv = 1u << 17, kSum = 1u << 18,
                               kMxr = 1u << 19, kTvm = 1u << 20, kTw = 1u << 21, kTsr = 1u << 22,
                               kSd = std::uint64_t{1} << 63;
inline constexpr unsigned kMppShift = 11, kSppShift = 8;
inline constexpr std::uint64_t kFsDirty = kFs;
// UXL and SXL, read-only: both 64 bits.
inline constexpr std::uint64_t kXl64 = std::uint64_t{2} << 32 | std::uint64_t{2} << 34;
}  // namespace mstatus

namespace envcfg {
inline constexpr std::uint64_t kFiom = 1, kCbie = 3u << 4, kCbcfe = 1u << 6, kCbze = 1u << 7,
                               kAdue = std::uint64_t{1} << 61, kPbmte = std::uint64_t{1} << 62,
                               kStce = std::uint64_t{1} << 63;
}  // namespace envcfg

enum class CsrOp : std::uint8_t;

// What the instruction after a CSR access must know.
enum class CsrEffect : std::uint8_t {
  kNone,
  kTranslation,  // satp, privilege or mstatus bits of translation: Mmu::update()
  kInterrupts,   // enables or pending bits changed: look for an interrupt
  kBoth,
};

struct CsrResult {
  std::uint64_t old_value;
  CsrEffect effect;
};

struct IllegalCsr {};  // the instruction is illegal

// One CSR instruction: reads the old value, and writes when `writes`. Privilege, existence, counter and
// virtual-memory controls are checked (privileged manual, chapter "CSRs").
std::expected<CsrResult, IllegalCsr> access_csr(Hart& hart, unsigned number, CsrOp op, std::uint64_t operand,
                                                bool writes);

// The name for disassembly, or nullptr.
const char* csr_name(unsigned number);

}  // namespace doppel::riscv
