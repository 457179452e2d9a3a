#include "process/abi/paths.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cinttypes>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>

#include <fmt/format.h>

#include "base/unique_fd.h"
#include "process/abi/linux_process.h"
#include "process/abi/proc_maps.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

constexpr std::string_view kProc = "/proc/";

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// A number and the slash behind it.
bool take_number(std::string_view& text, int& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return take(text, "/");
}

// "maps" for /proc/self/maps, /proc/PID/task/TID/maps and so on, if that is us; empty otherwise.
std::string_view own_entry(std::string_view path) {
  if (!take(path, kProc)) return {};
  int number = 0;
  if (!take(path, "self/") && !take(path, "thread-self/")) {
    // Threads of ours have entries by their own numbers, too, but nobody looks there.
    if (!take_number(path, number) || (number != ::getpid() && number != ::gettid())) return {};
  }
  if (take(path, "task/") && !take_number(path, number)) return {};
  return path;
}

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

// "maps" of another process, and which one, for a path as own_entry() has it.
std::string_view other_entry(std::string_view path, pid_t& pid) {
  if (!take(path, kProc) || !take_number(path, pid)) return {};
  if (take(path, "task/") && !take_number(path, pid)) return {};
  return path;
}

bool is_doppel(pid_t pid) {
  struct stat ours {}, theirs {};
  return ::stat("/proc/self/exe", &ours) == 0 && ::stat(fmt::format("/proc/{}/exe", pid).c_str(), &theirs) == 0 &&
         ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev;
}

std::string processors(unsigned address_bits) {
  std::string text;
  const long count = ::sysconf(_SC_NPROCESSORS_ONLN);
  for (long i = 0; i < count; ++i) {
    text += fmt::format("processor\t: {0}\nhart\t\t: {0}\nisa\t\t: {1}\nmmu\t\t: sv{2}\nmvendorid\t: 0x0\nmarchid\t\t: 0x0\n"
                        "mimpid\t\t: 0x0\nhart isa\t: {1}\n\n",
                        i, riscv::IsaConfig::rva22().isa_string(), address_bits);
  }
  return text;
}

std::int64_t descriptor_of(const std::string& text, int flags) {
  if ((flags & O_ACCMODE) != O_RDONLY) return -EACCES;
  UniqueFd fd(::memfd_create("proc", (flags & O_CLOEXEC) != 0 ? MFD_CLOEXEC : 0));
  if (!fd) return -errno;
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) return -EIO;
  // Opened anew, so that it is read-only as the guest's descriptor, with a position of its own.
  const int again = ::open(fmt::format("/proc/self/fd/{}", fd.get()).c_str(), O_RDONLY | (flags & O_CLOEXEC));
  return again < 0 ? -errno : again;
}

}  // namespace

std::optional<std::string> program_link(const LinuxProcess& process, const std::string& path) {
  if (!path.ends_with("/exe")) return std::nullopt;
  if (own_entry(path) == "exe") return process.image().path;
  pid_t pid = 0;
  if (other_entry(path, pid) != "exe") return std::nullopt;
  if (!is_doppel(pid)) return std::nullopt;
  // The program is the first file in its memory, as its interpreter lies higher.
  const std::unique_ptr<std::FILE, CloseFile> maps(std::fopen(fmt::format("/proc/{}/maps", pid).c_str(), "re"));
  std::array<char, 8192> line;
  while (maps != nullptr && std::fgets(line.data(), line.size(), maps.get()) != nullptr) {
    std::uint64_t start = 0;
    int name_at = 0;
    if (std::sscanf(line.data(), "%" SCNx64 "-%*x %*s %*x %*s %*s %n", &start, &name_at) < 1 || name_at == 0 ||
        start >= AddressSpace::kLowBytes) {
      break;
    }
    if (line[static_cast<std::size_t>(name_at)] != '/') continue;
    std::string name(line.data() + name_at);
    if (name.ends_with('\n')) name.pop_back();
    return name;
  }
  return std::nullopt;
}

std::optional<std::string> proc_path(const LinuxProcess& p, int directory, u64 gva) {
  // Most paths are of no interest, and their first bytes tell.
  const auto head = p.get<std::array<char, 6>>(gva);
  if (head && head->front() == '/' && std::string_view(head->data(), head->size()) != kProc) return std::nullopt;
  auto path = text_at(p, gva);
  if (!path || path->empty()) return std::nullopt;
  const std::size_t slash = path->rfind('/');
  const std::string name = path->substr(slash + 1);
  constexpr std::array<std::string_view, 5> kViews{"cpuinfo", "exe", "maps", "mem", "smaps"};
  if (std::ranges::find(kViews, name) == kViews.end()) return std::nullopt;
  if (path->front() != '/') {
    const std::string from = directory == AT_FDCWD ? "/proc/self/cwd/" : fmt::format("/proc/self/fd/{}/", directory);
    path = from + *path;
  } else if (own_entry(*path) == name) {
    return path;
  }
  // Whichever way it leads there: by descriptors, other links, dots.
  std::array<char, PATH_MAX> folder;
  if (::realpath(path->substr(0, path->rfind('/') + 1).c_str(), folder.data()) == nullptr) return std::nullopt;
  std::string found = fmt::format("{}/{}", folder.data(), name);
  if (!found.starts_with(kProc)) return std::nullopt;
  return found;
}

std::optional<std::string> other_path(const LinuxProcess& p, int directory, u64 gva) {
  const auto path = proc_path(p, directory, gva);
  return path ? program_link(p, *path) : library_path(p, gva);
}

std::optional<std::string> library_path(const LinuxProcess& p, u64 gva) {
  const std::string& prefix = p.options().program.library_prefix;
  if (prefix.empty()) return std::nullopt;
  const auto path = text_at(p, gva);
  if (!path || path->empty() || path->front() != '/' || path->starts_with(kProc)) return std::nullopt;
  std::string prefixed = prefix + *path;
  if (::access(prefixed.c_str(), F_OK) != 0) return std::nullopt;
  return prefixed;
}

std::optional<pid_t> memory_owner(const std::string& path) {
  std::string_view rest = path;
  int pid = ::getpid();
  if (!take(rest, kProc)) return std::nullopt;
  if (!take(rest, "self/") && !take(rest, "thread-self/") && !take_number(rest, pid)) return std::nullopt;
  if (take(rest, "task/") && !take_number(rest, pid)) return std::nullopt;
  if (rest != "mem") return std::nullopt;
  return pid;
}

std::optional<std::int64_t> open_view(const LinuxProcess& process, const std::string& path, int flags) {
  const std::string_view entry = own_entry(path);
  if (entry == "maps") return descriptor_of(own_mappings(process, false), flags);
  if (entry == "smaps") return descriptor_of(own_mappings(process, true), flags);
  pid_t pid = 0;
  const std::string_view other = other_entry(path, pid);
  if ((other == "maps" || other == "smaps") && is_doppel(pid)) {
    return descriptor_of(mappings_of(pid, other == "smaps"), flags);
  }
  if (path == "/proc/cpuinfo") return descriptor_of(processors(process.options().address_bits), flags);
  return std::nullopt;
}

}  // namespace doppel::process
