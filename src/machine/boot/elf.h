// Reads 64-bit little-endian ELF executables: segments, entry point, symbols (System V gABI, chapters 4, 5).
//
// Holds views into the file's bytes, which must outlive it. Every offset of the file is checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "machine/boot/bytes.h"

namespace doppel {

struct ElfMachine {
  std::uint16_t number;   // e_machine
  std::string_view name;  // for sentences: "RISC-V"
};

class ElfFile {
 public:
  struct Segment {
    std::uint64_t virtual_address = 0;
    std::uint64_t physical_address = 0;
    FileRange bytes;                 // what the file gives, inside of it
    std::uint64_t size_bytes = 0;    // in memory, at least bytes.size_bytes; the rest is zero
  };

  static bool has_magic(Bytes file) { return has_text_at(file, 0, "\x7f" "ELF"); }

  // `name` begins the sentences about what is wrong with `file`.
  static Result<ElfFile> parse(Bytes file, const std::string& name, ElfMachine machine);

  const std::vector<Segment>& segments() const { return segments_; }  // PT_LOAD with memory, at least one
  bool position_independent() const { return position_independent_; }
  bool needs_interpreter() const { return needs_interpreter_; }  // PT_INTERP: a program of an OS

  // Where the entry point is in physical memory: e_entry is virtual, in a kernel far from physical.
  std::uint64_t physical_entry() const;

  // The value of the symbol called `name`, if the file has a symbol table that has it.
  std::optional<std::uint64_t> symbol(std::string_view name) const;

 private:
  Bytes file_;
  std::vector<Segment> segments_;
  std::uint64_t entry_ = 0;
  bool position_independent_ = false;
  bool needs_interpreter_ = false;
};

}  // namespace doppel
