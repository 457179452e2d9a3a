// Bytes scattered over host memory, as iovec lists: what scatter-gather I/O is made of.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace doppel {

inline std::uint64_t total_bytes(std::span<const iovec> buffers) {
  std::uint64_t total = 0;
  for (const iovec& buffer : buffers) total += buffer.iov_len;
  return total;
}

// Drops the first `bytes` bytes, or all where there are fewer; the list is edited in place.
inline void drop_front(std::span<iovec>& buffers, std::uint64_t bytes) {
  while (!buffers.empty() && bytes >= buffers.front().iov_len) {
    bytes -= buffers.front().iov_len;
    buffers = buffers.subspan(1);
  }
  if (buffers.empty() || bytes == 0) return;
  iovec& first = buffers.front();
  first.iov_base = static_cast<std::byte*>(first.iov_base) + bytes;
  first.iov_len -= bytes;
}

// Copies from the start of `buffers` into `into`; returns how many bytes there were to copy.
inline std::size_t gather(std::span<const iovec> buffers, std::span<std::byte> into) {
  std::size_t done = 0;
  for (const iovec& buffer : buffers) {
    const std::size_t some = std::min(buffer.iov_len, into.size() - done);
    if (some == 0) break;
    std::memcpy(into.data() + done, buffer.iov_base, some);
    done += some;
  }
  return done;
}

// Copies `from` to the start of `buffers`; returns how many bytes there was room for.
inline std::size_t scatter(std::span<const std::byte> from, std::span<const iovec> buffers) {
  std::size_t done = 0;
  for (const iovec& buffer : buffers) {
    const std::size_t some = std::min(buffer.iov_len, from.size() - done);
    if (some == 0) break;
    std::memcpy(buffer.iov_base, from.data() + done, some);
    done += some;
  }
  return done;
}

}  // namespace doppel
