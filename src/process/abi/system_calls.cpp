// Linux system calls of riscv64: one row each. Most reach the host as they are, with pointers moved into the guest's
// memory: a bad one is then refused by the host itself. Functions do those whose structures or meaning differ.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "process/abi/linux_process.h"

namespace doppel::process {
namespace {

using u64 = std::uint64_t;
using Arguments = std::array<u64, 6>;
using Function = std::int64_t (*)(LinuxProcess&, const Arguments&);

struct Row {
  unsigned number;
  const char* name;
  long host = -1;         // the host's number, to pass the call on
  unsigned pointers = 0;  // bit n: argument n is a guest pointer
  Function function = nullptr;
};

std::int64_t result(long value) { return value == -1 ? -errno : value; }

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
    if (::access(text.c_str(), F_OK) == 0) return result(::syscall(SYS_openat, a[0], text.c_str(), a[2], a[3]));
  }
  return result(::syscall(SYS_openat, a[0], path, a[2], a[3]));
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
  return result(::syscall(Host, a[0], parts.data(), a[2], a[3], a[4], a[5]));
}

std::int64_t do_exit(LinuxProcess&, const Arguments& a) { ::_exit(static_cast<int>(a[0])); }

std::int64_t do_uname(LinuxProcess& p, const Arguments& a) {
  utsname name{};
  ::uname(&name);
  std::memset(name.machine, 0, sizeof name.machine);
  std::memcpy(name.machine, "riscv64", 7);
  if (!p.writable(a[0], sizeof name)) return -EFAULT;
  std::memcpy(p.pointer(a[0]), &name, sizeof name);
  return 0;
}

std::int64_t do_prctl(LinuxProcess& p, const Arguments& a) {
  if (a[0] != PR_SET_NAME && a[0] != PR_GET_NAME) return -EINVAL;
  return result(::syscall(SYS_prctl, a[0], p.pointer(a[1])));
}

std::int64_t do_brk(LinuxProcess& p, const Arguments& a) {
  const std::int64_t now = p.space().set_break(a[0]);
  if (a[0] != 0) p.mappings_changed();
  return now;
}

std::int64_t do_mmap(LinuxProcess& p, const Arguments& a) {
  const std::int64_t at = p.space().map(a[0], a[1], static_cast<int>(a[2]), static_cast<int>(a[3]),
                                        static_cast<int>(a[4]), a[5]);
  if (at > 0) p.mappings_changed();
  return at;
}
std::int64_t do_munmap(LinuxProcess& p, const Arguments& a) {
  const std::int64_t r = p.space().unmap(a[0], a[1]);
  p.mappings_changed();
  return r;
}
std::int64_t do_mprotect(LinuxProcess& p, const Arguments& a) {
  const std::int64_t r = p.space().protect(a[0], a[1], static_cast<int>(a[2]));
  p.mappings_changed();
  return r;
}
std::int64_t do_mremap(LinuxProcess& p, const Arguments& a) {
  const std::int64_t r = p.space().remap(a[0], a[1], a[2], static_cast<int>(a[3]));
  p.mappings_changed();
  return r;
}
std::int64_t do_flush_icache(LinuxProcess& p, const Arguments&) {
  p.mappings_changed();
  return 0;
}

// A child with memory of its own, or one whose parent waits for it. Threads are refused.
std::int64_t do_clone(LinuxProcess& p, const Arguments& a) {
  if ((a[0] & CLONE_VM) != 0 && (a[0] & CLONE_VFORK) == 0) return -ENOSYS;
  const pid_t child = ::fork();
  if (child != 0) return child < 0 ? -errno : child;
  if (a[1] != 0) p.hart().state().x[2] = a[1];
  if ((a[0] & CLONE_SETTLS) != 0) p.hart().state().x[4] = a[3];
  if ((a[0] & CLONE_CHILD_SETTID) != 0 && p.writable(a[4], 4)) {
    const pid_t self = ::getpid();
    std::memcpy(p.pointer(a[4]), &self, sizeof self);
  }
  p.became_child();
  return 0;
}

// The text at gva; nullopt where it cannot be read.
std::optional<std::string> text_at(const LinuxProcess& p, u64 gva) {
  std::string text;
  for (;; ++gva) {
    if (!p.readable(gva, 1)) return std::nullopt;
    const char c = static_cast<char>(*p.flat().host(gva));
    if (c == 0) return text;
    text.push_back(c);
  }
}

// The texts that a null-terminated array of pointers names.
std::optional<std::vector<std::string>> texts_at(const LinuxProcess& p, u64 gva) {
  std::vector<std::string> texts;
  for (; gva != 0; gva += 8) {
    u64 at = 0;
    if (!p.readable(gva, 8)) return std::nullopt;
    std::memcpy(&at, p.flat().host(gva), 8);
    if (at == 0) break;
    auto text = text_at(p, at);
    if (!text) return std::nullopt;
    texts.push_back(std::move(*text));
  }
  return texts;
}

