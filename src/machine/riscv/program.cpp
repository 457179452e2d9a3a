#include "machine/riscv/program.h"

#include <algorithm>

#include "machine/boot/compression.h"
#include "machine/boot/elf.h"
#include "machine/boot/file.h"

namespace doppel::riscv {
namespace {

constexpr ElfMachine kElfMachine{243, "RISC-V"};

// Linux's RISC-V image header: code0, code1, then these.
constexpr std::uint64_t kTextOffsetAt = 8, kImageSizeAt = 16, kFlagsAt = 24, kMagicAt = 48, kMagic2At = 56,
                        kPeOffsetAt = 60, kHeaderBytes = 64;
constexpr std::uint64_t kTextOffset32Bit = 0x400000;  // what 32-bit kernels, and only those, ask for

// COFF header fields after "PE\0\0" (Microsoft, "PE Format").
constexpr std::uint16_t kPeRiscv64 = 0x5064;

bool is_linux_image(Bytes file) {
  return has_text_at(file, kMagic2At, "RSC\x05") || has_text_at(file, kMagicAt, "RISCV");
}

// What foreign kernels look like, for a better sentence than "not a kernel image".
std::optional<std::string_view> foreign_kernel(Bytes file) {
  if (has_text_at(file, 0x38, "ARM\x64")) return "a Linux kernel for AArch64";
  if (has_text_at(file, 0x202, "HdrS")) return "a Linux kernel for x86";
  if (has_text_at(file, 0x24, "\x18\x28\x6f\x01")) return "a Linux kernel for 32-bit Arm";
  if (has_text_at(file, 0x38, "\xcd\x23\x82\x81")) return "a Linux kernel for LoongArch";
  return std::nullopt;
}

// The end of the last section of the image's EFI form: a shorter file is not all of the image.
Result<void> check_efi_sections(Bytes file, const std::string& name) {
  const auto pe_at = read_at<std::uint32_t>(file, kPeOffsetAt);
  if (!pe_at || *pe_at == 0) return {};
  const std::uint64_t coff = std::uint64_t{*pe_at} + 4;
  const auto machine = read_at<std::uint16_t>(file, coff);
  const auto section_count = read_at<std::uint16_t>(file, coff + 2);
  const auto optional_bytes = read_at<std::uint16_t>(file, coff + 16);
  if (!machine || !section_count || !optional_bytes) return fail("{}: truncated: its EFI header is not complete", name);
  if (!has_text_at(file, *pe_at, std::string_view("PE\0\0", 4))) return {};
  if (*machine != kPeRiscv64) {
    return fail("{}: a kernel for another instruction set (EFI machine {:#x}); this machine is 64-bit RISC-V", name,
                *machine);
  }
  const std::uint64_t table = coff + 20 + *optional_bytes;
  for (std::uint64_t i = 0; i < *section_count; ++i) {
    const auto size = read_at<std::uint32_t>(file, table + i * 40 + 16);
    const auto offset = read_at<std::uint32_t>(file, table + i * 40 + 20);
    if (!size || !offset || !slice(file, *offset, *size)) {
      return fail("{}: truncated: section {} of the kernel ends beyond the file's {} bytes", name, i, file.size());
    }
  }
  return {};
}

Result<Program> linux_image(Program program, const LoadRules& rules) {
  const Bytes file = program.file;
  const auto text_offset = read_at<std::uint64_t>(file, kTextOffsetAt);
  const auto image_size = read_at<std::uint64_t>(file, kImageSizeAt);
  const auto flags = read_at<std::uint64_t>(file, kFlagsAt);
  if (file.size() < kHeaderBytes) return fail("{}: truncated: its kernel header is not complete", program.name);
  if (*flags & 1) return fail("{}: a big-endian kernel; this machine is little-endian", program.name);
  if (*text_offset == kTextOffset32Bit) return fail("{}: a 32-bit kernel; this machine is 64-bit", program.name);
  if (auto checked = check_efi_sections(file, program.name); !checked) return std::unexpected(checked.error());

  // image_size counts .bss too; kernels before 3.17's header revision left it zero.
  const std::uint64_t size = std::max<std::uint64_t>(*image_size, file.size());
  if (*text_offset > rules.limit_bytes || size > rules.limit_bytes) {
    return fail("{}: needs {} MiB at {} MiB into memory, more than the machine has", program.name, size >> 20,
                *text_offset >> 20);
  }
  program.entry = rules.image_base + *text_offset;
  program.segments.push_back({program.entry, file, size});
  return program;
}

Result<Program> elf_program(Program program, const LoadRules& rules) {
  const auto elf = ElfFile::parse(program.file, program.name, kElfMachine);
  if (!elf) return std::unexpected(elf.error());
  if (elf->needs_interpreter()) {
    return fail("{}: a program for Linux, not a kernel; `doppel run` is for programs", program.name);
  }
  std::uint64_t lowest = ~std::uint64_t{0};
  for (const auto& segment : elf->segments()) lowest = std::min(lowest, segment.physical_address);
  // Linked at zero (as vmlinux is): goes wherever the loader likes.
  const std::uint64_t slide = elf->position_independent() || lowest == 0 ? rules.base.value - lowest : 0;
  for (const auto& segment : elf->segments()) {
    program.segments.push_back({{segment.physical_address + slide}, segment.bytes, segment.size_bytes});
  }
  program.entry = {elf->physical_entry() + slide};
  if (const auto tohost = elf->symbol("tohost")) program.tohost = GuestPhysical{*tohost + slide};
  return program;
}

Result<void> set_extent(Program& program) {
  std::uint64_t start = ~std::uint64_t{0}, end = 0;
  for (const auto& segment : program.segments) {
    const std::uint64_t segment_end = segment.at.value + segment.size_bytes;
    if (segment_end < segment.at.value) {
      return fail("{}: a segment at {:#x} wraps around the end of memory", program.name, segment.at.value);
    }
    start = std::min(start, segment.at.value);
    end = std::max(end, segment_end);
  }
  program.extent = {{start}, end - start};
  return {};
}

}  // namespace

Result<Program> parse_program(std::vector<std::byte> file, const std::string& name, const LoadRules& rules) {
  auto unwrapped = unwrap_kernel(std::move(file), name, rules.limit_bytes);
  if (!unwrapped) return std::unexpected(unwrapped.error());

  Program raw;
  raw.name = name;
  raw.file = std::move(*unwrapped);
  const Bytes bytes = raw.file;

  Result<Program> program = [&]() -> Result<Program> {
    if (ElfFile::has_magic(bytes)) return elf_program(std::move(raw), rules);
    if (is_linux_image(bytes)) return linux_image(std::move(raw), rules);
    if (const auto foreign = foreign_kernel(bytes)) {
      return fail("{}: {}; this machine is 64-bit RISC-V", name, *foreign);
    }
    if (rules.raw == RawBinary::kRefuse) {
      return fail("{}: not a kernel image (neither a RISC-V Linux Image nor an ELF executable)", name);
    }
    raw.entry = rules.base;
    raw.segments.push_back({rules.base, bytes, bytes.size()});
    return std::move(raw);
  }();
  if (!program) return program;
  if (auto set = set_extent(*program); !set) return std::unexpected(set.error());
  return program;
}

Result<Program> read_program(const std::string& path, const LoadRules& rules) {
  auto file = read_file(path, rules.limit_bytes);
  if (!file) return std::unexpected(file.error());
  return parse_program(std::move(*file), path, rules);
}

Result<void> place(const Program& program, const GuestMemory& memory) {
  for (const auto& segment : program.segments) {
    if (!memory.write(segment.at, segment.bytes)) {
      return fail("{}: the machine has no memory at {:#x}", program.name, segment.at.value);
    }
  }
  return {};
}

}  // namespace doppel::riscv
