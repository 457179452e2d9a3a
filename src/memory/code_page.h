// Copies of guest pages that hold code, taken and compared while other harts and devices may store to them.
// Single words are read without tearing and without ordering: a FENCE.I on the reading hart is what orders.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "memory/address.h"

namespace doppel {

class CodePage {
 public:
  // Copies the page at `host`, which is page-aligned guest RAM.
  void copy(const std::byte* host) {
    for (std::size_t i = 0; i < kWords; ++i) words_[i] = load(host, i);
  }
  bool same(const std::byte* host) const {
    std::uint64_t difference = 0;
    for (std::size_t i = 0; i < kWords; ++i) difference |= words_[i] ^ load(host, i);
    return difference == 0;
  }
  // A page of std::uint64_t is readable as bytes.
  const std::byte* bytes() const { return reinterpret_cast<const std::byte*>(words_.data()); }

 private:
  static constexpr std::size_t kWords = kPageSize / sizeof(std::uint64_t);

  // `host` is aligned for words.
  static std::uint64_t load(const std::byte* host, std::size_t index) {
    return __atomic_load_n(reinterpret_cast<const std::uint64_t*>(host) + index, __ATOMIC_RELAXED);
  }

  std::array<std::uint64_t, kWords> words_;
};

}  // namespace doppel
