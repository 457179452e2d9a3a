#include "run/root.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "base/log.h"
#include "base/unique_fd.h"
#include "run/user_namespace.h"

namespace doppel {
namespace {

// Opens `path` as it means in the root at `root`: no link and no ".." leads out of it.
UniqueFd open_inside(int root, const std::string& path, std::uint64_t flags) {
  open_how how{.flags = flags | O_CLOEXEC, .mode = 0, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
}

// What `path` is in the root, made a directory or an empty file if it is not there.
UniqueFd open_or_make(int root, const std::string& path, bool directory) {
  if (UniqueFd there = open_inside(root, path, O_PATH)) return there;
  std::size_t end = 0;
  while (end < path.size()) {
    end = path.find('/', end + 1);
    if (end == path.npos) end = path.size();
    const std::string part = path.substr(0, end);
    if (open_inside(root, part, O_PATH)) continue;
    const std::size_t slash = part.rfind('/');
    const UniqueFd parent = open_inside(root, slash == 0 ? "/" : part.substr(0, slash), O_PATH | O_DIRECTORY);
    if (!parent) return {};
    const std::string name = part.substr(slash + 1);
    if (name.empty()) continue;
    if (directory || end < path.size()) {
      if (::mkdirat(parent.get(), name.c_str(), 0755) != 0) return {};
    } else {
      const UniqueFd made(::openat(parent.get(), name.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644));
      if (!made) return {};
    }
  }
  return open_inside(root, path, O_PATH);
}

std::string by_descriptor(int fd) { return "/proc/self/fd/" + std::to_string(fd); }

Result<void> bind(int root, const Bind& what) {
  struct stat status {};
  if (::stat(what.source.c_str(), &status) != 0) return fail_errno(errno, "--bind {}", what.source);
  const UniqueFd target = open_or_make(root, what.target, S_ISDIR(status.st_mode));
  if (!target) return fail_errno(errno, "--bind {}: cannot make {} in the root", what.source, what.target);
  if (::mount(what.source.c_str(), by_descriptor(target.get()).c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
    return fail_errno(errno, "--bind {}: cannot be mounted at {} in the root", what.source, what.target);
  }
  return {};
}

bool has_filesystem(int root, const char* path, long magic) {
  const UniqueFd fd = open_inside(root, path, O_PATH);
  struct statfs status {};
  return fd && ::fstatfs(fd.get(), &status) == 0 && status.f_type == magic;
}

// Whether somebody mounted them there. Nodes that are files of the root, as debootstrap makes a few, lack terminals and
// what else the host has.
bool has_devices(int root) {
  const UniqueFd null = open_inside(root, "/dev/null", O_PATH);
  struct stat of_null {}, of_root {};
  return null && ::fstat(null.get(), &of_null) == 0 && ::fstat(root, &of_root) == 0 && S_ISCHR(of_null.st_mode) &&
         of_null.st_dev != of_root.st_dev;
}

// Mounts of our own.
Result<void> separate_mounts() {
  if (::unshare(CLONE_NEWNS) != 0) {
    if (auto entered = enter_user_namespace(); !entered) return entered;
  }
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) {
    return fail_errno(errno, "--root: cannot separate the mounts from the host's");
  }
  return {};
}

}  // namespace

Result<Bind> parse_bind(const std::string& text) {
  const std::size_t colon = text.find(':');
  Bind bind{text.substr(0, colon), colon == text.npos ? text : text.substr(colon + 1)};
  if (bind.source.empty() || !bind.target.starts_with('/')) {
    return fail("--bind {}: SRC or SRC:DST, of which the last is an absolute path", text);
  }
  return bind;
}

Result<void> enter_root(const std::string& directory, const std::vector<Bind>& binds) {
  UniqueFd root(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!root) return fail_errno(errno, "--root {}", directory);
  const bool proc = !has_filesystem(root.get(), "/proc", PROC_SUPER_MAGIC);
  const bool sys = !has_filesystem(root.get(), "/sys", SYSFS_MAGIC) && open_inside(root.get(), "/sys", O_PATH);
  const bool dev = !has_devices(root.get());

  if (proc || sys || dev || !binds.empty() || ::chroot(by_descriptor(root.get()).c_str()) != 0) {
    if (auto done = separate_mounts(); !done) {
      // A container without the right to mount may still change roots.
      if (!binds.empty() || ::fchdir(root.get()) != 0 || ::chroot(".") != 0) return done;
      log_warning("--root: nothing can be mounted here, so /proc, /dev and /sys are what {} has", directory);
      return {};
    }
    // pivot_root() wants a mount. The descriptor of before leads to the host's mounts.
    if (::mount(directory.c_str(), directory.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) {
      return fail_errno(errno, "--root {}: cannot be mounted", directory);
    }
    root = UniqueFd(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!root) return fail_errno(errno, "--root {}", directory);
    // A read-only or foreign root may lack these: then its programs do.
    for (const auto& [wanted, name] : {std::pair{proc, "/proc"}, {dev, "/dev"}, {sys, "/sys"}}) {
      if (!wanted) continue;
      if (auto done = bind(root.get(), {name, name}); !done) log_info("{}", done.error().message);
    }
    for (const Bind& each : binds) {
      if (auto done = bind(root.get(), each); !done) return done;
    }
    if (::fchdir(root.get()) != 0) return fail_errno(errno, "--root {}", directory);
    if (::syscall(SYS_pivot_root, ".", ".") != 0) {
      // The host's root is its initial RAM disk, which cannot be moved.
      if (::chroot(".") != 0) return fail_errno(errno, "--root {}", directory);
    } else if (::umount2(".", MNT_DETACH) != 0) {
      return fail_errno(errno, "--root {}: cannot leave the host's root", directory);
    }
  }
  if (::chdir("/") != 0) return fail_errno(errno, "--root {}", directory);
  return {};
}

}  // namespace doppel
