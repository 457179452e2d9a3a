// IEEE 754 arithmetic on bit patterns, exact to the last flag, by the choices that RISC-V makes within
// the standard ("F" and "Zfhmin" chapters of the unprivileged manual): every NaN result is the canonical
// quiet NaN, tininess is detected after rounding, and conversions to integers saturate.
//
// A format is named by the type that holds its bits, so the functions are called without template
// arguments: add(a, b, ...) on two std::uint32_t adds two single-precision numbers. NaN boxing is the
// caller's business. Everything here is a pure function of its arguments: callable from any thread,
// whatever the host's MXCSR or fenv holds.
#pragma once

#include <concepts>
#include <cstdint>

namespace doppel::softfloat {

using Half = std::uint16_t;
using Single = std::uint32_t;
using Double = std::uint64_t;

template <class T>
concept FloatBits = std::same_as<T, Half> || std::same_as<T, Single> || std::same_as<T, Double>;

template <class T>
concept IntegerBits = std::same_as<T, std::int32_t> || std::same_as<T, std::uint32_t> ||
                      std::same_as<T, std::int64_t> || std::same_as<T, std::uint64_t>;

// The values are the encodings of the frm field and of static rounding modes. The caller resolves DYN
// and rejects the reserved ones.
enum class Rounding : std::uint8_t {
  kNearestEven = 0,  // RNE
  kTowardZero = 1,   // RTZ
  kDown = 2,         // RDN
  kUp = 3,           // RUP
  kNearestAway = 4,  // RMM, ties to the larger magnitude
};

// Accrued exceptions in the bit order of fflags. Functions set bits and never clear one.
using Flags = std::uint8_t;
inline constexpr Flags kInexact = 1;        // NX
inline constexpr Flags kUnderflow = 2;      // UF
inline constexpr Flags kOverflow = 4;       // OF
inline constexpr Flags kDivideByZero = 8;   // DZ
inline constexpr Flags kInvalid = 16;       // NV

template <FloatBits F>
inline constexpr F kCanonicalNan = sizeof(F) == 2   ? F{0x7e00}
                                   : sizeof(F) == 4 ? static_cast<F>(0x7fc00000)
                                                    : static_cast<F>(0x7ff8000000000000);

template <FloatBits F> F add(F a, F b, Rounding mode, Flags& flags);
template <FloatBits F> F sub(F a, F b, Rounding mode, Flags& flags);
template <FloatBits F> F mul(F a, F b, Rounding mode, Flags& flags);
template <FloatBits F> F div(F a, F b, Rounding mode, Flags& flags);
template <FloatBits F> F sqrt(F a, Rounding mode, Flags& flags);

// a * b + c, rounded once. FMSUB flips the sign of c first, FNMSUB that of a, FNMADD both. Infinity times
// zero is invalid even when c is a quiet NaN.
template <FloatBits F> F fma(F a, F b, F c, Rounding mode, Flags& flags);

// minimumNumber and maximumNumber of IEEE 754-2019: -0 < +0, and a NaN loses against a number.
template <FloatBits F> F min(F a, F b, Flags& flags);
template <FloatBits F> F max(F a, F b, Flags& flags);

// Comparisons with a NaN are false. eq is quiet (only a signaling NaN is invalid), lt and le are not.
template <FloatBits F> bool eq(F a, F b, Flags& flags);
template <FloatBits F> bool lt(F a, F b, Flags& flags);
template <FloatBits F> bool le(F a, F b, Flags& flags);

// The one-hot mask that FCLASS returns, bit 0 (negative infinity) to bit 9 (quiet NaN).
template <FloatBits F> std::uint16_t classify(F a);

// Between two formats: convert<Single>(half, ...).
template <FloatBits To, FloatBits From> To convert(From a, Rounding mode, Flags& flags);

// to_integer<std::int32_t>(single, ...): what does not fit is invalid, not inexact, and gives the nearest
// limit of the type; NaN gives the largest value. FCVT.WU sign-extends the result itself.
template <IntegerBits To, FloatBits From> To to_integer(From a, Rounding mode, Flags& flags);

// from_integer<Single>(std::int64_t{7}, ...).
template <FloatBits To, IntegerBits From> To from_integer(From value, Rounding mode, Flags& flags);

}  // namespace doppel::softfloat
