// Bit fields, sign extension, alignment: constant expressions on plain integers.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace doppel {

// Bits high..low of value, shifted down to bit 0. Needs 63 >= high >= low.
constexpr std::uint64_t bits(std::uint64_t value, unsigned high, unsigned low) {
  return (value >> low) & (~std::uint64_t{0} >> (63 - (high - low)));
}

constexpr bool bit(std::uint64_t value, unsigned position) { return (value >> position) & 1; }

// `value` with bits high..low replaced by the low bits of `field`.
constexpr std::uint64_t with_bits(std::uint64_t value, unsigned high, unsigned low, std::uint64_t field) {
  const std::uint64_t mask = (~std::uint64_t{0} >> (63 - (high - low))) << low;
  return (value & ~mask) | ((field << low) & mask);
}

// Sign-extends the low `width` bits (1 to 64) of value.
constexpr std::uint64_t sign_extend(std::uint64_t value, unsigned width) {
  const unsigned shift = 64 - width;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(value << shift) >> shift);
}

// `alignment` is a power of two.
template <std::unsigned_integral T>
constexpr T align_down(T value, std::type_identity_t<T> alignment) {
  return value & ~(alignment - 1);
}
template <std::unsigned_integral T>
constexpr T align_up(T value, std::type_identity_t<T> alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}
constexpr bool is_aligned(std::uint64_t value, std::uint64_t alignment) {
  return (value & (alignment - 1)) == 0;
}

}  // namespace doppel
