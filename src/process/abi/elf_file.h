// The headers of a riscv64 ELF program or interpreter, checked (System V gABI, RISC-V psABI). The file is untrusted;
// what parse_elf() accepts can be mapped without further checks of its numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace doppel::process {

struct ElfSegment {
  std::uint64_t address, memory_bytes;  // where it asks to be, without bias
  std::uint64_t offset, file_bytes;
  int protection;  // PROT_ bits
};

struct ElfFile {
  bool fixed = false;  // its addresses are where it must lie
  std::uint64_t entry = 0;
  std::uint64_t low = 0, high = 0;  // whole pages that its segments span
  std::uint64_t alignment = 0;      // a power of two, at least a page
  std::uint64_t headers = 0;        // address of the program headers; 0: not loaded
  unsigned header_count = 0;
  bool executable_stack = false;
  std::vector<ElfSegment> segments;
  std::optional<std::string> interpreter;
};

// Fills `bytes` bytes from `offset` of the file; false when it has fewer.
using ReadAt = std::function<bool(std::uint64_t offset, void* into, std::size_t bytes)>;

// The error goes behind "FILE: ".
std::expected<ElfFile, std::string> parse_elf(const ReadAt& read, std::uint64_t file_bytes);

}  // namespace doppel::process
