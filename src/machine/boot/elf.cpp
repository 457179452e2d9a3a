#include "machine/boot/elf.h"

#include <elf.h>

#include "base/bits.h"

namespace doppel {
namespace {

std::string_view machine_name(std::uint16_t machine) {
  switch (machine) {
    case EM_386: return "32-bit x86";
    case EM_X86_64: return "x86-64";
    case EM_ARM: return "32-bit Arm";
    case EM_AARCH64: return "AArch64";
    case EM_RISCV: return "RISC-V";
    case EM_PPC64: return "POWER";
    case EM_S390: return "s390x";
    case EM_MIPS: return "MIPS";
    default: return "another";
  }
}

}  // namespace

Result<ElfFile> ElfFile::parse(Bytes file, const std::string& name, ElfMachine machine) {
  const auto ident_class = read_at<std::uint8_t>(file, EI_CLASS);
  const auto ident_data = read_at<std::uint8_t>(file, EI_DATA);
  if (!ident_class || !ident_data) return fail("{}: truncated: its ELF header is not complete", name);
  if (*ident_data != ELFDATA2LSB) return fail("{}: a big-endian ELF file; {} is little-endian", name, machine.name);
  // e_machine stands at the same place in both classes: the sentence can be about the ISA first.
  const auto e_machine = read_at<std::uint16_t>(file, offsetof(Elf64_Ehdr, e_machine));
  if (e_machine && *e_machine != machine.number) {
    return fail("{}: an ELF file for the {} instruction set (e_machine {}); this machine is {}", name,
                machine_name(*e_machine), *e_machine, machine.name);
  }
  if (*ident_class != ELFCLASS64) return fail("{}: a 32-bit ELF file; this machine is 64-bit", name);
  const auto header = read_at<Elf64_Ehdr>(file, 0);
  if (!header) return fail("{}: truncated: its ELF header is not complete", name);
  if (header->e_type != ET_EXEC && header->e_type != ET_DYN) {
    return fail("{}: an ELF file that is not an executable (e_type {})", name, header->e_type);
  }
  if (header->e_phentsize != sizeof(Elf64_Phdr)) {
    return fail("{}: its ELF program headers have {} bytes each, not {}", name, header->e_phentsize,
                sizeof(Elf64_Phdr));
  }

  ElfFile elf;
  elf.file_ = file;
  elf.entry_ = header->e_entry;
  elf.position_independent_ = header->e_type == ET_DYN;
  for (std::uint64_t i = 0; i < header->e_phnum; ++i) {
    // e_phoff is the file's word: let a sum that wraps fail the bounds check.
    const std::uint64_t at = header->e_phoff + i * sizeof(Elf64_Phdr);
    const auto segment = at >= header->e_phoff ? read_at<Elf64_Phdr>(file, at) : std::nullopt;
    if (!segment) return fail("{}: truncated: ELF program header {} is outside the file", name, i);
    if (segment->p_type == PT_INTERP) elf.needs_interpreter_ = true;
    if (segment->p_type != PT_LOAD || segment->p_memsz == 0) continue;
    if (!slice(file, segment->p_offset, segment->p_filesz)) {
      return fail("{}: truncated: ELF segment {} ({} bytes at offset {:#x}) is outside the file", name, i,
                  segment->p_filesz, segment->p_offset);
    }
    if (segment->p_filesz > segment->p_memsz) {
      return fail("{}: ELF segment {} is larger in the file than in memory", name, i);
    }
    elf.segments_.push_back({segment->p_vaddr, segment->p_paddr, {segment->p_offset, segment->p_filesz}, segment->p_memsz});
  }
  if (elf.segments_.empty()) return fail("{}: an ELF file without anything to load", name);
  return elf;
}

std::uint64_t ElfFile::physical_entry() const {
  for (const Segment& segment : segments_) {
    const std::uint64_t offset = entry_ - segment.virtual_address;
    if (entry_ >= segment.virtual_address && offset < segment.size_bytes) {
      return segment.physical_address + offset;
    }
  }
  return entry_;
}

std::optional<std::uint64_t> ElfFile::symbol(std::string_view name) const {
  const auto header = read_at<Elf64_Ehdr>(file_, 0);
  if (!header || header->e_shentsize != sizeof(Elf64_Shdr)) return std::nullopt;
  const auto sections = slice(file_, header->e_shoff, std::uint64_t{header->e_shnum} * sizeof(Elf64_Shdr));
  if (!sections) return std::nullopt;
  for (std::uint64_t i = 0; i < header->e_shnum; ++i) {
    const auto table = read_at<Elf64_Shdr>(*sections, i * sizeof(Elf64_Shdr));
    if (!table || table->sh_type != SHT_SYMTAB) continue;
    const auto strings_header = read_at<Elf64_Shdr>(*sections, std::uint64_t{table->sh_link} * sizeof(Elf64_Shdr));
    const auto symbols = slice(file_, table->sh_offset, table->sh_size);
    if (!strings_header || !symbols) continue;
    const auto strings = slice(file_, strings_header->sh_offset, strings_header->sh_size);
    if (!strings) continue;
    for (std::uint64_t at = 0; at + sizeof(Elf64_Sym) <= symbols->size(); at += sizeof(Elf64_Sym)) {
      const auto symbol = read_at<Elf64_Sym>(*symbols, at);
      if (has_text_at(*strings, symbol->st_name, name) &&
          read_at<char>(*strings, symbol->st_name + name.size()) == '\0') {
        return symbol->st_value;
      }
    }
  }
  return std::nullopt;
}

}  // namespace doppel
