#include "base/own_descriptor.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>

namespace doppel {
namespace {

constexpr int kMost = 8;
constexpr int kHigh = 1024;  // the usual limit: a table of more descriptors makes each fork dearer

// Only ever added to.
std::array<std::atomic<int>, kMost> aside{};
std::array<std::atomic<Heirs>, kMost> heirs_of{};
std::atomic<int> count{0};

void remember(int fd, Heirs heirs) {
  const int at = count.load();
  if (at >= kMost) return;
  ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  aside[at].store(fd);
  heirs_of[at].store(heirs);
  count.store(at + 1);
}

}  // namespace

void adopt_aside(int fd) { remember(fd, Heirs::kAll); }

int keep_aside(int fd, Heirs heirs) {
  if (fd < 0 || count.load() >= kMost) return fd;
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const int from = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, kHigh)) - 2 * kMost;
  const int moved = from > 0 ? ::fcntl(fd, F_DUPFD_CLOEXEC, from) : -1;
  if (moved >= 0) {
    ::close(fd);
    fd = moved;
  }
  remember(fd, heirs);
  return fd;
}

bool is_aside(int fd) {
  for (int i = 0; i < count.load(std::memory_order_acquire); ++i) {
    if (aside[i].load(std::memory_order_relaxed) == fd) return true;
  }
  return false;
}

AsideRange aside_range() {
  AsideRange range{1, 0};
  for (int i = 0; i < count.load(); ++i) {
    const int fd = aside[i].load();
    range = i == 0 ? AsideRange{fd, fd} : AsideRange{std::min(range.first, fd), std::max(range.last, fd)};
  }
  return range;
}

void inherit_aside(bool inherited) {
  for (int i = 0; i < count.load(); ++i) {
    if (heirs_of[i].load() == Heirs::kAll) ::fcntl(aside[i].load(), F_SETFD, inherited ? 0 : FD_CLOEXEC);
  }
}

}  // namespace doppel
