// A guest's virtual address space as one reservation of host addresses: guest address A lies at base + A.
#pragma once

#include <cstddef>
#include <cstdint>

namespace doppel {

struct FlatMemory {
  std::byte* base = nullptr;
  std::uint64_t size_bytes = 0;

  // True when [gva, gva + bytes) lies inside; exact also where gva + bytes would wrap.
  bool contains(std::uint64_t gva, std::uint64_t bytes) const { return gva <= size_bytes && bytes <= size_bytes - gva; }
  // The host location of a guest address inside.
  std::byte* host(std::uint64_t gva) const { return base + gva; }
};

}  // namespace doppel
