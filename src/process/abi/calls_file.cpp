// Files, descriptors and paths.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <string>

#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

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
  if (!p.writable(gva, sizeof(GuestStat))) return -EFAULT;
  const GuestStat guest{s.st_dev, s.st_ino, s.st_mode, static_cast<std::uint32_t>(s.st_nlink), s.st_uid, s.st_gid,
                        s.st_rdev, 0, s.st_size, static_cast<std::int32_t>(s.st_blksize), 0, s.st_blocks,
                        s.st_atim.tv_sec, s.st_atim.tv_nsec, s.st_mtim.tv_sec, s.st_mtim.tv_nsec,
                        s.st_ctim.tv_sec, s.st_ctim.tv_nsec, {}};
  std::memcpy(p.flat().host(gva), &guest, sizeof guest);
  return 0;
}

std::int64_t do_fstat(LinuxProcess& p, const Arguments& a) {
  struct stat s {};
  if (::fstat(static_cast<int>(a[0]), &s) != 0) return -errno;
  return put_stat(p, a[1], s);
}

std::int64_t do_newfstatat(LinuxProcess& p, const Arguments& a) {
  struct stat s {};
  const long r = ::syscall(SYS_newfstatat, a[0], p.pointer(a[1]), &s, a[3]);
  return r != 0 ? result(r) : put_stat(p, a[2], s);
}

std::int64_t do_openat(LinuxProcess& p, const Arguments& a) {
  const char* path = static_cast<const char*>(p.pointer(a[1]));
  const std::string& prefix = p.options().program.library_prefix;
  if (!prefix.empty() && p.readable(a[1], 1) && *path == '/') {
    // The host's own copy, so that no fault of the guest's is ours.
    std::string text;
    for (u64 at = a[1]; text.size() < PATH_MAX && p.readable(at, 1) && p.flat().host(at)[0] != std::byte{}; ++at) {
      text.push_back(static_cast<char>(p.flat().host(at)[0]));
    }
    text.insert(0, prefix);
    // Only what is there: O_CREAT makes files where the guest named them.
    if (::access(text.c_str(), F_OK) == 0) return host_call(SYS_openat, a[0], reinterpret_cast<u64>(text.c_str()), a[2], a[3]);
  }
  return host_call(SYS_openat, a[0], reinterpret_cast<u64>(path), a[2], a[3]);
}

std::int64_t do_readlinkat(LinuxProcess& p, const Arguments& a) {
  constexpr char kSelf[] = "/proc/self/exe";
  if (p.readable(a[1], sizeof kSelf) && std::memcmp(p.pointer(a[1]), kSelf, sizeof kSelf) == 0) {
    std::array<char, PATH_MAX> whole{};
    if (::realpath(p.options().program.path.c_str(), whole.data()) == nullptr) return -errno;
    const std::size_t bytes = std::min<std::size_t>(std::strlen(whole.data()), a[3]);
    if (!p.writable(a[2], bytes)) return -EFAULT;
    std::memcpy(p.pointer(a[2]), whole.data(), bytes);
    return static_cast<std::int64_t>(bytes);
  }
  return result(::syscall(SYS_readlinkat, a[0], p.pointer(a[1]), p.pointer(a[2]), a[3]));
}

template <long Host>
std::int64_t do_vector(LinuxProcess& p, const Arguments& a) {
  if (a[2] > IOV_MAX) return -EINVAL;
  if (!p.readable(a[1], a[2] * sizeof(iovec))) return -EFAULT;
  std::array<iovec, IOV_MAX> parts;
  if (a[2] != 0) std::memcpy(parts.data(), p.pointer(a[1]), a[2] * sizeof(iovec));
  for (u64 i = 0; i < a[2]; ++i) parts[i].iov_base = p.pointer(reinterpret_cast<u64>(parts[i].iov_base));
  return host_call(Host, a[0], reinterpret_cast<u64>(parts.data()), a[2], a[3], a[4], a[5]);
}

constexpr std::array kRows{
    Row{17, "getcwd", SYS_getcwd, 0b1},
    Row{23, "dup", SYS_dup},
    Row{24, "dup3", SYS_dup3},
    Row{25, "fcntl", -1, 0, [](LinuxProcess& p, const Arguments& a) {
          const bool lock = a[1] == F_GETLK || a[1] == F_SETLK || a[1] == F_SETLKW ||
                            (a[1] >= F_OFD_GETLK && a[1] <= F_OFD_SETLKW);
          return host_call(SYS_fcntl, a[0], a[1], lock ? reinterpret_cast<u64>(p.pointer(a[2])) : a[2]);
        }},
    Row{29, "ioctl", SYS_ioctl, 0b100},
    Row{32, "flock", SYS_flock},
    Row{34, "mkdirat", SYS_mkdirat, 0b10},
    Row{35, "unlinkat", SYS_unlinkat, 0b10},
    Row{36, "symlinkat", SYS_symlinkat, 0b101},
    Row{37, "linkat", SYS_linkat, 0b1010},
    Row{43, "statfs", SYS_statfs, 0b11},
    Row{44, "fstatfs", SYS_fstatfs, 0b10},
    Row{45, "truncate", SYS_truncate, 0b1},
    Row{46, "ftruncate", SYS_ftruncate},
    Row{47, "fallocate", SYS_fallocate},
    Row{48, "faccessat", SYS_faccessat, 0b10},
    Row{49, "chdir", SYS_chdir, 0b1},
    Row{50, "fchdir", SYS_fchdir},
    Row{52, "fchmod", SYS_fchmod},
    Row{53, "fchmodat", SYS_fchmodat, 0b10},
    Row{54, "fchownat", SYS_fchownat, 0b10},
    Row{55, "fchown", SYS_fchown},
    Row{56, "openat", -1, 0, do_openat},
    Row{57, "close", SYS_close},
    Row{59, "pipe2", SYS_pipe2, 0b1},
    Row{61, "getdents64", SYS_getdents64, 0b10},
    Row{62, "lseek", SYS_lseek},
    Row{63, "read", SYS_read, 0b10},
    Row{64, "write", SYS_write, 0b10},
    Row{65, "readv", -1, 0, do_vector<SYS_readv>},
    Row{66, "writev", -1, 0, do_vector<SYS_writev>},
    Row{67, "pread64", SYS_pread64, 0b10},
    Row{68, "pwrite64", SYS_pwrite64, 0b10},
    Row{69, "preadv", -1, 0, do_vector<SYS_preadv>},
    Row{70, "pwritev", -1, 0, do_vector<SYS_pwritev>},
    Row{71, "sendfile", SYS_sendfile, 0b100},
    Row{73, "ppoll", SYS_ppoll, 0b1101},
    Row{78, "readlinkat", -1, 0, do_readlinkat},
    Row{79, "newfstatat", -1, 0, do_newfstatat},
    Row{80, "fstat", -1, 0, do_fstat},
    Row{81, "sync", SYS_sync},
    Row{82, "fsync", SYS_fsync},
    Row{83, "fdatasync", SYS_fdatasync},
    Row{88, "utimensat", SYS_utimensat, 0b110},
    Row{223, "fadvise64", SYS_fadvise64},
    Row{276, "renameat2", SYS_renameat2, 0b1010},
    Row{291, "statx", SYS_statx, 0b10010},
    Row{439, "faccessat2", SYS_faccessat2, 0b10},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> file_rows() { return kRows; }

}  // namespace doppel::process
