// Copies of guest pages that hold code, taken and compared while other harts and devices may store to them; and of the
// halfword behind them, into which the last instruction may reach.
// Single words are read without tearing and without ordering: a FENCE.I on the reading hart is what orders.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "memory/address.h"
#include "memory/shared_words.h"

namespace doppel {

class CodePage {
 public:
  // A page's lines of 64 bytes, as a set of bits, lowest first.
  using Lines = std::uint64_t;
  static constexpr Lines kAllLines = ~Lines{0};
  // The lines that [offset, end) touches, within the page.
  static constexpr Lines lines_of(std::size_t offset, std::size_t end) {
    const Lines from = kAllLines << offset / kLineBytes;
    return end > kPageSize - kLineBytes ? from : from & ~(kAllLines << (end + kLineBytes - 1) / kLineBytes);
  }

  // Copies of the page at `host`, which is page-aligned guest RAM, these lines.
  void copy(const std::byte* host, Lines lines = kAllLines) {
    for (; lines != 0; lines &= lines - 1) {
      const std::size_t first = static_cast<std::size_t>(std::countr_zero(lines)) * kLineWords;
      for (std::size_t i = first; i < first + kLineWords; ++i) words_[i] = load(host, i);
    }
  }
  bool same(const std::byte* host, Lines lines = kAllLines) const {
    for (; lines != 0; lines &= lines - 1) {
      const std::size_t first = static_cast<std::size_t>(std::countr_zero(lines)) * kLineWords;
      if (!same_line(&words_[first], reinterpret_cast<const std::uint64_t*>(host) + first)) return false;
    }
    return true;
  }
  // Likewise of the page behind, whose host bytes are at `host`.
  static constexpr std::size_t kBytesBehind = 2;
  void copy_behind(const std::byte* host) { words_[kWords] = load(host, 0) & 0xffff; }
  bool same_behind(const std::byte* host) const { return words_[kWords] == (load(host, 0) & 0xffff); }

  static std::uint16_t first_halfword(const std::byte* host) { return static_cast<std::uint16_t>(load(host, 0)); }

  // Words of std::uint64_t are readable as bytes. kPageSize of them, and kBytesBehind.
  const std::byte* bytes() const { return reinterpret_cast<const std::byte*>(words_.data()); }

 private:
  static constexpr std::size_t kWords = kPageSize / sizeof(std::uint64_t);
  static constexpr std::size_t kLineBytes = kPageSize / 64;
  static constexpr std::size_t kLineWords = kLineBytes / sizeof(std::uint64_t);

  // `host` is aligned for words.
  static std::uint64_t load(const std::byte* host, std::size_t index) {
    return __atomic_load_n(reinterpret_cast<const std::uint64_t*>(host) + index, __ATOMIC_RELAXED);
  }

  alignas(kLineBytes) std::array<std::uint64_t, kWords + 1> words_;
};

}  // namespace doppel
