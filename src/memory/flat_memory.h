// A guest's virtual address space as one range of host addresses: guest address A lies at base + A. With no base, the
// two are the same.
#pragma once

#include <cstddef>
#include <cstdint>

namespace doppel {

struct FlatMemory {
  std::byte* base = nullptr;
  std::uint64_t size_bytes = 0;

  // True when [gva, gva + bytes) lies inside; exact also where gva + bytes would wrap.
  bool contains(std::uint64_t gva, std::uint64_t bytes) const { return gva <= size_bytes && bytes <= size_bytes - gva; }
  // The host location of a guest address inside. Computed with integers: the base may be null.
  std::byte* host(std::uint64_t gva) const {
    return reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(base) + gva);
  }
};

}  // namespace doppel
