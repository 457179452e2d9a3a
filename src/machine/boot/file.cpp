#include "machine/boot/file.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "base/unique_fd.h"

namespace doppel {

Result<std::vector<std::byte>> read_file(const std::string& path, std::size_t limit_bytes) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open {}", path);
  struct stat status {};
  if (::fstat(fd.get(), &status) != 0) return fail_errno(errno, "cannot read {}", path);
  if (S_ISDIR(status.st_mode)) return fail("{} is a directory, not a file", path);

  // A regular file tells its size; anything else is read in steps until it ends.
  constexpr std::size_t kStep = 1 << 20;
  std::vector<std::byte> bytes;
  std::size_t used = 0;
  for (;;) {
    if (used == bytes.size()) {
      if (used > limit_bytes) {
        return fail("{} is larger than the {} MiB that fit into the machine's memory", path,
                    limit_bytes >> 20);
      }
      const auto expected = S_ISREG(status.st_mode) ? static_cast<std::size_t>(status.st_size) : 0;
      bytes.resize(std::min(std::max(used + kStep, expected + 1), limit_bytes + 1));
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

}  // namespace doppel
