// Addresses that cannot be confused: each address space is a type of its own.
#pragma once

#include <compare>
#include <cstdint>

namespace doppel {

template <class Space>
struct Address {
  std::uint64_t value = 0;

  friend constexpr auto operator<=>(Address, Address) = default;
  friend constexpr Address operator+(Address a, std::uint64_t bytes) { return {a.value + bytes}; }
  friend constexpr Address operator-(Address a, std::uint64_t bytes) { return {a.value - bytes}; }
  friend constexpr std::uint64_t operator-(Address a, Address b) { return a.value - b.value; }
};

using GuestPhysical = Address<struct GuestPhysicalSpace>;  // gpa
using GuestVirtual = Address<struct GuestVirtualSpace>;    // gva

inline constexpr std::uint64_t kPageSize = 4096;
inline constexpr unsigned kPageShift = 12;

struct GuestPhysicalRange {
  GuestPhysical start;
  std::uint64_t size_bytes = 0;

  constexpr GuestPhysical end() const { return start + size_bytes; }
  // True when [gpa, gpa + bytes) lies inside; exact also where gpa + bytes would wrap.
  constexpr bool contains(GuestPhysical gpa, std::uint64_t bytes = 1) const {
    return gpa >= start && gpa - start < size_bytes && bytes <= size_bytes - (gpa - start);
  }
  constexpr bool overlaps(const GuestPhysicalRange& other) const {
    return start < other.end() && other.start < end();
  }
};

}  // namespace doppel