// A program of the host replaces us; one of the guest's begins in a new process VM with the same options.
std::int64_t do_execve(LinuxProcess& p, const Arguments& a) {
  const auto path = text_at(p, a[0]);
  auto arguments = texts_at(p, a[1]);
  auto environment = texts_at(p, a[2]);
  if (!path || !arguments || !environment) return -EFAULT;
  if (::access(path->c_str(), X_OK) != 0) return -errno;
  std::string program = *path;
  if (is_guest_program(path->c_str())) {
    const ProcessOptions& options = p.options();
    std::vector<std::string> line{"doppel", "run", "--engine",
                                  options.engine == EngineKind::kTranslate ? "translate" : "interpret"};
    if (!options.program.library_prefix.empty()) line.insert(line.end(), {"-L", options.program.library_prefix});
    if (options.trace_calls) line.emplace_back("--strace");
    if (!arguments->empty()) {
      line.insert(line.end(), {"--argv0", arguments->front()});
      arguments->erase(arguments->begin());
    }
    line.insert(line.end(), {"--", *path});
    line.insert(line.end(), arguments->begin(), arguments->end());
    *arguments = std::move(line);
    program = "/proc/self/exe";
  }
  const auto pointers = [](std::vector<std::string>& texts) {
    std::vector<char*> list;
    for (std::string& text : texts) list.push_back(text.data());
    list.push_back(nullptr);
    return list;
  };
  ::execve(program.c_str(), pointers(*arguments).data(), pointers(*environment).data());
  return -errno;
}

