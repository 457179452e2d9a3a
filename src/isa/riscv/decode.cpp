#include "isa/riscv/decode.h"

#include <algorithm>
#include <array>
#include <cctype>

#include <fmt/format.h>

#include "base/bits.h"
#include "isa/riscv/csr.h"
#include "isa/riscv/ext/all.h"
#include "isa/riscv/hart_state.h"

namespace doppel::riscv {
namespace {

static_assert(isa::disjoint(isa::patterns_of(kRows)), "two instructions share an encoding");

constexpr auto kInfos = std::apply(
    [](const auto&... r) {
      const auto text_of = [](std::string_view syntax) {
        decltype(RowInfo::text) text{};
        std::ranges::copy(syntax, text.begin());
        if (text.back() != 0) throw "a syntax is too long";
        return text;
      };
      return std::array<RowInfo, kRowCount>{RowInfo{text_of(r.syntax), r.pattern, r.extension, r.traits}...};
    },
    kRows);

// 32-bit encodings by opcode and funct3, 16-bit ones by quadrant and funct3.
constexpr unsigned kWideBuckets = 32 * 8;
constexpr unsigned bucket_of(std::uint32_t raw) {
  if ((raw & 3) == 3) return static_cast<unsigned>(bits(raw, 6, 2) << 3 | bits(raw, 14, 12));
  return static_cast<unsigned>(kWideBuckets + (bits(raw, 1, 0) << 3 | bits(raw, 15, 13)));
}
constexpr unsigned kBuckets = kWideBuckets + 3 * 8;

// Calls `put(bucket)` for each bucket that the row belongs to: those that its fixed bits leave open.
constexpr void for_each_bucket(const isa::Pattern& pattern, auto put) {
  const unsigned shift = pattern.length_bytes() == 4 ? 12 : 13;
  const std::uint32_t fixed = pattern.mask() & (7u << shift);
  for (std::uint32_t funct3 = 0; funct3 < 8; ++funct3) {
    if (((funct3 << shift) & fixed) != (pattern.match() & fixed)) continue;
    put(bucket_of((pattern.match() & ~(7u << shift)) | funct3 << shift));
  }
}

// What decides between the rows of a bucket, one bucket after the other.
struct Candidate {
  std::uint32_t mask, match;
  RowIndex row;
};
constexpr auto kBegins = [] {
  std::array<std::uint16_t, kBuckets + 1> begins{};
  for (const RowInfo& info : kInfos) for_each_bucket(info.pattern, [&](unsigned bucket) { ++begins[bucket + 1]; });
  for (unsigned bucket = 0; bucket < kBuckets; ++bucket) begins[bucket + 1] += begins[bucket];
  return begins;
}();
constexpr auto kCandidates = [] {
  std::array<Candidate, kBegins.back()> candidates{};
  std::array<std::uint16_t, kBuckets + 1> next = kBegins;
  for (RowIndex row = 0; row < kRowCount; ++row) {
    const isa::Pattern& pattern = kInfos[row].pattern;
    for_each_bucket(pattern, [&](unsigned bucket) { candidates[next[bucket]++] = {pattern.mask(), pattern.match(), row}; });
  }
  return candidates;
}();

constexpr std::array<std::string_view, 32> kIntegerNames{
    "zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0",  "a1",  "a2", "a3", "a4", "a5",
    "a6",   "a7", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6"};
constexpr std::array<std::string_view, 32> kFloatNames{
    "ft0", "ft1", "ft2", "ft3", "ft4", "ft5", "ft6", "ft7", "fs0",  "fs1",  "fa0", "fa1", "fa2",  "fa3",  "fa4",
    "fa5", "fa6", "fa7", "fs2", "fs3", "fs4", "fs5", "fs6", "fs7",  "fs8",  "fs9", "fs10", "fs11", "ft8",  "ft9",
    "ft10", "ft11"};
constexpr std::array<std::string_view, 8> kRoundingNames{"rne", "rtz", "rdn", "rup", "rmm", "?", "?", "dyn"};

}  // namespace

std::span<const RowInfo> rows() { return kInfos; }

std::span<const std::string_view, 32> integer_register_names() { return kIntegerNames; }
std::span<const std::string_view, 32> float_register_names() { return kFloatNames; }

Decoded Decoder::decode(std::uint32_t raw) const {
  if ((raw & 3) != 3) raw &= 0xffff;
  const unsigned bucket = bucket_of(raw);
  for (unsigned i = kBegins[bucket]; i < kBegins[bucket + 1]; ++i) {
    const Candidate& candidate = kCandidates[i];
    if ((raw & candidate.mask) != candidate.match) continue;
    const RowInfo& info = kInfos[candidate.row];
    if (!info.pattern.matches(raw) || !isa_.has(info.extension)) continue;
    Decoded decoded{candidate.row, info.pattern.extract(raw)};
    if (info.pattern.has(isa::Field::kRd) && decoded.operands.rd == 0) decoded.operands.rd = kXDiscard;
    return decoded;
  }
  return {};
}

std::string disassemble(const Decoder& decoder, std::uint32_t raw, std::uint64_t pc) {
  const Decoded decoded = decoder.decode(raw);
  if (decoded.row == kIllegal) return "unimp";
  const RowInfo& info = kInfos[decoded.row];
  const isa::Operands& o = decoded.operands;
  const bool pc_relative = info.traits.ends_block && info.pattern.has(isa::Field::kImm) && info.mnemonic() != "jalr";
  std::string text;
  const std::string_view syntax = info.syntax();
  for (std::size_t p = 0; p < syntax.size();) {
    std::size_t end = p;
    while (end < syntax.size() && (std::isalnum(static_cast<unsigned char>(syntax[end])) != 0)) ++end;
    const std::string_view name = syntax.substr(p, end - p);
    const bool operand = p > info.mnemonic().size();
    if (end == p || !operand) {
      end = std::max(end, p + 1);
      text += syntax.substr(p, end - p);
    } else if (name == "rd") {
      text += kIntegerNames[o.rd & 31];
    } else if (name == "rs1") {
      text += kIntegerNames[o.rs1];
    } else if (name == "rs2") {
      text += kIntegerNames[o.rs2];
    } else if (name == "fd") {
      text += kFloatNames[o.rd];
    } else if (name == "fs1") {
      text += kFloatNames[o.rs1];
    } else if (name == "fs2") {
      text += kFloatNames[o.rs2];
    } else if (name == "fs3") {
      text += kFloatNames[o.rs3()];
    } else if (name == "zimm") {
      text += fmt::format("{}", o.rs1);
    } else if (name == "csr") {
      const unsigned number = static_cast<unsigned>(o.imm) & 0xfff;
      text += csr_name(number) != nullptr ? csr_name(number) : fmt::format("{:#x}", number);
    } else if (name == "imm") {
      const std::int64_t imm = o.imm;
      text += pc_relative ? fmt::format("{:#x}", pc + static_cast<std::uint64_t>(imm)) : fmt::format("{}", imm);
    } else {
      text += name;
    }
    p = end;
  }
  if (info.pattern.has(isa::Field::kRm) && o.rm != 7) text += fmt::format(", {}", kRoundingNames[o.rm]);
  return text;
}

}  // namespace doppel::riscv
