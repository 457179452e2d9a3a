#include "run/binfmt.h"

#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/mount.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>

#include <fmt/format.h>

#include "base/report.h"
#include "base/unique_fd.h"

namespace doppel {
namespace {

constexpr const char* kFolder = "/proc/sys/fs/binfmt_misc";
constexpr const char* kName = "doppel-riscv64";
// A 64-bit little-endian ELF file, executable or shared, for RISC-V; the operating system's ABI may be any.
constexpr std::string_view kMagic =
    R"(\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xf3\x00)";
constexpr std::string_view kMask =
    R"(\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff)";
// As the kernel shows it.
constexpr std::string_view kShownMagic = "magic 7f454c460201010000000000000000000200f300";
// Preserve argv[0]; hand over an open file, so that one need not be readable; take credentials from the program; and
// open ourselves now, so that we need not be there in another root.
constexpr std::string_view kFlags = "POCF";

constexpr const char* kHelp =
    "Have the host's kernel run riscv64 programs by Doppel, in chroots and containers too\n"
    "Usage: doppel binfmt install|remove|status [--json]\n\n"
    "  install     Register this program for riscv64 files, until the host restarts or it is removed. Needs root\n"
    "  remove      Take that back. Needs root\n"
    "  status      Tell what is registered; --json: as one JSON object\n"
    "\n"
    "Exit status: 0; 2 for a mistake in the command line, 125 when it cannot be done.\n"
    "\n"
    "Example: sudo doppel binfmt install && sudo chroot debian-riscv64 uname -m\n";

std::string path_of(const std::string& name) { return fmt::format("{}/{}", kFolder, name); }

Result<void> write_to(const std::string& path, std::string_view text) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd || ::write(fd.get(), text.data(), text.size()) < 0) return fail_errno(errno, "{}", path);
  return {};
}

std::string content(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

bool mounted() { return ::access(path_of("register").c_str(), F_OK) == 0; }
bool registered() { return ::access(path_of(kName).c_str(), F_OK) == 0; }

Result<void> needs_root(const Result<void>& done, std::string_view what) {
  if (done || ::geteuid() == 0) return done;
  return fail("binfmt {}: {}; it needs root", what, done.error().message);
}

Result<void> remove() {
  if (!mounted() || !registered()) return {};
  return needs_root(write_to(path_of(kName), "-1"), "remove");
}

Result<void> install() {
  if (!mounted() && ::mount("binfmt_misc", kFolder, "binfmt_misc", 0, nullptr) != 0) {
    return needs_root(fail_errno(errno, "binfmt_misc cannot be mounted at {}", kFolder), "install");
  }
  std::array<char, PATH_MAX> self{};
  if (::readlink("/proc/self/exe", self.data(), self.size() - 1) <= 0) return fail_errno(errno, "/proc/self/exe");
  constexpr std::size_t kMostPath = 127;
  if (std::strlen(self.data()) > kMostPath || std::strchr(self.data(), ':') != nullptr) {
    return fail("binfmt install: {}: the kernel wants a path without colons of at most {} bytes", self.data(),
                kMostPath);
  }
  if (auto removed = remove(); !removed) return removed;
  return needs_root(write_to(path_of("register"), binfmt_registration(self.data())), "install");
}

std::string field(const std::string& entry, std::string_view name) {
  const std::size_t at = entry.find(std::string("\n") + std::string(name));
  if (at == entry.npos) return {};
  const std::size_t start = at + 1 + name.size();
  return entry.substr(start, entry.find('\n', start) - start);
}

std::string json_text(std::string_view text) {
  std::string json = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') json += '\\';
    if (static_cast<unsigned char>(c) < 0x20) {
      json += fmt::format("\\u{:04x}", c);
    } else {
      json += c;
    }
  }
  return json + '"';
}

void status(bool json) {
  const std::string entry = registered() ? content(path_of(kName)) : "";
  const bool enabled = entry.starts_with("enabled") && content(path_of("status")).starts_with("enabled");
  const std::string interpreter = field(entry, "interpreter "), flags = field(entry, "flags: ");
  std::vector<std::string> others;
  if (mounted()) {
    for (const auto& each : std::filesystem::directory_iterator(kFolder)) {
      if (each.path().filename() != kName && content(each.path()).contains(kShownMagic)) {
        others.push_back(each.path().filename());
      }
    }
  }
  if (json) {
    std::string list;
    for (const std::string& other : others) list += (list.empty() ? "" : ", ") + json_text(other);
    fmt::print("{{\"supported\": {}, \"registered\": {}, \"enabled\": {}, \"interpreter\": {}, \"flags\": {}, "
               "\"others\": [{}]}}\n",
               mounted(), !entry.empty(), enabled, json_text(interpreter), json_text(flags), list);
    return;
  }
  if (!mounted()) {
    fmt::print("binfmt_misc is not mounted, so nothing is registered; doppel binfmt install mounts it\n");
  } else if (entry.empty()) {
    fmt::print("riscv64 programs are not registered\n");
  } else {
    fmt::print("riscv64 programs are run by {}{}\n", interpreter, enabled ? "" : ", but that is disabled");
  }
  for (const std::string& other : others) fmt::print("{} is registered for them, too; the last one wins\n", other);
}

}  // namespace

std::string binfmt_registration(const std::string& interpreter) {
  return fmt::format(":{}:M:0:{}:{}:{}:{}", kName, kMagic, kMask, interpreter, kFlags);
}

int run_binfmt(int argc, const char* const* argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  const bool json = argc == 3 && std::string_view(argv[2]) == "--json";
  if (command == "--help" || command == "-h") {
    fmt::print("{}", kHelp);
    return 0;
  }
  const bool known = command == "install" || command == "remove" || command == "status";
  if (!known || argc > (command == "status" && json ? 3 : 2)) {
    report({"binfmt: install, remove or status [--json]? (doppel binfmt --help)"});
    return kExitUsage;
  }
  if (command == "status") {
    status(json);
    return 0;
  }
  const Result<void> done = command == "install" ? install() : remove();
  if (!done) {
    report(done.error());
    return kExitFailure;
  }
  return 0;
}

std::optional<BinfmtStart> binfmt_start(int argc, const char* const* argv) {
  errno = 0;
  const unsigned long fd = ::getauxval(AT_EXECFD);
  if (errno != 0 || argc < 2) return std::nullopt;
  constexpr unsigned long kPreserved = 1;  // AT_FLAGS_PRESERVE_ARGV0
  const bool preserved = (::getauxval(AT_FLAGS) & kPreserved) != 0 && argc > 2;
  BinfmtStart start{static_cast<int>(fd), argv[1], {}};
  start.arguments.assign(argv + (preserved ? 2 : 1), argv + argc);
  return start;
}

}  // namespace doppel
