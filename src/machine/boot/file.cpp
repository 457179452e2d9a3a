#include "machine/boot/file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>

namespace doppel {
namespace {

constexpr std::uint64_t kHeadBytes = 64 << 10;

std::unexpected<Error> too_large(const std::string& path, std::size_t limit_bytes) {
  return fail("{} is larger than the {} MiB that fit into the machine's memory", path, limit_bytes >> 20);
}

Result<std::vector<std::byte>> read_to_end(const UniqueFd& fd, const std::string& path, std::size_t limit_bytes) {
  constexpr std::size_t kStep = 1 << 20;
  std::vector<std::byte> bytes;
  std::size_t used = 0;
  for (;;) {
    if (used == bytes.size()) {
      if (used > limit_bytes) return too_large(path, limit_bytes);
      bytes.resize(std::min(used + kStep, limit_bytes + 1));
    }
    const ssize_t got = ::read(fd.get(), bytes.data() + used, bytes.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "cannot read {}", path);
    if (got == 0) break;
    used += static_cast<std::size_t>(got);
  }
  if (used == 0) return fail("{} is empty", path);
  bytes.resize(used);
  return bytes;
}

}  // namespace

Result<BootFile> BootFile::open(const std::string& path, std::size_t limit_bytes) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open {}", path);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "cannot read {}", path);
  if (S_ISDIR(status.st_mode)) return fail("{} is a directory, not a file", path);

  // The kernel's own files call themselves regular and of no size.
  if (!S_ISREG(status.st_mode) || status.st_size == 0) {
    auto bytes = read_to_end(fd, path, limit_bytes);
    if (!bytes) return std::unexpected(bytes.error());
    return BootFile(path, std::move(*bytes));
  }
  const auto size_bytes = static_cast<std::uint64_t>(status.st_size);  // of a regular file, so not negative
  if (size_bytes > limit_bytes) return too_large(path, limit_bytes);
  BootFile file(path, size_bytes, std::move(fd));
  if (auto held = file.hold(std::min(size_bytes, kHeadBytes)); !held) return std::unexpected(held.error());
  return file;
}

Result<void> BootFile::read_into(std::uint64_t offset, std::span<std::byte> into) const {
  if (!has({offset, into.size()})) return fail("{}: nothing lies beyond its {} bytes", name_, size_bytes_);
  if (offset + into.size() <= held_.size()) {
    std::copy_n(held_.begin() + static_cast<std::ptrdiff_t>(offset), into.size(), into.begin());
    return {};
  }
  while (!into.empty()) {
    const ssize_t got = ::pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(errno, "cannot read {}", name_);
    if (got == 0) return fail("{}: became shorter while it was read: it had {} bytes", name_, size_bytes_);
    into = into.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<Bytes> BootFile::bytes() {
  if (held_.size() < size_bytes_) {
    if (auto held = hold(size_bytes_); !held) return std::unexpected(held.error());
  }
  return held_;
}

Result<void> BootFile::hold(std::uint64_t size_bytes) {
  std::vector<std::byte> bytes(size_bytes);
  if (auto read = read_into(0, bytes); !read) return read;
  held_ = std::move(bytes);
  return {};
}

}  // namespace doppel
