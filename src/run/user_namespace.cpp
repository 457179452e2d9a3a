#include "run/user_namespace.h"

#include <fcntl.h>
#include <sched.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/unique_fd.h"

namespace doppel {
namespace {

constexpr const char* kUserMap = "/proc/self/uid_map";
constexpr const char* kGroupMap = "/proc/self/gid_map";

// The fields of "a:b:c".
std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> fields;
  for (std::size_t at = 0; at <= line.size();) {
    const std::size_t end = std::min(line.find(':', at), line.size());
    fields.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  return fields;
}

// As passwd(5) has it. The C library's own look-up would load others, which a static program cannot.
std::string name_of(uid_t user) {
  std::ifstream file("/etc/passwd");
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> fields = fields_of(line);
    if (fields.size() > 2 && fields[2] == std::to_string(user)) return fields[0];
  }
  return {};
}

// What newuidmap and newgidmap are to be told: our own id becomes 0, and those that the file gives us follow.
// Empty: it gives us none.
std::vector<std::string> map_from(const char* path, const std::string& name, uid_t user, std::uint32_t own) {
  std::vector<std::string> map{"0", std::to_string(own), "1"};
  std::uint64_t next = 1;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> fields = fields_of(line);
    if (fields.size() != 3 || (fields[0] != name && fields[0] != std::to_string(user))) continue;
    std::uint64_t count = 0;
    const char* end = fields[2].data() + fields[2].size();
    if (std::from_chars(fields[2].data(), end, count).ptr != end || count == 0) continue;
    map.insert(map.end(), {std::to_string(next), fields[1], fields[2]});
    next += count;
  }
  return next > 1 ? map : std::vector<std::string>{};
}

void run_and_wait(const char* program, pid_t process, const std::vector<std::string>& map) {
  std::string number = std::to_string(process);
  std::vector<char*> arguments{const_cast<char*>(program), number.data()};
  for (const std::string& word : map) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  // Who has no such program, or is refused, has the one id; so this says nothing.
  posix_spawn_file_actions_t silent;
  ::posix_spawn_file_actions_init(&silent);
  ::posix_spawn_file_actions_addopen(&silent, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  if (::posix_spawnp(&child, program, &silent, nullptr, arguments.data(), environ) == 0) ::waitpid(child, nullptr, 0);
  ::posix_spawn_file_actions_destroy(&silent);
}

bool is_mapped(const char* map) {
  std::ifstream file(map);
  return file.peek() != std::ifstream::traits_type::eof();
}

Result<void> write_file(const char* path, const std::string& text) {
  const UniqueFd fd(::open(path, O_WRONLY | O_CLOEXEC));
  if (!fd || ::write(fd.get(), text.data(), text.size()) < 0) return fail_errno(errno, "--root: {}", path);
  return {};
}

}  // namespace

Result<void> enter_user_namespace() {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  const std::string name = name_of(user);
  const auto users = map_from("/etc/subuid", name, user, user), groups = map_from("/etc/subgid", name, user, group);
  // A child that stays outside makes the maps, once this process is inside.
  std::array<int, 2> inside{-1, -1};
  pid_t child = -1;
  if (!users.empty() && !groups.empty() && ::pipe2(inside.data(), O_CLOEXEC) == 0) child = ::fork();
  if (child == 0) {
    ::close(inside[1]);
    char byte = 0;
    if (::read(inside[0], &byte, 1) == 1) {
      run_and_wait("newuidmap", ::getppid(), users);
      run_and_wait("newgidmap", ::getppid(), groups);
    }
    ::_exit(0);
  }
  UniqueFd ours(inside[1]);
  const UniqueFd theirs(inside[0]);
  const bool entered = ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
  const int refusal = errno;
  if (child > 0) {
    if (entered && ::write(ours.get(), "", 1) != 1) return fail_errno(errno, "--root");
    ours = UniqueFd();  // without a word: the child need not do anything
    ::waitpid(child, nullptr, 0);
  }
  if (!entered) {
    return fail_errno(refusal,
                      "--root: needs the right to mount (CAP_SYS_ADMIN), or user namespaces, which this host refuses");
  }
  if (!is_mapped(kUserMap)) {
    if (auto done = write_file(kUserMap, fmt::format("0 {} 1", user)); !done) return done;
  }
  if (is_mapped(kGroupMap)) return {};
  // Without privilege the map of groups can be written only where they cannot be changed.
  if (auto done = write_file("/proc/self/setgroups", "deny"); !done) return done;
  return write_file(kGroupMap, fmt::format("0 {} 1", group));
}

}  // namespace doppel
