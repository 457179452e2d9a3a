// Compares a copy with guest memory that other harts and devices may be storing to. Whether it is the same is a hint about a
// moment gone by: what orders the stores of others, such as a FENCE.I, is the caller's.
#pragma once

#include <cstddef>
#include <cstdint>

namespace doppel {

// Of 64 bytes, aligned to them. Each word is read without tearing, as x86-64 hosts read the halves of aligned vectors.
[[gnu::no_sanitize_thread]] inline bool same_line(const std::uint64_t* copy, const std::uint64_t* shared) {
  using Pair [[gnu::vector_size(16), gnu::may_alias]] = std::uint64_t;
  const auto* mine = reinterpret_cast<const Pair*>(copy);
  const auto* theirs = reinterpret_cast<const Pair*>(shared);
  const Pair differences = (mine[0] ^ theirs[0]) | (mine[1] ^ theirs[1]) | (mine[2] ^ theirs[2]) | (mine[3] ^ theirs[3]);
  return (differences[0] | differences[1]) == 0;
}

}  // namespace doppel
