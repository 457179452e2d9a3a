#include "device/virtio/entropy/virtio_entropy.h"

#include <sys/random.h>

#include <cerrno>

namespace doppel {
namespace {

// What one request gets at most, so that a hart is not held up for long. The driver may get less than it asks
// for (5.4.6.1).
constexpr std::size_t kMaxBytes = 4096;

std::size_t fill_random(std::span<const iovec> buffers) {
  std::size_t done = 0;
  for (const iovec& buffer : buffers) {
    const std::size_t wanted = std::min(buffer.iov_len, kMaxBytes - done);
    std::size_t got = 0;
    while (got < wanted) {
      const ssize_t some = ::getrandom(static_cast<std::byte*>(buffer.iov_base) + got, wanted - got, 0);
      if (some < 0 && errno != EINTR) return done + got;
      if (some > 0) got += static_cast<std::size_t>(some);
    }
    done += got;
  }
  return done;
}

}  // namespace

void VirtioEntropy::notify(unsigned index) {
  serve(index, parts_, [this, index](DescriptorChain& chain) {
    if (chain.writable.empty()) {
      transport().fail("a request for entropy has no room for it");
      return true;
    }
    transport().queue(index).push(chain.head, static_cast<std::uint32_t>(fill_random(chain.writable)));
    return true;
  });
}

}  // namespace doppel
