// Floating point of translated code, value by value: each instruction over the cross product of edge values, in
// each rounding mode, against the reference interpreter, which computes by the soft floats.
#include <gtest/gtest.h>

#include "isa/riscv/assembler.h"
#include "machine.h"

namespace doppel::engine_test {
namespace {

// One execution: operands, result, and the flags that it raised.
struct Record {
  std::array<u64, 3> operands;
  u64 result;
  u64 flags;
};
constexpr u64 kRecords = kRam + 0x1000;
constexpr std::size_t kMostRecords = (kRamBytes - 0x1000) / sizeof(Record);

constexpr u64 boxed(std::uint32_t single) { return 0xffff'ffff'0000'0000 | single; }

// Zeros, subnormals and their neighbours, numbers around one and around the limits of integers and of the
// narrower format, infinities and NaNs; of either sign where that matters.
constexpr std::array<std::uint64_t, 22> kDoubles{
    0x0000'0000'0000'0000, 0x8000'0000'0000'0000, 0x0000'0000'0000'0001, 0x800f'ffff'ffff'ffff,
    0x0010'0000'0000'0000, 0x3ff0'0000'0000'0000, 0xbff0'0000'0000'0000, 0x3ff0'0000'0000'0001,
    0x3fdf'ffff'ffff'ffff, 0x4008'0000'0000'0000, 0x7fef'ffff'ffff'ffff, 0xffef'ffff'ffff'ffff,
    0x7ff0'0000'0000'0000, 0xfff0'0000'0000'0000, 0x7ff8'0000'0000'0000, 0xfff8'0000'0000'1234,
    0x7ff0'0000'0000'0001, 0x41df'ffff'ffe0'0000, 0xc1e0'0000'0020'0000, 0x43e0'0000'0000'0000,
    0x380f'ffff'ffff'ffff, 0x2010'0000'0000'0000};
constexpr std::array<std::uint64_t, 22> kSingles{
    boxed(0x0000'0000), boxed(0x8000'0000), boxed(0x0000'0001), boxed(0x807f'ffff), boxed(0x0080'0000),
    boxed(0x3f80'0000), boxed(0xbf80'0000), boxed(0x3f80'0001), boxed(0x3eff'ffff), boxed(0x4040'0000),
    boxed(0x7f7f'ffff), boxed(0xff7f'ffff), boxed(0x7f80'0000), boxed(0xff80'0000), boxed(0x7fc0'0000),
    boxed(0xffc0'1234), boxed(0x7f80'0001), boxed(0x4eff'ffff), boxed(0xcf00'0001), boxed(0x5f00'0000),
    boxed(0x2000'0000), 0x0000'0000'3f80'0000};  // the last is not boxed
// More of them for what takes one operand: halfway cases of conversions, and halves.
constexpr std::array<std::uint64_t, 26> kMoreDoubles{
    0x3fe0'0000'0000'0000, 0xbfe0'0000'0000'0000, 0x3ff8'0000'0000'0000, 0x4004'0000'0000'0000,
    0xc004'0000'0000'0000, 0x41e0'0000'0000'0000, 0xc1e0'0000'0000'0000, 0xc1e0'0000'0010'0000,
    0x41ef'ffff'ffe0'0000, 0x41ef'ffff'fff0'0000, 0x41f0'0000'0000'0000, 0x43df'ffff'ffff'ffff,
    0xc3e0'0000'0000'0000, 0xc3e0'0000'0000'0001, 0x43ef'ffff'ffff'ffff, 0x43f0'0000'0000'0000,
    0xbfef'ffff'ffff'ffff, 0x36a0'0000'0000'0000, 0x3690'0000'0000'0000, 0x3690'0000'0000'0001,
    0x380f'ffff'f000'0000, 0x47ef'ffff'e000'0000, 0x47ef'ffff'f000'0000, 0x3ff0'0000'1000'0000,
    0x3ff0'0000'3000'0000, 0x7ff7'ffff'ffff'ffff};
constexpr std::array<std::uint64_t, 20> kMoreSingles{
    boxed(0x3f00'0000), boxed(0xbf00'0000), boxed(0x3fc0'0000), boxed(0x4020'0000), boxed(0xc020'0000),
    boxed(0x4f00'0000), boxed(0xcf00'0000), boxed(0x4f7f'ffff), boxed(0x4f80'0000), boxed(0x5eff'ffff),
    boxed(0xdf00'0000), boxed(0xdf00'0001), boxed(0x5f7f'ffff), boxed(0x5f80'0000), boxed(0xbf7f'ffff),
    boxed(0x3300'0000), boxed(0x3880'0000), boxed(0x477f'efff), boxed(0x477f'f000), 0x7ff8'0000'0000'0000};
constexpr std::array<std::uint64_t, 16> kIntegers{
    0, 1, ~u64{0}, 0x7fff'ffff, 0x8000'0000, 0xffff'ffff, 0xffff'ffff'8000'0000, 0x0100'0001, 0x0100'0003,
    0x7fff'ffff'ffff'ffff, 0x8000'0000'0000'0000, 0x0020'0000'0000'0001, 0x0020'0000'0000'0003,
    0xffff'ffff'ffff'fc00, 0x8000'0000'0000'0401, 0x7fff'ffbf'ffff'ffff};

std::vector<u64> values_of(const riscv::RowInfo& row) {
  std::vector<u64> values;
  const auto add = [&](const auto& more) { values.insert(values.end(), more.begin(), more.end()); };
  if (row.pattern.has(isa::Field::kRs1)) {
    add(kIntegers);
    return values;
  }
  // The mnemonic ends in the operands' format, and a comparison or conversion from it.
  const std::string_view mnemonic = row.mnemonic();
  const bool unary = !row.pattern.has(isa::Field::kFs2);
  if (mnemonic.ends_with('d')) {
    add(kDoubles);
    if (unary) add(kMoreDoubles);
  } else {
    add(kSingles);
    if (unary) add(kMoreSingles);
  }
  return values;
}

std::vector<Record> records_for(const riscv::RowInfo& row) {
  const std::vector<u64> values = values_of(row);
  const bool binary = row.pattern.has(isa::Field::kFs2);
  const bool ternary = row.syntax().ends_with("fs3");
  std::vector<Record> records;
  for (const u64 a : values) {
    for (const u64 b : binary ? values : std::vector<u64>{0}) {
      for (const u64 c : ternary ? values : std::vector<u64>{0}) records.push_back({{a, b, c}, 0, 0});
    }
  }
  return records;
}

// A loop over the records around one instruction.
Contents program_for(const riscv::RowInfo& row, unsigned rm, unsigned frm, const std::vector<Record>& records) {
  const bool to_integer = row.pattern.has(isa::Field::kRd);
  const bool from_integer = row.pattern.has(isa::Field::kRs1);
  const std::uint32_t raw = row.pattern.encode({.imm = 2,
                                                .rd = static_cast<std::uint8_t>(to_integer ? 5 : 3),
                                                .rs1 = static_cast<std::uint8_t>(from_integer ? 6 : 0),
                                                .rs2 = 1,
                                                .rm = static_cast<std::uint8_t>(rm)});
  Contents contents;
  contents.load(kRam, riscv::test::assemble(fmt::format(R"(
      loop: fld ft0, 0(a0); fld ft1, 8(a0); fld ft2, 16(a0); ld t1, 0(a0)
            .word {:#x}
            {}
            csrrw t2, fflags, zero; sd t2, 32(a0)
            addi a0, a0, {}; bne a0, a1, loop
      end:  jal zero, end)",
                                                        raw, to_integer ? "sd t0, 24(a0)" : "fsd ft3, 24(a0)",
                                                        sizeof(Record)),
                                            kRam));
  std::memcpy(&contents.ram[kRecords - kRam], records.data(), records.size() * sizeof(Record));
  contents.state = open_state(kRam);
  contents.state.x[10] = kRecords;
  contents.state.x[11] = kRecords + records.size() * sizeof(Record);
  contents.state.frm = static_cast<std::uint8_t>(frm);
  return contents;
}

std::vector<Record> run(EngineKind engine, const Contents& contents, std::size_t count) {
  Machine machine(engine, contents);
  while (machine.state().x[10] != machine.state().x[11]) machine.run(10'000);
  std::vector<Record> records(count);
  std::memcpy(records.data(), machine.ram() + (kRecords - kRam), count * sizeof(Record));
  return records;
}

void compare(const riscv::RowInfo& row, unsigned rm, unsigned frm) {
  const std::vector<Record> records = records_for(row);
  ASSERT_LE(records.size(), kMostRecords);
  const Contents contents = program_for(row, rm, frm, records);
  const std::vector<Record> expected = run(EngineKind::kInterpret, contents, records.size());
  const std::vector<Record> actual = run(EngineKind::kTranslate, contents, records.size());
  unsigned wrong = 0;
  std::string first;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const Record& e = expected[i];
    const Record& a = actual[i];
    if (e.result == a.result && e.flags == a.flags) continue;
    if (wrong++ != 0) continue;
    first = fmt::format("{} rm {} frm {} of {:#x}, {:#x}, {:#x}: {:#x} flags {:#x} instead of {:#x} flags {:#x}",
                        row.mnemonic(), rm, frm, e.operands[0], e.operands[1], e.operands[2], a.result, a.flags,
                        e.result, e.flags);
  }
  EXPECT_EQ(wrong, 0u) << first;
}

TEST(Floating, EdgeValues) {
  constexpr unsigned kDynamic = 7;
  for (const riscv::RowInfo& row : riscv::rows()) {
    if (!row.traits.floating_point || row.syntax().ends_with(")")) continue;
    if (!row.pattern.has(isa::Field::kRm)) {
      compare(row, 0, 0);
      continue;
    }
    for (unsigned mode = 0; mode < 5; ++mode) {
      compare(row, kDynamic, mode);
      compare(row, mode, (mode + 2) % 5);
    }
  }
}

}  // namespace
}  // namespace doppel::engine_test
