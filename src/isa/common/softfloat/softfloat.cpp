// How it works: a finite number is unpacked to a 64-bit significand whose top bit is set, every operation
// computes an exact result, or one whose lowest bit stands for all that was cut off ("sticky"), and
// round_and_pack, shared by all, rounds once. A zero is a zero significand with an exponent below all
// others, so sums and products need no case for it; only infinities and NaNs branch off early.
//
// Nothing here executes a host floating-point instruction, so the host's MXCSR is neither read nor
// written: translated code may keep guest flags there while it calls in.
#include "isa/common/softfloat/softfloat.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>
#include <utility>

namespace doppel::softfloat {
namespace {

using u64 = std::uint64_t;
__extension__ using u128 = unsigned __int128;

template <class Word>
constexpr int kWidth = 8 * static_cast<int>(sizeof(Word));

// The interchange formats of IEEE 754-2019, table 3.5.
template <FloatBits F>
struct Format {
  static constexpr int kFractionBits = sizeof(F) == 2 ? 10 : sizeof(F) == 4 ? 23 : 52;
  static constexpr int kExponentBits = kWidth<F> - 1 - kFractionBits;
  static constexpr int kMaxExponent = (1 << kExponentBits) - 1;  // biased; infinities and NaNs
  static constexpr int kBias = kMaxExponent / 2;
  static constexpr F kSign = static_cast<F>(u64{1} << (kWidth<F> - 1));
  static constexpr F kInfinity = static_cast<F>(u64{kMaxExponent} << kFractionBits);
  static constexpr F kHidden = static_cast<F>(u64{1} << kFractionBits);
  static constexpr F kQuiet = static_cast<F>(kHidden >> 1);
  // Bits of a 64-bit significand that do not fit the format.
  static constexpr int kDropped = 63 - kFractionBits;
  // Holds a product of two significands exactly, with bits to spare.
  using Wide = std::conditional_t<sizeof(F) == 8, u128, u64>;
};

template <FloatBits F> constexpr bool sign_of(F a) { return (a & Format<F>::kSign) != 0; }
template <FloatBits F> constexpr F magnitude(F a) { return static_cast<F>(a & ~Format<F>::kSign); }
template <FloatBits F> constexpr F negate(F a) { return static_cast<F>(a ^ Format<F>::kSign); }
template <FloatBits F> constexpr F signed_as(bool sign, F a) {
  return static_cast<F>(a | static_cast<F>(F{sign} << (kWidth<F> - 1)));
}
template <FloatBits F> constexpr bool is_nan(F a) { return magnitude(a) > Format<F>::kInfinity; }
template <FloatBits F> constexpr bool is_infinite(F a) { return magnitude(a) == Format<F>::kInfinity; }
template <FloatBits F> constexpr bool is_finite(F a) { return magnitude(a) < Format<F>::kInfinity; }
template <FloatBits F> constexpr bool is_zero(F a) { return magnitude(a) == 0; }
template <FloatBits F> constexpr bool is_signaling(F a) { return is_nan(a) && (a & Format<F>::kQuiet) == 0; }

template <FloatBits F>
F invalid(Flags& flags) {
  flags |= kInvalid;
  return kCanonicalNan<F>;
}

// The result of an operation that has a NaN among its operands.
template <FloatBits F, class... Operands>
F nan_result(Flags& flags, Operands... operands) {
  if ((is_signaling(operands) || ...)) flags |= kInvalid;
  return kCanonicalNan<F>;
}

// The value significand * 2^(exponent - (width - 1)); "normal" when the top bit is set or the value zero.
template <class Word>
struct Number {
  bool sign;
  int exponent;
  Word significand;
};

// Below the exponent of any product, yet far from overflow when two are added.
constexpr int kZeroExponent = -(1 << 20);

template <class Word>
constexpr int leading_zeros(Word value) {
  if constexpr (sizeof(Word) == 16) {
    const u64 high = static_cast<u64>(value >> 64);
    return high != 0 ? std::countl_zero(high) : 64 + std::countl_zero(static_cast<u64>(value));
  } else {
    return std::countl_zero(value);
  }
}

template <class Word>
constexpr Number<Word> normalize(bool sign, int exponent, Word significand) {
  if (significand == 0) return {sign, kZeroExponent, 0};
  const int shift = leading_zeros(significand);
  return {sign, exponent - shift, significand << shift};
}

template <FloatBits F>
constexpr Number<u64> unpack(F a) {
  using Fmt = Format<F>;
  const int biased = static_cast<int>(magnitude(a) >> Fmt::kFractionBits);
  const u64 fraction = static_cast<u64>(a & (Fmt::kHidden - 1)) << Fmt::kDropped;
  if (biased == 0) [[unlikely]] return normalize(sign_of(a), 1 - Fmt::kBias, fraction);
  return {sign_of(a), biased - Fmt::kBias, fraction | u64{1} << 63};
}

// value >> count, with the lowest bit set when any bit was lost.
template <class Word>
constexpr Word shift_right_sticky(Word value, int count) {
  if (count >= kWidth<Word>) return value != 0;
  const Word kept = value >> count;
  return kept | Word{(kept << count) != value};
}

// The upper half of a wide significand, sticky.
constexpr Number<u64> narrow(Number<u64> n) { return n; }
constexpr Number<u64> narrow(Number<u128> n) {
  const u64 sticky = static_cast<u64>(n.significand) != 0;
  return {n.sign, n.exponent, static_cast<u64>(n.significand >> 64) | sticky};
}

// What to add below the last kept bit so that the carry out of the dropped bits rounds. `half` is the
// value of the highest dropped bit, `odd` the last kept bit.
constexpr u64 rounding_addend(Rounding mode, bool sign, u64 half, bool odd) {
  switch (mode) {
    case Rounding::kNearestEven: return half - 1 + odd;
    case Rounding::kTowardZero: return 0;
    case Rounding::kDown: return sign ? 2 * half - 1 : 0;
    case Rounding::kUp: return sign ? 0 : 2 * half - 1;
    case Rounding::kNearestAway: return half;
  }
  return 0;
}

struct Rounded {
  u64 kept;
  bool inexact;
};

template <int Dropped, class Word>
constexpr Rounded round_off(Word value, bool sign, Rounding mode) {
  constexpr u64 kHalf = u64{1} << (Dropped - 1);
  const u64 rest = static_cast<u64>(value) & (2 * kHalf - 1);
  const u64 kept = static_cast<u64>(value >> Dropped);
  return {kept + ((rest + rounding_addend(mode, sign, kHalf, kept & 1)) >> Dropped), rest != 0};
}

template <FloatBits F>
F round_out_of_range(Number<u64> n, Rounding mode, Flags& flags) {
  using Fmt = Format<F>;
  if (n.significand == 0) return signed_as(n.sign, F{0});
  const int biased = n.exponent + Fmt::kBias;
  if (biased > 0) {
    flags |= kOverflow | kInexact;
    const bool to_infinity = rounding_addend(mode, n.sign, 2, false) != 0;
    return signed_as(n.sign, static_cast<F>(Fmt::kInfinity - !to_infinity));
  }
  // Tiny after rounding (IEEE 754-2019, 7.5 a): also with an unbounded exponent it stays below the
  // smallest normal number.
  const u64 unbounded = round_off<Fmt::kDropped>(n.significand, n.sign, mode).kept;
  const bool tiny = biased < 0 || unbounded < 2 * u64{Fmt::kHidden};
  const auto [kept, inexact] =
      round_off<Fmt::kDropped>(shift_right_sticky(n.significand, 1 - biased), n.sign, mode);
  if (inexact) flags |= tiny ? kInexact | kUnderflow : kInexact;
  return signed_as(n.sign, static_cast<F>(kept));
}

// Rounds a normal number to the format. A carry out of the fraction runs into the exponent field, as the
// encoding intends.
template <FloatBits F>
F round_and_pack(Number<u64> n, Rounding mode, Flags& flags) {
  using Fmt = Format<F>;
  const int biased = n.exponent + Fmt::kBias;
  if (biased <= 0 || biased >= Fmt::kMaxExponent) [[unlikely]] return round_out_of_range<F>(n, mode, flags);
  const auto [kept, inexact] = round_off<Fmt::kDropped>(n.significand, n.sign, mode);
  const F result = static_cast<F>((static_cast<u64>(biased - 1) << Fmt::kFractionBits) + kept);
  if (inexact) flags |= result == Fmt::kInfinity ? kInexact | kOverflow : kInexact;
  return signed_as(n.sign, result);
}

// Neither order nor signs of operands are predictable, so this has no branch for them.
template <class T>
constexpr void swap_if(bool condition, T& a, T& b) {
  const T difference = (a ^ b) & (T{0} - T{condition});
  a ^= difference;
  b ^= difference;
}

// Exact up to the sticky bit when each significand has at least two zeros at its end: only an exponent
// difference of two or more loses bits, and then cancellation shifts by one place at most.
template <class Word>
constexpr Number<Word> sum(Number<Word> a, Number<Word> b, Rounding mode) {
  const bool cancels = a.sign != b.sign;
  const bool swap =
      (a.exponent < b.exponent) | ((a.exponent == b.exponent) & (a.significand < b.significand));
  swap_if(swap, a.exponent, b.exponent);
  swap_if(swap, a.significand, b.significand);
  const Word larger = a.significand >> 1;  // room for the carry
  const Word smaller = shift_right_sticky(b.significand, a.exponent - b.exponent + 1);
  const Word negate = Word{0} - Word{cancels};
  const Word total = larger + ((smaller ^ negate) - negate);
  // IEEE 754-2019, 6.3: an exact zero sum of unlike signs is +0, but -0 when rounding down.
  const bool sign = cancels && total == 0 ? mode == Rounding::kDown : a.sign != (swap & cancels);
  return normalize(sign, a.exponent + 1, total);
}

template <FloatBits F>
constexpr auto product(Number<u64> a, Number<u64> b) {
  using Wide = typename Format<F>::Wide;
  constexpr int kUnused = 64 - kWidth<Wide> / 2;
  const Wide exact = Wide{a.significand >> kUnused} * Wide{b.significand >> kUnused};
  return normalize<Wide>(a.sign != b.sign, a.exponent + b.exponent + 1, exact);
}

template <class Word>
struct Root {
  Word root;
  Word remainder;
};

// Square root with remainder of a value that has one of its two top bits set: Zimmermann, "Karatsuba
// Square Root" (INRIA RR-3805), a recursion that halves the width.
template <class Word>
constexpr Root<Word> square_root(Word value) {
  if constexpr (sizeof(Word) == 1) {
    Word root = 8;
    while ((root + 1) * (root + 1) <= value) ++root;
    return {root, static_cast<Word>(value - root * root)};
  } else {
    using HalfWord = std::conditional_t<sizeof(Word) == 16, u64,
                     std::conditional_t<sizeof(Word) == 8, std::uint32_t,
                     std::conditional_t<sizeof(Word) == 4, std::uint16_t, std::uint8_t>>>;
    constexpr int kQuarter = kWidth<Word> / 4;
    constexpr Word kDigit = (Word{1} << kQuarter) - 1;
    const auto high = square_root(static_cast<HalfWord>(value >> (2 * kQuarter)));
    const Word dividend =
        static_cast<Word>((Word{high.remainder} << kQuarter) | (value >> kQuarter & kDigit));
    const Word divisor = static_cast<Word>(Word{high.root} << 1);
    const Word digit = static_cast<Word>(dividend / divisor);
    const Word square = static_cast<Word>(digit * digit);
    const Word root = static_cast<Word>((Word{high.root} << kQuarter) + digit);
    const Word remainder = static_cast<Word>(((dividend % divisor) << kQuarter) + (value & kDigit));
    if (remainder >= square) return {root, static_cast<Word>(remainder - square)};
    return {static_cast<Word>(root - 1), static_cast<Word>(remainder + 2 * root - 1 - square)};
  }
}

// Maps numbers, not NaNs, to integers in the same order, -0 before +0.
template <FloatBits F>
constexpr F order(F a) { return static_cast<F>(a ^ ((F{0} - F{sign_of(a)}) | Format<F>::kSign)); }

template <FloatBits F>
bool less(F a, F b) {
  const bool ordered = order(a) < order(b), both_zero = is_zero(static_cast<F>(a | b));
  return ordered & !both_zero;
}

}  // namespace

template <FloatBits F>
F add(F a, F b, Rounding mode, Flags& flags) {
  if (!is_finite(a) || !is_finite(b)) [[unlikely]] {
    if (is_nan(a) || is_nan(b)) return nan_result<F>(flags, a, b);
    if (is_infinite(a) && is_infinite(b) && a != b) return invalid<F>(flags);
    return is_infinite(a) ? a : b;
  }
  return round_and_pack<F>(sum(unpack(a), unpack(b), mode), mode, flags);
}

template <FloatBits F>
F sub(F a, F b, Rounding mode, Flags& flags) {
  return add(a, negate(b), mode, flags);
}

template <FloatBits F>
F mul(F a, F b, Rounding mode, Flags& flags) {
  if (!is_finite(a) || !is_finite(b)) [[unlikely]] {
    if (is_nan(a) || is_nan(b)) return nan_result<F>(flags, a, b);
    if (is_zero(a) || is_zero(b)) return invalid<F>(flags);
    return signed_as(sign_of(a) != sign_of(b), Format<F>::kInfinity);
  }
  return round_and_pack<F>(narrow(product<F>(unpack(a), unpack(b))), mode, flags);
}

template <FloatBits F>
F div(F a, F b, Rounding mode, Flags& flags) {
  using Wide = typename Format<F>::Wide;
  const bool sign = sign_of(a) != sign_of(b);
  if (!is_finite(a) || !is_finite(b)) [[unlikely]] {
    if (is_nan(a) || is_nan(b)) return nan_result<F>(flags, a, b);
    if (is_infinite(a) && is_infinite(b)) return invalid<F>(flags);
    return signed_as(sign, is_infinite(a) ? Format<F>::kInfinity : F{0});
  }
  if (is_zero(b)) [[unlikely]] {
    if (is_zero(a)) return invalid<F>(flags);
    flags |= kDivideByZero;
    return signed_as(sign, Format<F>::kInfinity);
  }
  // A dividend below half of Wide's range over a divisor that fills half of its bits: the quotient fits
  // that half with enough bits for every format, and the division is one host instruction.
  const Number<u64> x = unpack(a), y = unpack(b);
  constexpr int kHalfWidth = kWidth<Wide> / 2;
  const Wide dividend = Wide{x.significand} << (kWidth<Wide> - 64) >> 1;
  const Wide divisor = y.significand >> (64 - kHalfWidth);
  const Wide quotient = dividend / divisor;
  const u64 sticky = quotient * divisor != dividend;
  const int exponent = x.exponent - y.exponent + 64 - kHalfWidth;
  return round_and_pack<F>(normalize(sign, exponent, static_cast<u64>(quotient) | sticky), mode, flags);
}

template <FloatBits F>
F sqrt(F a, Rounding mode, Flags& flags) {
  using Wide = typename Format<F>::Wide;
  if (is_nan(a)) [[unlikely]] return nan_result<F>(flags, a);
  if (is_zero(a)) return a;
  if (sign_of(a)) [[unlikely]] return invalid<F>(flags);
  if (is_infinite(a)) [[unlikely]] return a;
  // Read with two bits before the point, the significand counts double, which is right for an odd exponent.
  const Number<u64> x = unpack(a);
  const bool even = x.exponent % 2 == 0;
  const auto [root, remainder] = square_root(Wide{x.significand} << (kWidth<Wide> - 64) >> even);
  const u64 significand = static_cast<u64>(root) << (64 - kWidth<Wide> / 2) | (remainder != 0);
  return round_and_pack<F>({false, x.exponent >> 1, significand}, mode, flags);
}

template <FloatBits F>
F fma(F a, F b, F c, Rounding mode, Flags& flags) {
  using Wide = typename Format<F>::Wide;
  const bool sign = sign_of(a) != sign_of(b);
  if (!is_finite(a) || !is_finite(b) || !is_finite(c)) [[unlikely]] {
    if ((is_infinite(a) && is_zero(b)) || (is_zero(a) && is_infinite(b))) return invalid<F>(flags);
    if (is_nan(a) || is_nan(b) || is_nan(c)) return nan_result<F>(flags, a, b, c);
    const bool product_is_infinite = is_infinite(a) || is_infinite(b);
    if (product_is_infinite && is_infinite(c) && sign != sign_of(c)) return invalid<F>(flags);
    return product_is_infinite ? signed_as(sign, Format<F>::kInfinity) : c;
  }
  const Number<u64> addend = unpack(c);
  const Wide significand = Wide{addend.significand} << (kWidth<Wide> - 64);
  const Number<Wide> exact =
      sum(product<F>(unpack(a), unpack(b)), {addend.sign, addend.exponent, significand}, mode);
  return round_and_pack<F>(narrow(exact), mode, flags);
}

template <FloatBits F>
F min(F a, F b, Flags& flags) {
  if (is_signaling(a) || is_signaling(b)) flags |= kInvalid;
  if (is_nan(a)) return is_nan(b) ? kCanonicalNan<F> : b;
  return is_nan(b) || order(a) <= order(b) ? a : b;
}

template <FloatBits F>
F max(F a, F b, Flags& flags) {
  if (is_signaling(a) || is_signaling(b)) flags |= kInvalid;
  if (is_nan(a)) return is_nan(b) ? kCanonicalNan<F> : b;
  return is_nan(b) || order(a) >= order(b) ? a : b;
}

template <FloatBits F>
bool eq(F a, F b, Flags& flags) {
  if (is_signaling(a) || is_signaling(b)) flags |= kInvalid;
  if (is_nan(a) || is_nan(b)) return false;
  return a == b || (is_zero(a) && is_zero(b));
}

template <FloatBits F>
bool lt(F a, F b, Flags& flags) {
  if (is_nan(a) || is_nan(b)) {
    flags |= kInvalid;
    return false;
  }
  return less(a, b);
}

template <FloatBits F>
bool le(F a, F b, Flags& flags) {
  if (is_nan(a) || is_nan(b)) {
    flags |= kInvalid;
    return false;
  }
  return !less(b, a);
}

template <FloatBits F>
std::uint16_t classify(F a) {
  if (is_nan(a)) return is_signaling(a) ? 1 << 8 : 1 << 9;
  // Positive classes mirror the negative ones: 0 and 7 infinite, 1 and 6 normal, 2 and 5 subnormal, 3
  // and 4 zero.
  const int rank = is_infinite(a) ? 0 : magnitude(a) >= Format<F>::kHidden ? 1 : is_zero(a) ? 3 : 2;
  return static_cast<std::uint16_t>(1 << (sign_of(a) ? rank : 7 - rank));
}

template <FloatBits To, FloatBits From>
To convert(From a, Rounding mode, Flags& flags) {
  if (is_nan(a)) [[unlikely]] return nan_result<To>(flags, a);
  if (is_infinite(a)) [[unlikely]] return signed_as(sign_of(a), Format<To>::kInfinity);
  return round_and_pack<To>(unpack(a), mode, flags);
}

template <IntegerBits To, FloatBits From>
To to_integer(From a, Rounding mode, Flags& flags) {
  using Limits = std::numeric_limits<To>;
  const Number<u64> x = unpack(a);
  if (is_finite(a) && x.exponent < 64) [[likely]] {
    // Two bits below the binary point, the second one sticky, decide every rounding.
    const auto [value, inexact] =
        round_off<2>(shift_right_sticky(u128{x.significand} << 2, 63 - x.exponent), x.sign, mode);
    const u64 limit = x.sign ? 0 - static_cast<u64>(Limits::min()) : static_cast<u64>(Limits::max());
    if (value <= limit) [[likely]] {
      if (inexact) flags |= kInexact;
      return static_cast<To>(x.sign ? 0 - value : value);
    }
  }
  flags |= kInvalid;
  return sign_of(a) && !is_nan(a) ? Limits::min() : Limits::max();
}

template <FloatBits To, IntegerBits From>
To from_integer(From value, Rounding mode, Flags& flags) {
  const bool sign = value < 0;
  const u64 bits = static_cast<u64>(value);  // sign-extends
  return round_and_pack<To>(normalize(sign, 63, sign ? 0 - bits : bits), mode, flags);
}

#define DOPPEL_INSTANTIATE_INTEGER(F, Integer)                         \
  template Integer to_integer<Integer, F>(F, Rounding, Flags&);        \
  template F from_integer<F, Integer>(Integer, Rounding, Flags&);

#define DOPPEL_INSTANTIATE(F)                                          \
  template F add(F, F, Rounding, Flags&);                              \
  template F sub(F, F, Rounding, Flags&);                              \
  template F mul(F, F, Rounding, Flags&);                              \
  template F div(F, F, Rounding, Flags&);                              \
  template F sqrt(F, Rounding, Flags&);                                \
  template F fma(F, F, F, Rounding, Flags&);                           \
  template F min(F, F, Flags&);                                        \
  template F max(F, F, Flags&);                                        \
  template bool eq(F, F, Flags&);                                      \
  template bool lt(F, F, Flags&);                                      \
  template bool le(F, F, Flags&);                                      \
  template std::uint16_t classify(F);                                  \
  template Half convert<Half, F>(F, Rounding, Flags&);                 \
  template Single convert<Single, F>(F, Rounding, Flags&);             \
  template Double convert<Double, F>(F, Rounding, Flags&);             \
  DOPPEL_INSTANTIATE_INTEGER(F, std::int32_t)                          \
  DOPPEL_INSTANTIATE_INTEGER(F, std::uint32_t)                         \
  DOPPEL_INSTANTIATE_INTEGER(F, std::int64_t)                          \
  DOPPEL_INSTANTIATE_INTEGER(F, std::uint64_t)

DOPPEL_INSTANTIATE(Half)
DOPPEL_INSTANTIATE(Single)
DOPPEL_INSTANTIATE(Double)

#undef DOPPEL_INSTANTIATE
#undef DOPPEL_INSTANTIATE_INTEGER

}  // namespace doppel::softfloat
