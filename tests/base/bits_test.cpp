#include "base/bits.h"

#include <gtest/gtest.h>

namespace doppel {
namespace {

TEST(Bits, ExtractsFields) {
  EXPECT_EQ(bits(0xfedc'ba98'7654'3210, 63, 0), 0xfedc'ba98'7654'3210u);
  EXPECT_EQ(bits(0xfedc'ba98'7654'3210, 15, 8), 0x32u);
  EXPECT_EQ(bits(0x8000'0000'0000'0000, 63, 63), 1u);
}

TEST(Bits, ReplacesFieldsAndOnlyThem) {
  EXPECT_EQ(with_bits(0, 63, 0, ~0ull), ~0ull);
  EXPECT_EQ(with_bits(~0ull, 15, 8, 0x1ab), 0xffff'ffff'ffff'abffu);
  EXPECT_EQ(with_bits(0, 63, 63, 3), 0x8000'0000'0000'0000u);
}

TEST(Bits, SignExtends) {
  EXPECT_EQ(sign_extend(0x80, 8), 0xffff'ffff'ffff'ff80u);
  EXPECT_EQ(sign_extend(0x17f, 8), 0x7fu);
  EXPECT_EQ(sign_extend(1, 1), ~0ull);
  EXPECT_EQ(sign_extend(0x1234, 64), 0x1234u);
}

TEST(Bits, Aligns) {
  EXPECT_EQ(align_up(4097u, 4096), 8192u);
  EXPECT_EQ(align_up(4096u, 4096), 4096u);
  EXPECT_EQ(align_down(8191u, 4096), 4096u);
  EXPECT_TRUE(is_aligned(0, 8));
  EXPECT_FALSE(is_aligned(4, 8));
}

}  // namespace
}  // namespace doppel
