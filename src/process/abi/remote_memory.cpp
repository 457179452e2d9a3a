#include "process/abi/remote_memory.h"

#include <array>
#include <cinttypes>
#include <cstdio>
#include <memory>
#include <string>

#include <fmt/format.h>

extern "C" const char __executable_start[];

namespace doppel::process {
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

struct Mapping {
  std::uint64_t start, end, offset;
  std::string file;  // device and inode, as the host prints them
};

// The first mapping for which `wanted` is true.
std::optional<Mapping> find_mapping(const std::string& maps, auto&& wanted) {
  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(maps.c_str(), "re"));
  std::array<char, 8192> line;
  while (file != nullptr && std::fgets(line.data(), line.size(), file.get()) != nullptr) {
    Mapping mapping{};
    int from = 0, to = 0;
    if (std::sscanf(line.data(), "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %n%*s %*s%n", &mapping.start, &mapping.end,
                    &mapping.offset, &from, &to) < 3 || to == 0) {
      continue;
    }
    mapping.file.assign(line.data() + from, static_cast<std::size_t>(to - from));
    if (wanted(mapping)) return mapping;
  }
  return std::nullopt;
}

}  // namespace

std::uint64_t own_executable_base() { return reinterpret_cast<std::uint64_t>(__executable_start); }

std::uint64_t executable_base(pid_t id) {
  static const std::optional<Mapping> ours = find_mapping("/proc/self/maps", [](const Mapping& mapping) {
    return mapping.start <= own_executable_base() && own_executable_base() < mapping.end;
  });
  if (!ours) return 0;
  const auto theirs = find_mapping(fmt::format("/proc/{}/maps", id), [](const Mapping& mapping) {
    return mapping.file == ours->file && mapping.offset == ours->offset;
  });
  return theirs ? theirs->start + (own_executable_base() - ours->start) : 0;
}

}  // namespace doppel::process
