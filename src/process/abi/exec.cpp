#include "process/abi/exec.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/own_descriptor.h"
#include "base/unique_fd.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"
#include "process/abi/thread.h"

namespace doppel::process {
namespace {

int own_program = -1;  // constant once the program runs

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> list;
  for (std::string& text : texts) list.push_back(text.data());
  list.push_back(nullptr);
  return list;
}

struct Call {
  int directory = AT_FDCWD;
  std::string path;
  std::vector<std::string> arguments, environment;
  int flags = 0;
};

std::int64_t carry_out(GuestThread& thread, Call call) {
  LinuxProcess& process = thread.process();
  const ProcessOptions& options = process.options();
  if (call.arguments.empty()) call.arguments.emplace_back();  // as Linux does
  std::size_t bytes = 0;
  for (const auto* list : {&call.arguments, &call.environment}) {
    for (const std::string& text : *list) {
      if (text.size() >= kLongestArgument) return -E2BIG;
      bytes += text.size() + 1 + sizeof(char*);
    }
  }
  if (bytes > argument_bytes()) return -E2BIG;

  // What has no path is known by its descriptor, which must then survive.
  UniqueFd opened;
  std::string name = call.path;
  if (call.path.empty()) {
    if ((call.flags & AT_EMPTY_PATH) == 0) return -ENOENT;
    name = fmt::format("/proc/self/fd/{}", call.directory);
    opened = UniqueFd(::fcntl(call.directory, F_DUPFD_CLOEXEC, 0));
    if (!opened) return -EBADF;
  } else if (call.directory != AT_FDCWD && call.path[0] != '/') {
    name = fmt::format("/proc/self/fd/{}/{}", call.directory, call.path);
  }
  if ((call.flags & AT_SYMLINK_NOFOLLOW) != 0) {
    struct stat status {};
    if (::fstatat(call.directory, call.path.c_str(), &status, AT_SYMLINK_NOFOLLOW | (call.flags & AT_EMPTY_PATH)) != 0) {
      return -errno;
    }
    if (S_ISLNK(status.st_mode)) return -ELOOP;
  }

  ProgramRequest request{.path = name, .arguments = call.arguments, .environment = {},
                         .library_prefix = options.program.library_prefix};
  const auto kind = inspect_program(request);
  if (!kind) {
    log_debug("execve: {}", kind.error().error.message);
    return -kind.error().number;
  }
  if (*kind == ProgramKind::kHost) {
    return thread.become(call.directory, call.path.c_str(), pointers(call.arguments).data(),
                         pointers(call.environment).data(), call.flags);
  }
  if (own_program < 0) {
    // Started by binfmt_misc in a root without /proc: the kernel knows where we are.
    return thread.become(call.directory, call.path.c_str(), pointers(call.arguments).data(),
                         pointers(call.environment).data(), call.flags);
  }
  std::vector<std::string> line = options.command;
  line.insert(line.end(), {"--inherit-self", std::to_string(own_program)});
  if (const int log = log_descriptor(); log >= 0) line.insert(line.end(), {"--inherit-log", std::to_string(log)});
  if (opened) {
    ::fcntl(opened.get(), F_SETFD, 0);
    line.insert(line.end(), {"--program-fd", std::to_string(opened.get())});
  }
  line.insert(line.end(), {"--argv0", call.arguments.front(), "--", name});
  line.insert(line.end(), call.arguments.begin() + 1, call.arguments.end());
  inherit_aside(true);
  const std::int64_t failed = thread.become(own_program, "", pointers(line).data(),
                                            pointers(call.environment).data(), AT_EMPTY_PATH);
  inherit_aside(false);
  return failed;
}

std::int64_t read_and_carry_out(GuestThread& thread, int directory, u64 path, u64 arguments, u64 environment,
                                int flags) {
  const LinuxProcess& process = thread.process();
  auto path_text = text_at(process, path);
  auto argument_texts = texts_at(process, arguments);
  auto environment_texts = texts_at(process, environment);
  if (!path_text || !argument_texts || !environment_texts) return -EFAULT;
  if (path_text->size() >= PATH_MAX) return -ENAMETOOLONG;
  if (path_text->empty() && (flags & AT_EMPTY_PATH) == 0) return -ENOENT;
  return carry_out(thread, {.directory = directory, .path = std::move(*path_text),
                            .arguments = std::move(*argument_texts), .environment = std::move(*environment_texts),
                            .flags = flags});
}

}  // namespace

void hold_own_program() {
  // Without /proc there is nothing to hold.
  if (const int fd = ::open("/proc/self/exe", O_PATH | O_CLOEXEC); fd >= 0) own_program = keep_aside(fd);
}

void adopt_own_program(int fd) {
  adopt_aside(fd);
  own_program = fd;
}

std::int64_t execve_now(GuestThread& thread) {
  const auto& x = thread.hart().state().x;
  return read_and_carry_out(thread, AT_FDCWD, x[10], x[11], x[12], 0);
}

std::int64_t execveat_now(GuestThread& thread) {
  const auto& x = thread.hart().state().x;
  const int flags = static_cast<int>(x[14]);
  if ((flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW)) != 0) return -EINVAL;
  return read_and_carry_out(thread, static_cast<int>(x[10]), x[11], x[12], x[13], flags);
}

}  // namespace doppel::process
