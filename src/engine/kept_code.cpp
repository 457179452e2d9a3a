#include "engine/kept_code.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <string_view>

#include <fmt/format.h>

#include "translator/code_archive.h"

namespace doppel {
namespace {

// Not of a set-user-ID program, whose user may not write where it may.
std::string_view variable(const char* name) {
  const char* value = ::secure_getenv(name);
  return value == nullptr ? "" : value;
}

// Makes it with the folders above it; nothing, and errno, for what is not a folder of the user's own.
UniqueFd open_folder(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd && errno == ENOENT) {
    for (std::size_t end = path.find('/', 1); end != path.npos; end = path.find('/', end + 1)) {
      ::mkdir(path.substr(0, end).c_str(), 0700);
    }
    ::mkdir(path.c_str(), 0700);
    fd = UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return {};
  if (status.st_uid == ::geteuid() && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0) return fd;
  errno = EPERM;
  return {};
}

}  // namespace

Result<UniqueFd> open_code_folder(const std::optional<std::string>& wanted) {
  const std::string asked(wanted ? std::string_view(*wanted) : variable(kCodeCacheVariable));
  if (asked == kNoCodeCache) return UniqueFd();
  if (!asked.empty()) {
    UniqueFd fd = open_folder(asked);
    if (!fd) return fail_errno(errno, "--code-cache: {} is no folder that only you may write to", asked);
    return fd;
  }
  const std::string_view own = variable("DOPPEL_CACHE"), caches = variable("XDG_CACHE_HOME"), home = variable("HOME");
  if (own.starts_with('/')) return open_folder(std::string(own) + "/code");
  if (caches.starts_with('/')) return open_folder(std::string(caches) + "/doppel/code");
  if (home.starts_with('/')) return open_folder(std::string(home) + "/.cache/doppel/code");
  return UniqueFd();
}

std::shared_ptr<CodeArchive> open_code_archive(int folder, std::span<const std::byte> identity) {
  const x64::HostFeatures features = x64::HostFeatures::detect();
  const std::array parts{identity, std::as_bytes(std::span(&features, 1))};
  const auto key = CodeArchive::key_of(parts);
  return key ? std::make_shared<CodeArchive>(folder, *key) : nullptr;
}

void write_code_archive(CodeArchive& archive) { archive.write(); }

MachineCode open_machine_code(int folder, std::string_view isa) {
  const auto open = [&](std::string_view what) {
    const std::string identity = fmt::format("{} {}", what, isa);
    return open_code_archive(folder, std::as_bytes(std::span(identity)));
  };
  return {open("machine"), open("shadows")};
}

void write_machine_code(const MachineCode& code) {
  for (const auto& archive : {code.paged, code.shadows}) {
    if (archive != nullptr) archive->write();
  }
}

}  // namespace doppel
