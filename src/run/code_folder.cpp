#include "run/code_folder.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string_view>

#include "base/own_descriptor.h"

namespace doppel {
namespace {

std::string_view variable(const char* name) {
  const char* value = ::getenv(name);
  return value == nullptr ? "" : value;
}

// Makes it with the folders above it; gives -1 and errno for what is not a folder of the user's own.
int open_folder(const std::string& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) {
    for (std::size_t end = path.find('/', 1); end != path.npos; end = path.find('/', end + 1)) {
      ::mkdir(path.substr(0, end).c_str(), 0700);
    }
    ::mkdir(path.c_str(), 0700);
    fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  }
  struct stat status {};
  if (fd < 0 || ::fstat(fd, &status) != 0) return -1;
  if (status.st_uid == ::geteuid() && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0) return keep_aside(fd);
  ::close(fd);
  errno = EPERM;
  return -1;
}

}  // namespace

Result<int> open_code_folder(const std::optional<std::string>& wanted) {
  const std::string asked(wanted ? std::string_view(*wanted) : variable(kCodeCacheVariable));
  if (asked == kNoCodeCache) return -1;
  if (!asked.empty()) {
    const int fd = open_folder(asked);
    if (fd < 0) return fail_errno(errno, "--code-cache: {} is no folder that only you may write to", asked);
    return fd;
  }
  const std::string_view own = variable("DOPPEL_CACHE"), caches = variable("XDG_CACHE_HOME"), home = variable("HOME");
  if (own.starts_with('/')) return open_folder(std::string(own) + "/code");
  if (caches.starts_with('/')) return open_folder(std::string(caches) + "/doppel/code");
  if (home.starts_with('/')) return open_folder(std::string(home) + "/.cache/doppel/code");
  return -1;
}

}  // namespace doppel
