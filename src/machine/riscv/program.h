// What may be put into memory to be started: a Linux `Image`, an ELF executable, a raw binary.
//
// Files come from strangers: every offset in them is checked, and each refusal is a sentence that begins
// with the file's name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "machine/boot/bytes.h"
#include "machine/boot/file.h"
#include "memory/address.h"
#include "memory/guest_memory.h"

namespace doppel::riscv {

struct Program {
  struct Segment {
    GuestPhysical at;
    FileRange bytes;               // inside of `file`
    std::uint64_t size_bytes = 0;  // in memory; beyond `bytes` it is zero
  };

  BootFile file;
  std::vector<Segment> segments;
  GuestPhysicalRange extent;  // covers all the segments
  GuestPhysical entry;
  std::optional<GuestPhysical> tohost;  // the HTIF word, in bare-metal tests
};

enum class RawBinary { kRefuse, kAccept };

// Finds the program in `file`, which may be gzip or EFI-zboot wrapped or plain. An ELF executable says where it
// goes, unless it is position-independent; then, and for a raw binary, it is `base`. A Linux Image goes to
// its text_offset from `image_base` (Linux, Documentation/arch/riscv/boot-image-header.rst).
struct LoadRules {
  GuestPhysical base;
  GuestPhysical image_base;
  RawBinary raw = RawBinary::kRefuse;
  std::uint64_t limit_bytes = 0;  // larger ones cannot fit
};
Result<Program> parse_program(BootFile file, const LoadRules& rules);

// Reads the program to its place in `memory`, which is still all zeros. Fails when it does not fit.
Result<void> place(const Program& program, const GuestMemory& memory);

}  // namespace doppel::riscv
