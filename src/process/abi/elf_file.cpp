#include "process/abi/elf_file.h"

#include <elf.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <cstring>

#include <fmt/format.h>

#include "base/bits.h"
#include "memory/address.h"
#include "process/address_space.h"

namespace doppel::process {
namespace {

constexpr std::uint64_t kMostHeaderBytes = 65536;  // as Linux
constexpr std::uint64_t kMostAlignment = std::uint64_t{1} << 30;

template <class... Args>
std::unexpected<std::string> refuse(fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(fmt::format(format, std::forward<Args>(args)...));
}

std::expected<std::string, std::string> read_interpreter(const ReadAt& read, const Elf64_Phdr& header) {
  if (header.p_filesz < 2 || header.p_filesz > PATH_MAX) return refuse("the name of its interpreter is damaged");
  std::string name(header.p_filesz, '\0');
  if (!read(header.p_offset, name.data(), name.size()) || name.back() != '\0') {
    return refuse("the name of its interpreter is damaged");
  }
  name.resize(std::strlen(name.c_str()));
  return name;
}

bool overlap(std::vector<ElfSegment> segments) {
  std::ranges::sort(segments, {}, &ElfSegment::address);
  return std::ranges::adjacent_find(segments, [](const ElfSegment& a, const ElfSegment& b) {
           return a.address + a.memory_bytes > b.address;
         }) != segments.end();
}

}  // namespace

std::expected<ElfFile, std::string> parse_elf(const ReadAt& read, std::uint64_t file_bytes) {
  constexpr std::uint64_t kSpace = AddressSpace::kLowBytes;
  Elf64_Ehdr elf{};
  if (file_bytes < EI_NIDENT || !read(0, elf.e_ident, EI_NIDENT) || std::memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0) {
    return refuse("not an ELF file");
  }
  if (!read(0, &elf, sizeof elf)) return refuse("its ELF header is truncated");
  if (elf.e_ident[EI_CLASS] == ELFCLASS32 && elf.e_machine == EM_RISCV) {
    return refuse("a program for 32-bit RISC-V; only 64-bit runs");
  }
  if (elf.e_ident[EI_CLASS] != ELFCLASS64 || elf.e_ident[EI_DATA] != ELFDATA2LSB || elf.e_machine != EM_RISCV) {
    return refuse("not a program for 64-bit RISC-V");
  }
  if (elf.e_type != ET_EXEC && elf.e_type != ET_DYN) return refuse("not an executable ELF file");
  const std::uint64_t table_bytes = std::uint64_t{elf.e_phnum} * sizeof(Elf64_Phdr);
  if (elf.e_phentsize != sizeof(Elf64_Phdr) || elf.e_phnum == 0 || table_bytes > kMostHeaderBytes) {
    return refuse("its program headers are damaged");
  }
  std::vector<Elf64_Phdr> table(elf.e_phnum);
  if (elf.e_phoff > file_bytes || table_bytes > file_bytes - elf.e_phoff ||
      !read(elf.e_phoff, table.data(), table_bytes)) {
    return refuse("its program headers lie outside the file");
  }

  ElfFile file;
  file.fixed = elf.e_type == ET_EXEC;
  file.entry = elf.e_entry;
  file.header_count = elf.e_phnum;
  file.alignment = kPageSize;
  file.low = ~std::uint64_t{0};
  for (unsigned i = 0; i < table.size(); ++i) {
    const Elf64_Phdr& header = table[i];
    if (header.p_type == PT_INTERP && !file.interpreter) {
      auto name = read_interpreter(read, header);
      if (!name) return std::unexpected(name.error());
      file.interpreter = std::move(*name);
    }
    if (header.p_type == PT_GNU_STACK) file.executable_stack = (header.p_flags & PF_X) != 0;
    if (header.p_type != PT_LOAD || header.p_memsz == 0) continue;
    if (header.p_filesz > header.p_memsz || header.p_memsz > kSpace || header.p_vaddr > kSpace - header.p_memsz ||
        (header.p_vaddr - header.p_offset) % kPageSize != 0) {
      return refuse("segment {} is damaged", i);
    }
    if (header.p_offset > file_bytes || header.p_filesz > file_bytes - header.p_offset) {
      return refuse("segment {} is truncated", i);
    }
    file.segments.push_back({.address = header.p_vaddr, .memory_bytes = header.p_memsz, .offset = header.p_offset,
                             .file_bytes = header.p_filesz,
                             .protection = ((header.p_flags & PF_R) != 0 ? PROT_READ : 0) |
                                           ((header.p_flags & PF_W) != 0 ? PROT_WRITE : 0) |
                                           ((header.p_flags & PF_X) != 0 ? PROT_EXEC : 0)});
    if (std::has_single_bit(header.p_align)) {
      file.alignment = std::max(file.alignment, std::min<std::uint64_t>(header.p_align, kMostAlignment));
    }
    file.low = std::min(file.low, align_down(header.p_vaddr, kPageSize));
    file.high = std::max(file.high, align_down(header.p_vaddr + header.p_memsz + kPageSize - 1, kPageSize));
    if (elf.e_phoff >= header.p_offset && elf.e_phoff - header.p_offset <= header.p_filesz &&
        table_bytes <= header.p_filesz - (elf.e_phoff - header.p_offset)) {
      file.headers = header.p_vaddr + (elf.e_phoff - header.p_offset);
    }
  }
  if (file.segments.empty()) return refuse("nothing in it is to be loaded");
  if (overlap(file.segments)) return refuse("its segments overlap");
  return file;
}

}  // namespace doppel::process
