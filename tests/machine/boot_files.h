// Makes the files that machines boot from: ELF executables, Linux images, gzip members; and temporary files.
#pragma once

#include <elf.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

namespace doppel::test {

using File = std::vector<std::byte>;

template <class T>
void put(File& file, std::uint64_t offset, const T& value) {
  if (file.size() < offset + sizeof value) file.resize(offset + sizeof value);
  std::memcpy(file.data() + offset, &value, sizeof value);
}

inline File file_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// An executable of one segment, which holds `code` and 16 zero bytes after it, and a symbol `tohost` if wanted.
struct ElfSpec {
  std::uint64_t virtual_address = 0x8000'0000;
  std::uint64_t physical_address = 0x8000'0000;
  std::uint16_t type = ET_EXEC;
  std::uint16_t machine = EM_RISCV;
  std::vector<std::uint32_t> code = {0x0000006f};  // j .
  std::optional<std::uint64_t> tohost = {};
};

inline constexpr std::uint64_t kElfSegmentAt = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr);

inline File make_elf(const ElfSpec& spec = {}) {
  File file;
  const std::uint64_t code_bytes = spec.code.size() * sizeof(std::uint32_t);
  Elf64_Ehdr header{};
  std::memcpy(header.e_ident, ELFMAG, SELFMAG);
  header.e_ident[EI_CLASS] = ELFCLASS64;
  header.e_ident[EI_DATA] = ELFDATA2LSB;
  header.e_type = spec.type;
  header.e_machine = spec.machine;
  header.e_entry = spec.virtual_address;
  header.e_phoff = sizeof header;
  header.e_phentsize = sizeof(Elf64_Phdr);
  header.e_phnum = 1;
  header.e_shentsize = sizeof(Elf64_Shdr);
  Elf64_Phdr segment{};
  segment.p_type = PT_LOAD;
  segment.p_offset = kElfSegmentAt;
  segment.p_vaddr = spec.virtual_address;
  segment.p_paddr = spec.physical_address;
  segment.p_filesz = code_bytes;
  segment.p_memsz = code_bytes + 16;
  put(file, header.e_phoff, segment);
  for (std::size_t i = 0; i < spec.code.size(); ++i) put(file, kElfSegmentAt + 4 * i, spec.code[i]);
  if (spec.tohost) {
    const char names[] = "\0tohost";
    const std::uint64_t names_at = file.size(), symbols_at = names_at + 8, sections_at = symbols_at + 24;
    for (std::uint64_t i = 0; i < 8; ++i) put(file, names_at + i, names[i]);
    Elf64_Sym symbol{};
    symbol.st_name = 1;
    symbol.st_value = *spec.tohost;
    put(file, symbols_at, symbol);
    Elf64_Shdr table{}, strings{};
    table.sh_type = SHT_SYMTAB;
    table.sh_offset = symbols_at;
    table.sh_size = sizeof symbol;
    table.sh_link = 1;
    strings.sh_offset = names_at;
    strings.sh_size = 8;
    put(file, sections_at, table);
    put(file, sections_at + sizeof table, strings);
    header.e_shoff = sections_at;
    header.e_shnum = 2;
  }
  put(file, 0, header);
  return file;
}

// A Linux Image of `size` bytes whose header says `image_size`.
inline File make_image(std::size_t size = 4096, std::uint64_t image_size = 8192, std::uint64_t text_offset = 0x20'0000) {
  File file(size);
  put(file, 8, text_offset);
  put(file, 16, image_size);
  std::memcpy(file.data() + 48, "RISCV\0\0\0RSC\x05", 12);
  return file;
}

// Its EFI form, with one section over all of it but the header.
inline File make_efi_image(std::uint16_t machine = 0x5064) {
  File file = make_image();
  put(file, 60, std::uint32_t{64});
  std::memcpy(file.data() + 64, "PE\0\0", 4);
  put(file, 68, machine);
  put(file, 70, std::uint16_t{1});
  const std::uint64_t section = 68 + 20;
  put(file, section + 16, static_cast<std::uint32_t>(file.size() - 512));
  put(file, section + 20, std::uint32_t{512});
  return file;
}

inline File gzip(const File& file) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  File packed(deflateBound(&stream, file.size()) + 64);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(file.data()));
  stream.avail_in = static_cast<uInt>(file.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

// A file in the file system for as long as the object lives.
class TemporaryFile {
 public:
  explicit TemporaryFile(const File& contents) {
    char name[] = "/tmp/doppel-test-XXXXXX";
    const int fd = ::mkstemp(name);
    EXPECT_GE(fd, 0);
    ::close(fd);
    path_ = name;
    std::ofstream(path_, std::ios::binary).write(reinterpret_cast<const char*>(contents.data()),
                                                 static_cast<std::streamsize>(contents.size()));
  }
  ~TemporaryFile() { ::unlink(path_.c_str()); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace doppel::test
