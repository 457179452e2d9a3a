#include "machine/riscv/program.h"

#include <algorithm>

#include "machine/boot/compression.h"
#include "machine/boot/elf.h"

namespace doppel::riscv {
namespace {

constexpr ElfMachine kElfMachine{243, "RISC-V"};

// Linux's RISC-V image header: code0, code1, then these.
constexpr std::uint64_t kTextOffsetAt = 8, kImageSizeAt = 16, kFlagsAt = 24, kMagicAt = 48, kMagic2At = 56,
                        kPeOffsetAt = 60, kHeaderBytes = 64;
constexpr std::uint64_t kTextOffset32Bit = 0x400000;  // what 32-bit kernels, and only those, ask for

// COFF header fields after "PE\0\0" (Microsoft, "PE Format").
constexpr std::uint32_t kPeSignature = 0x4550;
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
Result<void> check_efi_sections(const BootFile& file) {
  const auto pe_at = file.at<std::uint32_t>(kPeOffsetAt);
  if (!pe_at || *pe_at == 0) return {};
  const std::uint64_t coff = std::uint64_t{*pe_at} + 4;
  const auto signature = file.at<std::uint32_t>(*pe_at);
  const auto machine = file.at<std::uint16_t>(coff);
  const auto section_count = file.at<std::uint16_t>(coff + 2);
  const auto optional_bytes = file.at<std::uint16_t>(coff + 16);
  if (!signature || !machine || !section_count || !optional_bytes) {
    return fail("{}: truncated: its EFI header is not complete", file.name());
  }
  if (*signature != kPeSignature) return {};
  if (*machine != kPeRiscv64) {
    return fail("{}: a kernel for another instruction set (EFI machine {:#x}); this machine is 64-bit RISC-V",
                file.name(), *machine);
  }
  const std::uint64_t table = coff + 20 + *optional_bytes;
  for (std::uint64_t i = 0; i < *section_count; ++i) {
    const auto size = file.at<std::uint32_t>(table + i * 40 + 16);
    const auto offset = file.at<std::uint32_t>(table + i * 40 + 20);
    if (!size || !offset || !file.has({*offset, *size})) {
      return fail("{}: truncated: section {} of the kernel ends beyond the file's {} bytes", file.name(), i,
                  file.size_bytes());
    }
  }
  return {};
}

Result<void> linux_image(Program& program, const LoadRules& rules) {
  const BootFile& file = program.file;
  const auto text_offset = file.at<std::uint64_t>(kTextOffsetAt);
  const auto image_size = file.at<std::uint64_t>(kImageSizeAt);
  const auto flags = file.at<std::uint64_t>(kFlagsAt);
  if (file.size_bytes() < kHeaderBytes) return fail("{}: truncated: its kernel header is not complete", file.name());
  if (*flags & 1) return fail("{}: a big-endian kernel; this machine is little-endian", file.name());
  if (*text_offset == kTextOffset32Bit) return fail("{}: a 32-bit kernel; this machine is 64-bit", file.name());
  if (auto checked = check_efi_sections(file); !checked) return checked;

  // image_size counts .bss too; kernels before 3.17's header revision left it zero.
  const std::uint64_t size = std::max<std::uint64_t>(*image_size, file.size_bytes());
  if (*text_offset > rules.limit_bytes || size > rules.limit_bytes) {
    return fail("{}: needs {} MiB at {} MiB into memory, more than the machine has", file.name(), size >> 20,
                *text_offset >> 20);
  }
  program.entry = rules.image_base + *text_offset;
  program.segments.push_back({program.entry, {0, file.size_bytes()}, size});
  return {};
}

Result<void> elf_program(Program& program, const LoadRules& rules) {
  const auto bytes = program.file.bytes();
  if (!bytes) return std::unexpected(bytes.error());
  const auto elf = ElfFile::parse(*bytes, program.file.name(), kElfMachine);
  if (!elf) return std::unexpected(elf.error());
  if (elf->needs_interpreter()) {
    return fail("{}: a program for Linux, not a kernel; `doppel run` is for programs", program.file.name());
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
  return {};
}

Result<void> raw_binary(Program& program, const LoadRules& rules) {
  program.entry = rules.base;
  program.segments.push_back({rules.base, {0, program.file.size_bytes()}, program.file.size_bytes()});
  return {};
}

// Fills in all but `extent`, by the kind of file that it is.
Result<void> set_segments(Program& program, const LoadRules& rules) {
  const Bytes head = program.file.head();
  if (ElfFile::has_magic(head)) return elf_program(program, rules);
  if (is_linux_image(head)) return linux_image(program, rules);
  if (const auto foreign = foreign_kernel(head)) {
    return fail("{}: {}; this machine is 64-bit RISC-V", program.file.name(), *foreign);
  }
  if (rules.raw == RawBinary::kAccept) return raw_binary(program, rules);
  return fail("{}: not a kernel image (neither a RISC-V Linux Image nor an ELF executable)", program.file.name());
}

Result<void> set_extent(Program& program) {
  std::uint64_t start = ~std::uint64_t{0}, end = 0;
  for (const auto& segment : program.segments) {
    const std::uint64_t segment_end = segment.at.value + segment.size_bytes;
    if (segment_end < segment.at.value) {
      return fail("{}: a segment at {:#x} wraps around the end of memory", program.file.name(), segment.at.value);
    }
    start = std::min(start, segment.at.value);
    end = std::max(end, segment_end);
  }
  program.extent = {{start}, end - start};
  return {};
}

}  // namespace

Result<Program> parse_program(BootFile file, const LoadRules& rules) {
  auto unwrapped = unwrap_kernel(std::move(file), rules.limit_bytes);
  if (!unwrapped) return std::unexpected(unwrapped.error());
  Program program{.file = std::move(*unwrapped), .segments = {}, .extent = {}, .entry = {}, .tohost = {}};
  if (auto set = set_segments(program, rules); !set) return std::unexpected(set.error());
  if (auto set = set_extent(program); !set) return std::unexpected(set.error());
  return program;
}

Result<void> place(const Program& program, const GuestMemory& memory) {
  for (const auto& segment : program.segments) {
    std::byte* at = memory.host(segment.at, segment.bytes.size_bytes);
    if (at == nullptr) return fail("{}: the machine has no memory at {:#x}", program.file.name(), segment.at.value);
    // All of `bytes` is RAM: asked above.
    if (auto read = program.file.read_into(segment.bytes.offset, {at, segment.bytes.size_bytes}); !read) return read;
  }
  return {};
}

}  // namespace doppel::riscv
