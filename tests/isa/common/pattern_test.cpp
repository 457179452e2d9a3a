// The notation of encodings: parsing (which happens while compiling), matching, extraction, encoding, overlap.
#include "isa/common/pattern.h"

#include <gtest/gtest.h>

#include <random>

namespace doppel::isa {
namespace {

constexpr Pattern kAdd("0000000 rs2 rs1 000 rd 0110011");
constexpr Pattern kBranch("imm[12|10:5] rs2 rs1 000 imm[4:1|11] 1100011");
constexpr Pattern kShift("010000 shamt rs1 101 rd 0010011");
constexpr Pattern kFused("fs3 01 fs2 fs1 rm fd 1000011");
constexpr Pattern kReserve("00010 -- 00000 rs1 010 rd 0101111");
constexpr Pattern kShort("000 uimm[5:4|9:6|2|3]!=0 rd' 00");
constexpr Pattern kLui("011 imm[17]!=0 rd!=0,2 imm[16:12] 01");

TEST(Pattern, KnowsItsFixedBitsAndFields) {
  EXPECT_EQ(kAdd.mask(), 0xfe00707fu);
  EXPECT_EQ(kAdd.match(), 0x00000033u);
  EXPECT_EQ(kAdd.length_bytes(), 4u);
  EXPECT_TRUE(kAdd.has(Field::kRs2));
  EXPECT_FALSE(kAdd.has(Field::kImm));
  EXPECT_EQ(kReserve.mask(), 0xf9f0707fu);  // not the ignored bits
  EXPECT_EQ(kShort.length_bytes(), 2u);
  EXPECT_EQ(kShort.mask(), 0xe003u);
  EXPECT_TRUE(kFused.has(Field::kRm) && kFused.has(Field::kRs3) && kFused.has(Field::kFd));
}

TEST(Pattern, ExtractsFieldsSpreadOverTheEncoding) {
  EXPECT_EQ(kAdd.extract(0x00c5'8533), (Operands{.rd = 10, .rs1 = 11, .rs2 = 12}));
  EXPECT_EQ(kBranch.extract(0xfe00'0ee3).imm, -4);
  EXPECT_EQ(kBranch.extract(0x8000'0063).imm, -4096);
  EXPECT_EQ(kBranch.extract(0x0000'00e3).imm, 2048);
  EXPECT_EQ(kShift.extract(0x43f5'd513).imm, 63);  // unsigned
  EXPECT_EQ(kFused.extract(0x6ac5'f543), (Operands{.imm = 13, .rd = 10, .rs1 = 11, .rs2 = 12, .rm = 7}));
  // addi4spn: the smallest steps of the immediate, and a register of the upper eight.
  EXPECT_EQ(kShort.extract(0x0040), (Operands{.imm = 4, .rd = 8}));
  EXPECT_EQ(kShort.extract(0x003c), (Operands{.imm = 8, .rd = 15}));
  EXPECT_EQ(kShort.extract(0x1000).imm, 32);
}

TEST(Pattern, RefusesExcludedValues) {
  EXPECT_FALSE(kShort.matches(0x0000));
  EXPECT_TRUE(kShort.matches(0x0020));
  EXPECT_FALSE(kLui.matches(0x6081)) << "the whole immediate is zero";
  EXPECT_TRUE(kLui.matches(0x6085));
  EXPECT_TRUE(kLui.matches(0x7081));
  EXPECT_FALSE(kLui.matches(0x6005)) << "rd = 0";
  EXPECT_FALSE(kLui.matches(0x6105)) << "rd = 2";
}

TEST(Pattern, OverlapMindsFixedBitsAndExclusions) {
  static constexpr Pattern kAny("imm[11:0] rs1 000 rd 0110011");
  static constexpr Pattern kSpAdjust("011 imm[9]!=0 00010 imm[4|6|8:7|5] 01");
  static constexpr Pattern kLuiButZero("011 imm[17]!=0 rd!=0 imm[16:12] 01");
  static constexpr Pattern kJump("100 0 rs1!=0 00000 10"), kMove("100 0 rd rs2!=0 10"), kLoose("100 0 rd rs2 10");
  EXPECT_TRUE(overlap(kAdd, kAny));
  EXPECT_FALSE(overlap(kAdd, kShift));
  EXPECT_FALSE(overlap(kLui, kSpAdjust));
  EXPECT_TRUE(overlap(kLuiButZero, kSpAdjust));
  EXPECT_FALSE(overlap(kJump, kMove));
  EXPECT_TRUE(overlap(kJump, kLoose));
  EXPECT_FALSE(overlap(kAdd, kShort)) << "of different lengths";
}

TEST(Pattern, EncodesWhatItExtracts) {
  std::mt19937 random(1);
  for (const Pattern& pattern : {kAdd, kBranch, kShift, kFused, kShort, kLui}) {
    const std::uint32_t all = pattern.length_bytes() == 4 ? ~0u : 0xffffu;
    for (int i = 0; i < 1000; ++i) {
      const std::uint32_t raw = ((static_cast<std::uint32_t>(random()) & ~pattern.mask()) | pattern.match()) & all;
      EXPECT_EQ(pattern.encode(pattern.extract(raw)), raw);
    }
  }
}

}  // namespace
}  // namespace doppel::isa
