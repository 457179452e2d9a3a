// Threads, processes, programs, and who they belong to.
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

std::int64_t do_exit(LinuxProcess&, const Arguments& a) { ::_exit(static_cast<int>(a[0])); }

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
    Row{93, "exit", -1, 0, do_exit},
    Row{94, "exit_group", -1, 0, do_exit},
    Row{96, "set_tid_address", -1, 0, [](LinuxProcess&, const Arguments&) { return result(::getpid()); }},
    Row{98, "futex", SYS_futex, 0b11001},
    Row{99, "set_robust_list", -1, 0, [](LinuxProcess&, const Arguments&) -> std::int64_t { return 0; }},
    Row{123, "sched_getaffinity", SYS_sched_getaffinity, 0b100},
    Row{124, "sched_yield", SYS_sched_yield},
    Row{154, "setpgid", SYS_setpgid},
    Row{155, "getpgid", SYS_getpgid},
    Row{156, "getsid", SYS_getsid},
    Row{157, "setsid", SYS_setsid},
    Row{158, "getgroups", SYS_getgroups, 0b10},
    Row{172, "getpid", SYS_getpid},
    Row{173, "getppid", SYS_getppid},
    Row{174, "getuid", SYS_getuid},
    Row{175, "geteuid", SYS_geteuid},
    Row{176, "getgid", SYS_getgid},
    Row{177, "getegid", SYS_getegid},
    Row{178, "gettid", SYS_gettid},
    Row{220, "clone", -1, 0, do_clone},
    Row{221, "execve", -1, 0, do_execve},
    Row{260, "wait4", SYS_wait4, 0b1010},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> process_rows() { return kRows; }

}  // namespace doppel::process
