#include "process/abi/proc_maps.h"

#include <elf.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include <fmt/format.h>

#include "memory/address.h"
#include "process/abi/linux_process.h"

namespace doppel::process {
namespace {

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

struct Mapping {
  std::uint64_t start = 0, end = 0, offset = 0;
  std::array<char, 8> protection{};
  std::string device;  // and inode
  std::string name;
};

// A line that begins a mapping; nullopt for what smaps says of one.
std::optional<Mapping> parse(const char* line) {
  Mapping mapping;
  int device_at = 0, name_at = 0;
  if (std::sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %n%*s %*s%n", &mapping.start, &mapping.end,
                  mapping.protection.data(), &mapping.offset, &device_at, &name_at) < 4 || name_at == 0) {
    return std::nullopt;
  }
  mapping.device.assign(line + device_at, static_cast<std::size_t>(name_at - device_at));
  std::string_view name(line + name_at);
  while (!name.empty() && (name.front() == ' ' || name.back() == '\n')) {
    name.front() == ' ' ? name.remove_prefix(1) : name.remove_suffix(1);
  }
  mapping.name = name;
  return mapping;
}

std::string row(const Mapping& mapping, std::uint64_t from, std::uint64_t to, int protection, std::string_view label) {
  // The vDSO's pages are no file's, whatever they are to the host.
  const bool is_file = !label.starts_with("[v") && !mapping.device.starts_with("00:00 0");
  const std::string text =
      fmt::format("{:08x}-{:08x} {}{}{}{} {:08x} {}", from, to, (protection & PROT_READ) != 0 ? 'r' : '-',
                  (protection & PROT_WRITE) != 0 ? 'w' : '-', (protection & PROT_EXEC) != 0 ? 'x' : '-',
                  label.starts_with("[v") ? 'p' : mapping.protection[3],
                  is_file ? mapping.offset + (from - mapping.start) : 0, is_file ? mapping.device : "00:00 0");
  return (label.empty() ? text : fmt::format("{:<72} {}", text, label)) + '\n';
}

// The host's labels are its own, but for those that a program gave.
std::string_view label_of(const Mapping& mapping, std::uint64_t from, std::uint64_t vdso) {
  if (from == vdso) return "[vdso]";
  if (from + kPageSize == vdso) return "[vvar]";
  const std::string_view name = mapping.name;
  return name.starts_with('[') && !name.starts_with("[anon") ? std::string_view{} : name;
}

std::uint64_t vdso_of(pid_t id) {
  const File file(std::fopen(fmt::format("/proc/{}/auxv", id).c_str(), "re"));
  std::array<std::uint64_t, 2> entry{};
  while (file != nullptr && std::fread(entry.data(), sizeof entry, 1, file.get()) == 1) {
    if (entry[0] == AT_SYSINFO_EHDR) return entry[1];
  }
  return 0;
}

}  // namespace

std::string own_mappings(const LinuxProcess& process, bool details) {
  const File host(std::fopen(details ? "/proc/self/smaps" : "/proc/self/maps", "re"));
  if (host == nullptr) return {};
  const AddressSpace& space = process.address_space();
  const auto base = reinterpret_cast<std::uint64_t>(space.flat().base);
  const auto regions = space.mappings();
  const auto [heap_start, heap_end] = space.break_range();
  std::string text;
  std::array<char, 8192> line;
  bool shown = false;
  while (std::fgets(line.data(), line.size(), host.get()) != nullptr) {
    auto mapping = parse(line.data());
    if (!mapping) {
      if (shown && std::strncmp(line.data(), "VmFlags:", 8) != 0) text += line.data();
      continue;
    }
    shown = false;
    if (mapping->end <= base || mapping->start >= base + space.flat().size_bytes) continue;
    mapping->start -= base;
    mapping->end -= base;
    for (auto region : regions) {
      // A stack may have grown since it was last looked at.
      if (region.grows && region.end == mapping->end) region.start = std::min(region.start, mapping->start);
      const std::uint64_t from = std::max(mapping->start, region.start), to = std::min(mapping->end, region.end);
      if (from >= to) continue;
      std::string_view label = label_of(*mapping, from, process.image().vdso);
      if (mapping->name.empty() && from >= heap_start && to <= heap_end) label = "[heap]";
      if (region.grows) label = "[stack]";
      text += row(*mapping, from, to, region.protection, label);
      shown = true;
    }
  }
  return text;
}

std::string mappings_of(pid_t id, bool details) {
  // Only this has the flag by which its address space marks code (address_space.cpp).
  const File host(std::fopen(fmt::format("/proc/{}/smaps", id).c_str(), "re"));
  if (host == nullptr) return {};
  const std::uint64_t vdso = vdso_of(id);
  std::string text, rest;
  std::optional<Mapping> mapping;
  std::array<char, 8192> line;
  while (std::fgets(line.data(), line.size(), host.get()) != nullptr) {
    if (auto next = parse(line.data())) {
      if (next->start >= AddressSpace::kLowBytes) break;
      mapping = std::move(next);
      rest.clear();
    } else if (mapping && std::strncmp(line.data(), "VmFlags:", 8) != 0) {
      rest += line.data();
    } else if (mapping) {
      const std::string_view flags(line.data());
      const bool code = flags.contains(" dd"), grows = flags.contains(" gd");
      const auto allows = [&](unsigned i, int what) { return mapping->protection[i] != '-' ? what : 0; };
      const int protection = allows(0, PROT_READ) | allows(1, PROT_WRITE) | (code ? PROT_EXEC : 0);
      text += row(*mapping, mapping->start, mapping->end, protection,
                  grows ? "[stack]" : label_of(*mapping, mapping->start, vdso));
      if (details) text += rest;
      mapping.reset();
    }
  }
  return text;
}

}  // namespace doppel::process
