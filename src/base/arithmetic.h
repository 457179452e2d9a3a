// Operations on 64-bit words with every case defined, as guests define them and C++ does not: the meaning of
// instructions and of the IR's integer operations.
#pragma once

#include <bit>
#include <cstdint>

#include "base/bits.h"

namespace doppel::arithmetic {

using u64 = std::uint64_t;
using i64 = std::int64_t;
using u32 = std::uint32_t;
using i32 = std::int32_t;
__extension__ using u128 = unsigned __int128;
__extension__ using i128 = __int128;

// The low 8, 16 or 32 bits, extended to a word.
constexpr u64 sext8(u64 a) { return sign_extend(a, 8); }
constexpr u64 sext16(u64 a) { return sign_extend(a, 16); }
constexpr u64 sext32(u64 a) { return sign_extend(a, 32); }
constexpr u64 zext8(u64 a) { return a & 0xff; }
constexpr u64 zext16(u64 a) { return a & 0xffff; }
constexpr u64 zext32(u64 a) { return a & 0xffff'ffff; }

// Shifts: the amount is taken modulo the width, as the ISA does. The 32-bit forms work on the low half and
// sign-extend their result.
constexpr u64 shl(u64 a, u64 n) { return a << (n & 63); }
constexpr u64 shr(u64 a, u64 n) { return a >> (n & 63); }
constexpr u64 sar(u64 a, u64 n) { return static_cast<u64>(static_cast<i64>(a) >> (n & 63)); }
constexpr u64 shl32(u64 a, u64 n) { return sext32(static_cast<u32>(a) << (n & 31)); }
constexpr u64 shr32(u64 a, u64 n) { return sext32(static_cast<u32>(a) >> (n & 31)); }
constexpr u64 sar32(u64 a, u64 n) { return static_cast<u64>(i64{static_cast<i32>(a) >> (n & 31)}); }
constexpr u64 rol(u64 a, u64 n) { return std::rotl(a, static_cast<int>(n & 63)); }
constexpr u64 ror(u64 a, u64 n) { return std::rotr(a, static_cast<int>(n & 63)); }
constexpr u64 rol32(u64 a, u64 n) { return sext32(std::rotl(static_cast<u32>(a), static_cast<int>(n & 31))); }
constexpr u64 ror32(u64 a, u64 n) { return sext32(std::rotr(static_cast<u32>(a), static_cast<int>(n & 31))); }

// Comparisons give 1 or 0.
constexpr u64 eq(u64 a, u64 b) { return a == b; }
constexpr u64 ne(u64 a, u64 b) { return a != b; }
constexpr u64 lt(u64 a, u64 b) { return static_cast<i64>(a) < static_cast<i64>(b); }
constexpr u64 ltu(u64 a, u64 b) { return a < b; }
constexpr u64 ge(u64 a, u64 b) { return static_cast<i64>(a) >= static_cast<i64>(b); }
constexpr u64 geu(u64 a, u64 b) { return a >= b; }
constexpr u64 select(u64 condition, u64 a, u64 b) { return condition != 0 ? a : b; }

// High halves of 128-bit products.
constexpr u64 mulh(u64 a, u64 b) { return static_cast<u64>((i128{static_cast<i64>(a)} * static_cast<i64>(b)) >> 64); }
constexpr u64 mulhu(u64 a, u64 b) { return static_cast<u64>((u128{a} * b) >> 64); }
constexpr u64 mulhsu(u64 a, u64 b) {
  return static_cast<u64>((i128{static_cast<i64>(a)} * static_cast<i128>(u128{b})) >> 64);
}

// Division by RISC-V's rules (unprivileged manual, table "Semantics for division by zero and overflow"):
// nothing traps.
constexpr u64 div(u64 a, u64 b) {
  if (b == 0) return ~u64{0};
  if (b == ~u64{0}) return -a;
  return static_cast<u64>(static_cast<i64>(a) / static_cast<i64>(b));
}
constexpr u64 divu(u64 a, u64 b) { return b == 0 ? ~u64{0} : a / b; }
constexpr u64 rem(u64 a, u64 b) {
  if (b == 0) return a;
  if (b == ~u64{0}) return 0;
  return static_cast<u64>(static_cast<i64>(a) % static_cast<i64>(b));
}
constexpr u64 remu(u64 a, u64 b) { return b == 0 ? a : a % b; }
constexpr u64 div32(u64 a, u64 b) { return sext32(div(sext32(a), sext32(b))); }
constexpr u64 divu32(u64 a, u64 b) { return sext32(divu(zext32(a), zext32(b))); }
constexpr u64 rem32(u64 a, u64 b) { return sext32(rem(sext32(a), sext32(b))); }
constexpr u64 remu32(u64 a, u64 b) { return sext32(remu(zext32(a), zext32(b))); }

// Bit counting: of zero, clz and ctz give the width.
constexpr u64 clz(u64 a) { return static_cast<u64>(std::countl_zero(a)); }
constexpr u64 ctz(u64 a) { return static_cast<u64>(std::countr_zero(a)); }
constexpr u64 popcount(u64 a) { return static_cast<u64>(std::popcount(a)); }
constexpr u64 clz32(u64 a) { return static_cast<u64>(std::countl_zero(static_cast<u32>(a))); }
constexpr u64 ctz32(u64 a) { return static_cast<u64>(std::countr_zero(static_cast<u32>(a))); }

constexpr u64 byte_reverse(u64 a) { return __builtin_bswap64(a); }
// Each byte becomes 0xff if any of its bits is set, else 0.
constexpr u64 or_combine_bytes(u64 a) {
  u64 any = a | (a >> 4 & 0x0f0f0f0f0f0f0f0f);
  any |= any >> 2 & 0x3f3f3f3f3f3f3f3f;
  any |= any >> 1 & 0x7f7f7f7f7f7f7f7f;
  return (any & 0x0101010101010101) * 0xff;
}

constexpr u64 min(u64 a, u64 b) { return static_cast<i64>(a) < static_cast<i64>(b) ? a : b; }
constexpr u64 max(u64 a, u64 b) { return static_cast<i64>(a) < static_cast<i64>(b) ? b : a; }
constexpr u64 minu(u64 a, u64 b) { return a < b ? a : b; }
constexpr u64 maxu(u64 a, u64 b) { return a < b ? b : a; }

}  // namespace doppel::arithmetic
