// Files, descriptors, paths and mounts. Flags of open() and the like are the same in guest and host: both have
// asm-generic's.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <optional>
#include <string>

#include "base/own_descriptor.h"
#include "process/abi/busy_programs.h"
#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/paths.h"
#include "process/abi/system_calls.h"
#include "process/abi/vectors.h"

namespace doppel::process {
namespace {

// struct stat of asm-generic, which x86-64 has not.
struct GuestStat {
  u64 dev, ino;
  std::uint32_t mode, nlink, uid, gid;
  u64 rdev, pad1;
  std::int64_t size;
  std::int32_t blksize, pad2;
  std::int64_t blocks, atime, atime_nsec, mtime, mtime_nsec, ctime, ctime_nsec;
  std::uint32_t unused[2];
};
static_assert(sizeof(GuestStat) == 128);

std::int64_t put_stat(LinuxProcess& p, u64 gva, const struct stat& s) {
  const GuestStat guest{s.st_dev, s.st_ino, s.st_mode, static_cast<std::uint32_t>(s.st_nlink), s.st_uid, s.st_gid,
                        s.st_rdev, 0, s.st_size, static_cast<std::int32_t>(s.st_blksize), 0, s.st_blocks,
                        s.st_atim.tv_sec, s.st_atim.tv_nsec, s.st_mtim.tv_sec, s.st_mtim.tv_nsec,
                        s.st_ctim.tv_sec, s.st_ctim.tv_nsec, {}};
  return p.put(gva, guest) ? 0 : -EFAULT;
}

std::int64_t do_fstat(LinuxProcess& p, const Arguments& a) {
  struct stat s {};
  const std::int64_t r = host_call(SYS_fstat, a[0], reinterpret_cast<u64>(&s));
  return r != 0 ? r : put_stat(p, a[1], s);
}

// What a call that may look at a link itself sees of another path.
u64 path_for(const LinuxProcess& p, u64 directory, u64 gva, u64 flags, std::optional<std::string>& other) {
  if ((flags & AT_SYMLINK_NOFOLLOW) == 0) other = other_path(p, static_cast<int>(directory), gva);
  return reinterpret_cast<u64>(other ? other->c_str() : p.pointer(gva));
}

std::int64_t do_newfstatat(LinuxProcess& p, const Arguments& a) {
  struct stat s {};
  std::optional<std::string> other;
  const u64 path = path_for(p, a[0], a[1], a[3], other);
  const std::int64_t r = host_call(SYS_newfstatat, a[0], path, reinterpret_cast<u64>(&s), a[3]);
  return r != 0 ? r : put_stat(p, a[2], s);
}

std::int64_t do_statx(LinuxProcess& p, const Arguments& a) {
  std::optional<std::string> other;
  return host_call(SYS_statx, a[0], path_for(p, a[0], a[1], a[2], other), a[2], a[3],
                   reinterpret_cast<u64>(p.pointer(a[4])));
}

std::int64_t do_faccessat2(LinuxProcess& p, const Arguments& a) {
  std::optional<std::string> other;
  return host_call(SYS_faccessat2, a[0], path_for(p, a[0], a[1], a[3], other), a[2], a[3]);
}

std::int64_t open_as(LinuxProcess& p, u64 directory, u64 path, int flags, auto&& host) {
  const auto name = proc_path(p, static_cast<int>(directory), path);
  if (name) {
    if (const auto view = open_view(p, *name, flags)) return *view;
    if (const auto owner = memory_owner(*name); owner && (flags & O_ACCMODE) != O_RDONLY) {
      const std::int64_t fd = host(reinterpret_cast<u64>(name->c_str()));
      if (fd >= 0) p.tracer().opened_memory(static_cast<int>(fd), *owner);
      return fd;
    }
  }
  const auto other = name ? program_link(p, *name) : library_path(p, path);
  return host(reinterpret_cast<u64>(other ? other->c_str() : p.pointer(path)));
}

// Opens by `host(flags)`, for writing perhaps: what runs cannot be written, and so is not made empty before that is known.
std::int64_t open_unless_running(u64 flags, auto&& host) {
  if ((flags & O_ACCMODE) == O_RDONLY || (flags & O_PATH) != 0) return host(flags);
  const std::int64_t fd = host(flags & ~u64{O_TRUNC});
  if (fd < 0) return fd;
  const int file = static_cast<int>(fd);
  std::int64_t failed = is_running(file) ? -ETXTBSY : 0;
  struct stat s {};
  // What is no regular file has nothing to be made empty.
  if (failed == 0 && (flags & O_TRUNC) != 0 && ::fstat(file, &s) == 0 && S_ISREG(s.st_mode) && ::ftruncate(file, 0) != 0) {
    failed = -errno;
  }
  if (failed != 0) ::close(file);
  return failed != 0 ? failed : fd;
}

std::int64_t do_openat(LinuxProcess& p, const Arguments& a) {
  return open_as(p, a[0], a[1], static_cast<int>(a[2]), [&](u64 path) {
    return open_unless_running(a[2], [&](u64 flags) { return host_call(SYS_openat, a[0], path, flags, a[3]); });
  });
}

std::int64_t do_openat2(LinuxProcess& p, const Arguments& a) {
  const auto how = a[3] >= sizeof(open_how) ? p.get<open_how>(a[2]) : std::nullopt;
  return open_as(p, a[0], a[1], how ? static_cast<int>(how->flags) : 0, [&](u64 path) {
    if (!how || a[3] != sizeof *how) return host_call(SYS_openat2, a[0], path, reinterpret_cast<u64>(p.pointer(a[2])), a[3]);
    return open_unless_running(how->flags, [&](u64 flags) {
      open_how other = *how;
      other.flags = flags;
      return host_call(SYS_openat2, a[0], path, reinterpret_cast<u64>(&other), sizeof other);
    });
  });
}

std::int64_t do_readlinkat(LinuxProcess& p, const Arguments& a) {
  const auto path = proc_path(p, static_cast<int>(a[0]), a[1]);
  if (const auto program = path ? program_link(p, *path) : std::nullopt) {
    if (static_cast<int>(a[3]) <= 0) return -EINVAL;
    const u64 bytes = std::min<u64>(program->size(), a[3]);
    return p.write(a[2], program->data(), bytes) ? static_cast<std::int64_t>(bytes) : -EFAULT;
  }
  return host_call(SYS_readlinkat, a[0], reinterpret_cast<u64>(p.pointer(a[1])),
                   reinterpret_cast<u64>(p.pointer(a[2])), a[3]);
}

template <long Host>
std::int64_t do_vector(LinuxProcess& p, const Arguments& a) {
  std::array<iovec, kFewVectors> few;
  const HostVectors parts(p, a[1], a[2], few);
  if (parts.failed() != 0) return parts.failed();
  return host_call(Host, a[0], parts.address(), a[2], a[3], a[4], a[5]);
}

// What is written to may be another process's memory.
std::int64_t do_write(LinuxProcess& p, const Arguments& a) {
  const std::int64_t done = host_call(SYS_write, a[0], reinterpret_cast<u64>(p.pointer(a[1])), a[2]);
  if (done > 0 && p.tracer().knows_memory()) {
    const int fd = static_cast<int>(a[0]);
    p.tracer().wrote_memory(fd, static_cast<u64>(::lseek(fd, 0, SEEK_CUR) - done), static_cast<u64>(done));
  }
  return done;
}

std::int64_t do_pwrite64(LinuxProcess& p, const Arguments& a) {
  const std::int64_t done = host_call(SYS_pwrite64, a[0], reinterpret_cast<u64>(p.pointer(a[1])), a[2], a[3]);
  if (done > 0 && p.tracer().knows_memory()) {
    p.tracer().wrote_memory(static_cast<int>(a[0]), a[3], static_cast<u64>(done));
  }
  return done;
}

std::int64_t do_fcntl(LinuxProcess& p, const Arguments& a) {
  switch (a[1]) {
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
    case F_GETOWN_EX:
    case F_SETOWN_EX:
    case F_GET_RW_HINT:
    case F_SET_RW_HINT:
    case F_GET_FILE_RW_HINT:
    case F_SET_FILE_RW_HINT:
      return host_call(SYS_fcntl, a[0], a[1], reinterpret_cast<u64>(p.pointer(a[2])));
    case F_SETFD:
      if (is_aside(static_cast<int>(a[0]))) return -EBADF;
      break;
    default: break;
  }
  return host_call(SYS_fcntl, a[0], a[1], a[2]);
}

// Our own descriptors are none to the guest.
std::int64_t do_close(LinuxProcess&, const Arguments& a) {
  return is_aside(static_cast<int>(a[0])) ? -EBADF : host_call(SYS_close, a[0]);
}

std::int64_t do_dup3(LinuxProcess&, const Arguments& a) {
  return is_aside(static_cast<int>(a[1])) ? -EBADF : host_call(SYS_dup3, a[0], a[1], a[2]);
}

std::int64_t do_close_range(LinuxProcess&, const Arguments& a) {
  u64 first = static_cast<std::uint32_t>(a[0]);
  const u64 last = static_cast<std::uint32_t>(a[1]);
  const AsideRange ours = aside_range();
  if (first > last) return -EINVAL;
  for (int fd = ours.first; fd <= ours.last; ++fd) {
    const auto own = static_cast<u64>(fd);
    if (!is_aside(fd) || own < first || own > last) continue;
    if (own > first) {
      if (const std::int64_t r = host_call(SYS_close_range, first, own - 1, a[2]); r != 0) return r;
    }
    first = own + 1;
  }
  return first > last ? 0 : host_call(SYS_close_range, first, last, a[2]);
}

constexpr std::array kRows{
    path_row(5, "setxattr", SYS_setxattr, 0b111, 0b1),
    Row{6, "lsetxattr", SYS_lsetxattr, 0b111},
    Row{7, "fsetxattr", SYS_fsetxattr, 0b110},
    path_row(8, "getxattr", SYS_getxattr, 0b111, 0b1),
    Row{9, "lgetxattr", SYS_lgetxattr, 0b111},
    Row{10, "fgetxattr", SYS_fgetxattr, 0b110},
    path_row(11, "listxattr", SYS_listxattr, 0b11, 0b1),
    Row{12, "llistxattr", SYS_llistxattr, 0b11},
    Row{13, "flistxattr", SYS_flistxattr, 0b10},
    path_row(14, "removexattr", SYS_removexattr, 0b11, 0b1),
    Row{15, "lremovexattr", SYS_lremovexattr, 0b11},
    Row{16, "fremovexattr", SYS_fremovexattr, 0b10},
    Row{17, "getcwd", SYS_getcwd, 0b1},
    refused_row(18, "lookup_dcookie"),
    Row{23, "dup", SYS_dup},
    Row{24, "dup3", -1, 0, do_dup3},
    Row{25, "fcntl", -1, 0, do_fcntl},
    Row{29, "ioctl", SYS_ioctl, 0b100},
    Row{32, "flock", SYS_flock},
    Row{33, "mknodat", SYS_mknodat, 0b10},
    Row{34, "mkdirat", SYS_mkdirat, 0b10},
    Row{35, "unlinkat", SYS_unlinkat, 0b10},
    Row{36, "symlinkat", SYS_symlinkat, 0b101},
    Row{37, "linkat", SYS_linkat, 0b1010},
    Row{39, "umount2", SYS_umount2, 0b1},
    Row{40, "mount", SYS_mount, 0b10111},
    Row{41, "pivot_root", SYS_pivot_root, 0b11},
    refused_row(42, "nfsservctl"),
    path_row(43, "statfs", SYS_statfs, 0b11, 0b1),
    Row{44, "fstatfs", SYS_fstatfs, 0b10},
    Row{45, "truncate", SYS_truncate, 0b1},
    Row{46, "ftruncate", SYS_ftruncate},
    Row{47, "fallocate", SYS_fallocate},
    path_row(48, "faccessat", SYS_faccessat, 0b10, 0b10),
    Row{49, "chdir", SYS_chdir, 0b1},
    Row{50, "fchdir", SYS_fchdir},
    Row{51, "chroot", SYS_chroot, 0b1},
    Row{52, "fchmod", SYS_fchmod},
    Row{53, "fchmodat", SYS_fchmodat, 0b10},
    Row{54, "fchownat", SYS_fchownat, 0b10},
    Row{55, "fchown", SYS_fchown},
    Row{56, "openat", -1, 0, do_openat},
    Row{57, "close", -1, 0, do_close},
    Row{58, "vhangup", SYS_vhangup},
    Row{59, "pipe2", SYS_pipe2, 0b1},
    Row{60, "quotactl", SYS_quotactl, 0b1010},
    Row{61, "getdents64", SYS_getdents64, 0b10},
    Row{62, "lseek", SYS_lseek},
    Row{63, "read", SYS_read, 0b10},
    Row{64, "write", -1, 0, do_write},
    Row{65, "readv", -1, 0, do_vector<SYS_readv>},
    Row{66, "writev", -1, 0, do_vector<SYS_writev>},
    Row{67, "pread64", SYS_pread64, 0b10},
    Row{68, "pwrite64", -1, 0, do_pwrite64},
    Row{69, "preadv", -1, 0, do_vector<SYS_preadv>},
    Row{70, "pwritev", -1, 0, do_vector<SYS_pwritev>},
    Row{71, "sendfile", SYS_sendfile, 0b100},
    Row{75, "vmsplice", -1, 0, do_vector<SYS_vmsplice>},
    Row{76, "splice", SYS_splice, 0b1010},
    Row{77, "tee", SYS_tee},
    Row{78, "readlinkat", -1, 0, do_readlinkat},
    Row{79, "newfstatat", -1, 0, do_newfstatat},
    Row{80, "fstat", -1, 0, do_fstat},
    Row{81, "sync", SYS_sync},
    Row{82, "fsync", SYS_fsync},
    Row{83, "fdatasync", SYS_fdatasync},
    Row{84, "sync_file_range", SYS_sync_file_range},
    Row{88, "utimensat", SYS_utimensat, 0b110},
    Row{89, "acct", SYS_acct, 0b1},
    Row{213, "readahead", SYS_readahead},
    Row{223, "fadvise64", SYS_fadvise64},
    Row{264, "name_to_handle_at", SYS_name_to_handle_at, 0b1110},
    Row{265, "open_by_handle_at", SYS_open_by_handle_at, 0b10},
    Row{267, "syncfs", SYS_syncfs},
    Row{276, "renameat2", SYS_renameat2, 0b1010},
    Row{285, "copy_file_range", SYS_copy_file_range, 0b1010},
    Row{286, "preadv2", -1, 0, do_vector<SYS_preadv2>},
    Row{287, "pwritev2", -1, 0, do_vector<SYS_pwritev2>},
    Row{291, "statx", -1, 0, do_statx},
    Row{428, "open_tree", SYS_open_tree, 0b10},
    Row{429, "move_mount", SYS_move_mount, 0b1010},
    Row{430, "fsopen", SYS_fsopen, 0b1},
    Row{431, "fsconfig", SYS_fsconfig, 0b1100},
    Row{432, "fsmount", SYS_fsmount},
    Row{433, "fspick", SYS_fspick, 0b10},
    Row{436, "close_range", -1, 0, do_close_range},
    Row{437, "openat2", -1, 0, do_openat2},
    Row{439, "faccessat2", -1, 0, do_faccessat2},
    Row{442, "mount_setattr", 442, 0b1010},
    Row{443, "quotactl_fd", 443, 0b1000},
    Row{444, "landlock_create_ruleset", 444, 0b1},
    Row{445, "landlock_add_rule", 445, 0b100},
    Row{446, "landlock_restrict_self", 446},
    Row{451, "cachestat", 451, 0b110},
    Row{452, "fchmodat2", 452, 0b10},
    Row{457, "statmount", 457, 0b11},
    Row{458, "listmount", 458, 0b11},
    Row{463, "setxattrat", 463, 0b11010},
    Row{464, "getxattrat", 464, 0b11010},
    Row{465, "listxattrat", 465, 0b1010},
    Row{466, "removexattrat", 466, 0b1010},
    Row{467, "open_tree_attr", 467, 0b1010},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> file_rows() { return kRows; }

}  // namespace doppel::process