constexpr std::array kRows{
    Row{17, "getcwd", SYS_getcwd, 0b1}, Row{23, "dup", SYS_dup}, Row{24, "dup3", SYS_dup3},
    Row{25, "fcntl", -1, 0, [](LinuxProcess& p, const Arguments& a) {
          const bool lock = a[1] == F_GETLK || a[1] == F_SETLK || a[1] == F_SETLKW ||
                            (a[1] >= F_OFD_GETLK && a[1] <= F_OFD_SETLKW);
          return result(::syscall(SYS_fcntl, a[0], a[1], lock ? reinterpret_cast<u64>(p.pointer(a[2])) : a[2]));
        }},
    Row{29, "ioctl", SYS_ioctl, 0b100}, Row{32, "flock", SYS_flock}, Row{34, "mkdirat", SYS_mkdirat, 0b10},
    Row{35, "unlinkat", SYS_unlinkat, 0b10}, Row{36, "symlinkat", SYS_symlinkat, 0b101},
    Row{37, "linkat", SYS_linkat, 0b1010}, Row{43, "statfs", SYS_statfs, 0b11}, Row{44, "fstatfs", SYS_fstatfs, 0b10},
    Row{45, "truncate", SYS_truncate, 0b1}, Row{46, "ftruncate", SYS_ftruncate},
    Row{47, "fallocate", SYS_fallocate}, Row{48, "faccessat", SYS_faccessat, 0b10}, Row{49, "chdir", SYS_chdir, 0b1},
    Row{50, "fchdir", SYS_fchdir}, Row{52, "fchmod", SYS_fchmod}, Row{53, "fchmodat", SYS_fchmodat, 0b10},
    Row{54, "fchownat", SYS_fchownat, 0b10}, Row{55, "fchown", SYS_fchown},
    Row{56, "openat", -1, 0, do_openat}, Row{57, "close", SYS_close}, Row{59, "pipe2", SYS_pipe2, 0b1},
    Row{61, "getdents64", SYS_getdents64, 0b10}, Row{62, "lseek", SYS_lseek}, Row{63, "read", SYS_read, 0b10},
    Row{64, "write", SYS_write, 0b10}, Row{65, "readv", -1, 0, do_vector<SYS_readv>},
    Row{66, "writev", -1, 0, do_vector<SYS_writev>}, Row{67, "pread64", SYS_pread64, 0b10},
    Row{68, "pwrite64", SYS_pwrite64, 0b10}, Row{69, "preadv", -1, 0, do_vector<SYS_preadv>},
    Row{70, "pwritev", -1, 0, do_vector<SYS_pwritev>}, Row{71, "sendfile", SYS_sendfile, 0b100},
    Row{73, "ppoll", SYS_ppoll, 0b1101}, Row{78, "readlinkat", -1, 0, do_readlinkat},
    Row{79, "newfstatat", -1, 0, do_newfstatat}, Row{80, "fstat", -1, 0, do_fstat}, Row{81, "sync", SYS_sync},
    Row{82, "fsync", SYS_fsync}, Row{83, "fdatasync", SYS_fdatasync}, Row{88, "utimensat", SYS_utimensat, 0b110},
    Row{93, "exit", -1, 0, do_exit}, Row{94, "exit_group", -1, 0, do_exit},
    Row{96, "set_tid_address", -1, 0, [](LinuxProcess&, const Arguments&) { return result(::getpid()); }},
    Row{98, "futex", SYS_futex, 0b11001},
    Row{99, "set_robust_list", -1, 0, [](LinuxProcess&, const Arguments&) -> std::int64_t { return 0; }},
    Row{101, "nanosleep", SYS_nanosleep, 0b11}, Row{113, "clock_gettime", SYS_clock_gettime, 0b10},
    Row{114, "clock_getres", SYS_clock_getres, 0b10}, Row{115, "clock_nanosleep", SYS_clock_nanosleep, 0b1100},
    Row{123, "sched_getaffinity", SYS_sched_getaffinity, 0b100}, Row{124, "sched_yield", SYS_sched_yield},
    Row{129, "kill", SYS_kill}, Row{130, "tkill", SYS_tkill}, Row{131, "tgkill", SYS_tgkill},
    // Dispositions are accepted, and no handler is ever called.
    Row{132, "sigaltstack", -1, 0, [](LinuxProcess&, const Arguments&) -> std::int64_t { return 0; }},
    Row{134, "rt_sigaction", -1, 0, [](LinuxProcess& p, const Arguments& a) -> std::int64_t {
          if (a[2] == 0) return 0;
          if (!p.writable(a[2], 24)) return -EFAULT;
          std::memset(p.pointer(a[2]), 0, 24);
          return 0;
        }},
    Row{135, "rt_sigprocmask", SYS_rt_sigprocmask, 0b110}, Row{153, "times", SYS_times, 0b1},
    Row{154, "setpgid", SYS_setpgid}, Row{155, "getpgid", SYS_getpgid}, Row{156, "getsid", SYS_getsid},
    Row{157, "setsid", SYS_setsid}, Row{158, "getgroups", SYS_getgroups, 0b10}, Row{160, "uname", -1, 0, do_uname},
    Row{165, "getrusage", SYS_getrusage, 0b10}, Row{166, "umask", SYS_umask}, Row{167, "prctl", -1, 0, do_prctl},
    Row{169, "gettimeofday", SYS_gettimeofday, 0b11}, Row{172, "getpid", SYS_getpid},
    Row{173, "getppid", SYS_getppid}, Row{174, "getuid", SYS_getuid}, Row{175, "geteuid", SYS_geteuid},
    Row{176, "getgid", SYS_getgid}, Row{177, "getegid", SYS_getegid}, Row{178, "gettid", SYS_gettid},
    Row{179, "sysinfo", SYS_sysinfo, 0b1}, Row{198, "socket", SYS_socket},
    Row{199, "socketpair", SYS_socketpair, 0b1000}, Row{203, "connect", SYS_connect, 0b10},
    Row{214, "brk", -1, 0, do_brk}, Row{215, "munmap", -1, 0, do_munmap}, Row{216, "mremap", -1, 0, do_mremap},
    Row{220, "clone", -1, 0, do_clone}, Row{221, "execve", -1, 0, do_execve}, Row{222, "mmap", -1, 0, do_mmap}, Row{223, "fadvise64", SYS_fadvise64},
    Row{226, "mprotect", -1, 0, do_mprotect}, Row{233, "madvise", SYS_madvise, 0b1},
    Row{259, "riscv_flush_icache", -1, 0, do_flush_icache}, Row{260, "wait4", SYS_wait4, 0b1010},
    Row{261, "prlimit64", SYS_prlimit64, 0b1100}, Row{276, "renameat2", SYS_renameat2, 0b1010},
    Row{278, "getrandom", SYS_getrandom, 0b1}, Row{279, "memfd_create", SYS_memfd_create, 0b1},
    Row{291, "statx", SYS_statx, 0b10010}, Row{439, "faccessat2", SYS_faccessat2, 0b10},
};
static_assert(std::ranges::is_sorted(kRows, {}, &Row::number));

std::int64_t carry_out(LinuxProcess& process, const Row& row, const Arguments& arguments) {
  if (row.function != nullptr) return row.function(process, arguments);
  Arguments a = arguments;
  for (unsigned i = 0; i < a.size(); ++i) {
    if ((row.pointers >> i & 1) != 0) a[i] = reinterpret_cast<u64>(process.pointer(a[i]));
  }
  return result(::syscall(row.host, a[0], a[1], a[2], a[3], a[4], a[5]));
}

}  // namespace

std::int64_t system_call(LinuxProcess& process) {
  const auto& x = process.hart().state().x;
  const Arguments a{x[10], x[11], x[12], x[13], x[14], x[15]};
  const u64 number = x[17];
  const auto row = std::ranges::lower_bound(kRows, number, {}, &Row::number);
  if (row == kRows.end() || row->number != number) {
    if (process.options().trace_calls) fmt::print(stderr, "system call {} = -ENOSYS\n", number);
    log_debug("system call {} is unknown", number);
    return -ENOSYS;
  }
  const std::int64_t value = carry_out(process, *row, a);
  if (process.options().trace_calls) {
    fmt::print(stderr, "{}({:#x}, {:#x}, {:#x}, {:#x}, {:#x}, {:#x}) = {}\n", row->name, a[0], a[1], a[2], a[3], a[4],
               a[5], value);
  }
  return value;
}

}  // namespace doppel::process
