#include "machine/riscv/program.h"

#include <gmock/gmock.h>

#include <random>

#include "machine/boot_files.h"

namespace doppel::riscv {
namespace {

using namespace doppel::test;
using testing::HasSubstr;

constexpr GuestPhysical kRam{0x8000'0000};
constexpr LoadRules kRules{kRam + 0x20'0000, kRam, RawBinary::kRefuse, 64 << 20};

Result<Program> parse(File file, const LoadRules& rules = kRules) {
  return parse_program(BootFile("file", std::move(file)), rules);
}

std::string refusal(File file, const LoadRules& rules = kRules) {
  const auto program = parse(std::move(file), rules);
  if (program) return "accepted";
  EXPECT_THAT(program.error().message, testing::StartsWith("file: "));
  return program.error().message;
}

// A header field of the Elf64_Ehdr or of the only Elf64_Phdr set to something else.
template <class Field, class Value>
File elf_with(Field Elf64_Ehdr::*field, Value value) {
  File file = make_elf();
  Elf64_Ehdr header;
  std::memcpy(&header, file.data(), sizeof header);
  header.*field = static_cast<Field>(value);
  put(file, 0, header);
  return file;
}
template <class Field, class Value>
File segment_with(Field Elf64_Phdr::*field, Value value) {
  File file = make_elf();
  Elf64_Phdr segment;
  std::memcpy(&segment, file.data() + sizeof(Elf64_Ehdr), sizeof segment);
  segment.*field = static_cast<Field>(value);
  put(file, sizeof(Elf64_Ehdr), segment);
  return file;
}

TEST(Program, LinuxImageGoesToItsTextOffset) {
  const auto program = parse(make_image(4096, 1 << 20)).value();
  EXPECT_EQ(program.entry, kRam + 0x20'0000);
  EXPECT_EQ(program.extent.start, program.entry);
  EXPECT_EQ(program.extent.size_bytes, 1u << 20);
  EXPECT_FALSE(program.tohost);
}

TEST(Program, LinuxImageMayBeCompressed) {
  EXPECT_EQ(parse(gzip(make_image())).value().entry, kRam + 0x20'0000);
}

TEST(Program, LinuxImagesThatCannotRun) {
  File big_endian = make_image();
  put(big_endian, 24, std::uint64_t{1});
  EXPECT_THAT(refusal(big_endian), HasSubstr("big-endian"));
  EXPECT_THAT(refusal(make_image(4096, 8192, 0x40'0000)), HasSubstr("32-bit kernel"));
  EXPECT_THAT(refusal(make_image(4096, std::uint64_t{1} << 40)), HasSubstr("more than the machine has"));
  EXPECT_THAT(refusal(make_image(4096, 0, ~std::uint64_t{0})), HasSubstr("more than the machine has"));
  EXPECT_THAT(refusal(make_image(60)), HasSubstr("truncated"));
}

TEST(Program, EfiImagesTellTheirSizeAndMachine) {
  EXPECT_TRUE(parse(make_efi_image()));
  File cut = make_efi_image();
  cut.resize(cut.size() - 1);
  EXPECT_THAT(refusal(cut), HasSubstr("truncated"));
  EXPECT_THAT(refusal(make_efi_image(0x5032)), HasSubstr("another instruction set"));
  File wild = make_efi_image();
  put(wild, 60, ~std::uint32_t{0});
  EXPECT_THAT(refusal(wild), HasSubstr("truncated"));
}

TEST(Program, ElfGoesToItsPhysicalAddresses) {
  const auto program =
      parse(make_elf({.virtual_address = 0xffff'ffff'8000'0000, .physical_address = 0x8040'0000}), kRules)
          .value();
  EXPECT_EQ(program.entry.value, 0x8040'0000u);
  ASSERT_EQ(program.segments.size(), 1u);
  EXPECT_EQ(program.segments[0].bytes.size_bytes, 4u);
  EXPECT_EQ(program.segments[0].size_bytes, 20u);
}

TEST(Program, PositionIndependentElfGoesToTheBase) {
  const auto program = parse(
      make_elf({.virtual_address = 0x1000, .physical_address = 0x1000, .type = ET_DYN, .tohost = 0x1008}));
  EXPECT_EQ(program.value().entry, kRules.base);
  EXPECT_EQ(program.value().tohost, kRules.base + 8);
}

TEST(Program, FindsTohost) {
  EXPECT_EQ(parse(make_elf({.tohost = 0x8000'1000})).value().tohost, GuestPhysical{0x8000'1000});
}

TEST(Program, ElfFilesThatCannotRun) {
  EXPECT_THAT(refusal(make_elf({.machine = EM_X86_64})), HasSubstr("x86-64"));
  EXPECT_THAT(refusal(make_elf({.machine = EM_AARCH64})), HasSubstr("AArch64"));
  EXPECT_THAT(refusal(make_elf({.machine = 0x1234})), HasSubstr("e_machine 4660"));
  EXPECT_THAT(refusal(make_elf({.type = ET_REL})), HasSubstr("not an executable"));
  File file = make_elf();
  file[EI_CLASS] = std::byte{ELFCLASS32};
  EXPECT_THAT(refusal(file), HasSubstr("32-bit"));
  file[EI_DATA] = std::byte{ELFDATA2MSB};
  EXPECT_THAT(refusal(file), HasSubstr("big-endian"));
  EXPECT_THAT(refusal(segment_with(&Elf64_Phdr::p_type, PT_INTERP)), HasSubstr("without anything to load"));
}

TEST(Program, HostileElfFiles) {
  EXPECT_THAT(refusal(elf_with(&Elf64_Ehdr::e_phoff, ~std::uint64_t{0} - 8)), HasSubstr("outside the file"));
  EXPECT_THAT(refusal(elf_with(&Elf64_Ehdr::e_phnum, 0xffff)), HasSubstr("truncated"));
  EXPECT_THAT(refusal(elf_with(&Elf64_Ehdr::e_phnum, 0)), HasSubstr("without anything to load"));
  EXPECT_THAT(refusal(elf_with(&Elf64_Ehdr::e_phentsize, 1)), HasSubstr("program headers"));
  EXPECT_THAT(refusal(segment_with(&Elf64_Phdr::p_offset, ~std::uint64_t{0})), HasSubstr("outside the file"));
  EXPECT_THAT(refusal(segment_with(&Elf64_Phdr::p_filesz, std::uint64_t{1} << 63)), HasSubstr("outside the file"));
  EXPECT_THAT(refusal(segment_with(&Elf64_Phdr::p_memsz, 2)), HasSubstr("larger in the file"));
  EXPECT_THAT(refusal(segment_with(&Elf64_Phdr::p_memsz, ~std::uint64_t{0})), HasSubstr("wraps"));
  // A symbol table that lies anywhere is no reason to refuse, nor to read there.
  EXPECT_EQ(refusal(elf_with(&Elf64_Ehdr::e_shoff, ~std::uint64_t{0} - 4)), "accepted");
}

TEST(Program, OtherFilesAreNoKernels) {
  EXPECT_THAT(refusal(file_of("#!/bin/sh\n")), HasSubstr("not a kernel image"));
  EXPECT_THAT(refusal(File(4096, std::byte{0xff})), HasSubstr("not a kernel image"));
  EXPECT_THAT(refusal({}), HasSubstr("not a kernel image"));
  File arm = File(4096);
  std::memcpy(arm.data() + 0x38, "ARM\x64", 4);
  EXPECT_THAT(refusal(arm), HasSubstr("AArch64"));
  File x86 = File(4096);
  std::memcpy(x86.data() + 0x202, "HdrS", 4);
  EXPECT_THAT(refusal(x86), HasSubstr("x86"));
}

TEST(Program, RawBinariesGoToTheBaseWhereTheyAreWanted) {
  LoadRules rules = kRules;
  rules.raw = RawBinary::kAccept;
  const auto program = parse(file_of("anything"), rules).value();
  EXPECT_EQ(program.entry, kRules.base);
  EXPECT_EQ(program.extent.size_bytes, 8u);
}

TEST(Program, PlaceWritesOnlyInsideRam) {
  GuestMemory memory;
  ASSERT_TRUE(memory.add_ram({kRam, 1 << 20}));
  const auto inside = parse(make_elf({.code = {0x11223344}})).value();
  ASSERT_TRUE(place(inside, memory));
  EXPECT_EQ(memory.load<std::uint32_t>(kRam), 0x11223344u);
  const auto outside = parse(make_elf({.physical_address = 0x1000})).value();
  EXPECT_FALSE(place(outside, memory));
}

// Its header says where the EFI header is: here beyond what is read of a file at first.
TEST(Program, EfiHeadersMayLieAnywhere) {
  const File near = make_efi_image();
  File far = near;
  far.resize(1 << 20);
  put(far, 60, std::uint32_t{512 << 10});
  std::ranges::copy(std::span(near).subspan(64, 64), far.begin() + (512 << 10));
  const TemporaryFile whole(far);
  EXPECT_TRUE(parse_program(BootFile::open(whole.path(), 64 << 20).value(), kRules));
  put(far, (512 << 10) + 24 + 16, std::uint32_t{1 << 20});
  const TemporaryFile cut(far);
  EXPECT_THAT(parse_program(BootFile::open(cut.path(), 64 << 20).value(), kRules).error().message, HasSubstr("truncated: section 0"));
}

TEST(Program, ImagesAreReadToTheirPlace) {
  GuestMemory memory;
  ASSERT_TRUE(memory.add_ram({kRam, 8 << 20}));
  File image = make_image(1 << 20, 2 << 20);
  put(image, (1 << 20) - 4, std::uint32_t{0x11223344});
  const TemporaryFile file(image);
  const auto program = parse_program(BootFile::open(file.path(), 8 << 20).value(), kRules).value();
  EXPECT_LT(program.file.head().size(), image.size());
  ASSERT_TRUE(place(program, memory));
  EXPECT_EQ(memory.load<std::uint32_t>(program.entry + ((1 << 20) - 4)), 0x11223344u);
  ASSERT_EQ(::truncate(file.path().c_str(), 512 << 10), 0);
  EXPECT_THAT(place(program, memory).error().message, HasSubstr("became shorter"));
}

// Whatever a file says, parsing it ends with a program inside the file or a sentence.
TEST(Program, RandomlyDamagedFiles) {
  std::mt19937_64 random(1);
  const std::vector<File> seeds = {make_elf({.tohost = 0x8000'1000}), make_efi_image(), gzip(make_elf())};
  for (int round = 0; round < 20'000; ++round) {
    File file = seeds[static_cast<std::size_t>(round) % seeds.size()];
    for (std::uint64_t damage = random() % 4 + 1; damage > 0; --damage) {
      const std::size_t reach = random() % 2 == 0 ? std::min<std::size_t>(file.size(), 128) : file.size();
      file[random() % reach] = random() % 2 == 0 ? std::byte{0xff} : static_cast<std::byte>(random());
    }
    if (random() % 8 == 0) file.resize(random() % file.size());
    const auto program = parse(std::move(file));
    if (!program) continue;
    for (const auto& segment : program->segments) {
      ASSERT_TRUE(program->file.has(segment.bytes));
      ASSERT_LE(segment.bytes.size_bytes, segment.size_bytes);
    }
  }
}

}  // namespace
}  // namespace doppel::riscv
