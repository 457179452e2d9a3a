// Which encodings are instructions, and which ones: over all 16-bit encodings one by one, and over all 32-bit
// encodings by the bits that tell instructions apart. A kept list guards against holes and accidental
// additions; a foreign disassembler says whether the list is right.
#include "isa/riscv/decode.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>

#include "assembler.h"
#include "temporary_folder.h"

namespace doppel::riscv::test {
namespace {

const Decoder& decoder() {
  static const Decoder all(IsaConfig::rva22());
  return all;
}

// The rows that match, without the decoder.
std::vector<RowIndex> matching(std::uint32_t raw) {
  std::vector<RowIndex> found;
  const unsigned bytes = instruction_bytes(static_cast<std::uint16_t>(raw));
  for (RowIndex i = 0; i < rows().size(); ++i) {
    if (rows()[i].pattern.length_bytes() == bytes && rows()[i].pattern.matches(raw)) found.push_back(i);
  }
  return found;
}

// How many encodings each row has.
using Census = std::vector<std::uint64_t>;

Census count_short() {
  Census census(rows().size());
  for (std::uint32_t raw = 0; raw < 0x10000; ++raw) {
    if (instruction_bytes(static_cast<std::uint16_t>(raw)) == 4) continue;
    const std::vector<RowIndex> found = matching(raw);
    EXPECT_LE(found.size(), 1u) << fmt::format("{:#06x} is two instructions", raw);
    EXPECT_EQ(decoder().decode(raw).row, found.empty() ? kIllegal : found[0]) << fmt::format("{:#06x}", raw);
    for (const RowIndex row : found) ++census[row];
  }
  return census;
}

// All 2^30 encodings, by opcode and funct3. Within one such class only the bits that some row of it fixes
// decide, so each combination of these stands for all values of the others.
Census count_wide() {
  Census census(rows().size());
  std::minstd_rand random(1);
  for (std::uint32_t part = 0; part < 256; ++part) {
    const std::uint32_t class_bits = 0x707f, in_class = (part >> 3) << 2 | (part & 7) << 12 | 3;
    std::vector<RowIndex> candidates;
    std::uint32_t deciding = 0;
    for (RowIndex i = 0; i < rows().size(); ++i) {
      const isa::Pattern& pattern = rows()[i].pattern;
      const std::uint32_t common = pattern.mask() & class_bits;
      if (pattern.length_bytes() == 2 || (pattern.match() & common) != (in_class & common)) continue;
      candidates.push_back(i);
      deciding |= pattern.mask() & ~class_bits;
    }
    const std::uint32_t open = ~(deciding | class_bits);
    // The subsets of `deciding`, in order.
    std::uint32_t bits = 0;
    do {
      const std::uint32_t raw = in_class | bits | (static_cast<std::uint32_t>(random()) << 1 & open);
      RowIndex found = kIllegal;
      for (const RowIndex i : candidates) {
        if (!rows()[i].pattern.matches(raw)) continue;
        EXPECT_EQ(found, kIllegal) << fmt::format("{:#010x} is two instructions", raw);
        found = i;
        census[i] += std::uint64_t{1} << std::popcount(open);
      }
      if (decoder().decode(raw).row != found) {
        ADD_FAILURE() << fmt::format("{:#010x}: the decoder differs from the rows", raw);
        return census;
      }
      bits = (bits - deciding) & deciding;
    } while (bits != 0);
  }
  return census;
}

// "add 32768" for each row, in the order of the rows.
std::string as_text(const Census& census, unsigned bytes) {
  std::string text;
  for (RowIndex i = 0; i < rows().size(); ++i) {
    if (rows()[i].pattern.length_bytes() != bytes) continue;
    text += fmt::format("{} {}\n", rows()[i].mnemonic(), census[i]);
  }
  return text;
}

// Compares with the kept list; with DOPPEL_BLESS set in the environment, keeps `text` instead.
void expect_kept(const std::string& name, const std::string& text) {
  const auto path = std::filesystem::path(__FILE__).parent_path() / name;
  if (std::getenv("DOPPEL_BLESS") != nullptr) std::ofstream(path) << text;
  std::stringstream kept;
  kept << std::ifstream(path).rdbuf();
  EXPECT_EQ(text, kept.str());
}

TEST(Decode, EveryShortEncodingIsAtMostOneInstruction) {
  expect_kept("encodings_16.txt", as_text(count_short(), 2));
}

TEST(Decode, EveryWideEncodingIsAtMostOneInstruction) {
  expect_kept("encodings_32.txt", as_text(count_wide(), 4));
}

TEST(Decode, LeavesOutWhatTheHartHasNot) {
  for (const RowInfo& row : rows()) {
    IsaConfig without = IsaConfig::rva22();
    without.extensions.reset(static_cast<std::size_t>(row.extension));
    const std::uint32_t raw = row.pattern.encode({.imm = 0x1020, .rd = 9, .rs1 = 9, .rs2 = 9, .rm = 0});
    EXPECT_NE(decoder().decode(raw).row, kIllegal) << row.syntax();
    EXPECT_EQ(Decoder(without).decode(raw).row, kIllegal) << row.syntax();
  }
}

TEST(Decode, WritesToX0AreDiscarded) {
  EXPECT_EQ(decoder().decode(0x00c5'8033).operands.rd, kXDiscard);  // add zero, a1, a2
  EXPECT_EQ(decoder().decode(0x0000'0013).operands.rs1, 0);
}

// Encodings to show a foreign disassembler: of each row with random fields, the same with one fixed bit
// flipped, and anything at all. Formats longer than 32 bits are left out: it has no notation for them.
std::set<std::uint32_t> sample_of_wide_encodings() {
  std::mt19937 random(2);
  std::set<std::uint32_t> sample;
  const auto add = [&](std::uint32_t raw) {
    if ((raw & 3) == 3 && (raw & 0x1f) != 0x1f) sample.insert(raw);
  };
  for (const RowInfo& row : rows()) {
    const isa::Pattern& pattern = row.pattern;
    if (pattern.length_bytes() == 2) continue;
    for (int i = 0; i < 100; ++i) {
      const std::uint32_t raw = (static_cast<std::uint32_t>(random()) & ~pattern.mask()) | pattern.match();
      add(raw);
      add(raw ^ (1u << random() % 32));
    }
  }
  for (int i = 0; i < 20000; ++i) add(static_cast<std::uint32_t>(random()) | 3);
  return sample;
}

// What objdump makes of the encodings: the mnemonic, "" where it knows none.
std::map<std::uint32_t, std::string> disassemble_foreign(const std::set<std::uint32_t>& sample) {
  const TemporaryFolder folder;
  std::ofstream source(folder / "all.s");
  for (const std::uint32_t raw : sample) {
    source << fmt::format(".insn {}, {:#x}\n", instruction_bytes(static_cast<std::uint16_t>(raw)), raw);
  }
  source.close();
  run_command(fmt::format(
      "cd {} && riscv64-linux-gnu-as -march=rv64imafdc_zicsr_zifencei_zba_zbb_zbs_zicbom_zicboz_zfhmin_svinval "
      "-o all.o all.s && riscv64-linux-gnu-objdump -d -M no-aliases,numeric all.o >all.txt",
      folder.path()));
  std::map<std::uint32_t, std::string> mnemonics;
  std::ifstream listing(folder / "all.txt");
  for (std::string line; std::getline(listing, line);) {
    // "   8:\t22000053          \tfsgnj.d\tf0,f0,f0"
    std::istringstream words(line);
    std::string offset, raw, mnemonic, operands;
    if (!(words >> offset >> raw >> mnemonic) || line[0] != ' ') continue;
    std::getline(words, operands);
    if (mnemonic[0] == '.' || mnemonic.ends_with("unimp")) mnemonic.clear();
    for (const std::string_view order : {".aqrl", ".aq", ".rl"}) {
      if (mnemonic.ends_with(order)) mnemonic.resize(mnemonic.size() - order.size());
    }
    mnemonics[static_cast<std::uint32_t>(std::stoul(raw, nullptr, 16))] = mnemonic;
  }
  return mnemonics;
}

// Where the two may differ, and why. An empty name is "no instruction".
bool may_differ(std::string_view ours, std::string_view theirs) {
  struct Difference {
    std::string_view ours, theirs;
  };
  static constexpr Difference kTable[] = {
      // Names of single encodings of an instruction.
      {"fence", "fence.tso"},
      {"fence", "pause"},
      {"c.slli", "c.slli64"},  // RV128's name for a shift by zero, a hint elsewhere
      {"c.srli", "c.srli64"},
      {"c.srai", "c.srai64"},
      // Reserved: an adjustment by zero.
      {"", "c.addi16sp"},
      // Of privileged architectures before 1.10.
      {"", "hret"},
      {"", "uret"},
      {"", "sfence.vm"},
      // Fields that a hart shall ignore, which the disassembler wants to be zero.
      {"fence", ""},
      {"fence.i", ""},
      // Exact conversions: any rounding mode is as good as another, but there is one.
      {"fcvt.d.s", ""},
      {"fcvt.d.h", ""},
      {"fcvt.s.h", ""},
      {"fcvt.d.w", ""},
      {"fcvt.d.wu", ""},
  };
  return std::ranges::any_of(kTable, [&](const Difference& d) { return d.ours == ours && d.theirs == theirs; });
}

void compare_with_foreign(const std::set<std::uint32_t>& sample) {
  for (const char* tool : {"riscv64-linux-gnu-as", "riscv64-linux-gnu-objdump"}) {
    if (!is_installed(tool)) GTEST_SKIP() << tool << " is not installed";
  }
  const std::map<std::uint32_t, std::string> foreign = disassemble_foreign(sample);
  ASSERT_EQ(foreign.size(), sample.size());
  std::map<std::pair<std::string, std::string>, std::pair<int, std::uint32_t>> differences;
  for (const auto& [raw, theirs] : foreign) {
    const Decoded decoded = decoder().decode(raw);
    const std::string ours(decoded.row == kIllegal ? "" : rows()[decoded.row].mnemonic());
    if (ours == theirs || may_differ(ours, theirs)) continue;
    auto& [count, example] = differences[{ours, theirs}];
    ++count;
    example = raw;
  }
  for (const auto& [names, seen] : differences) {
    ADD_FAILURE() << fmt::format("'{}' here, '{}' there: {} encodings, such as {:#x}", names.first, names.second,
                                 seen.first, seen.second);
  }
}

TEST(Decode, AgreesWithForeignDisassemblerOnAllShortEncodings) {
  std::set<std::uint32_t> all;
  for (std::uint32_t raw = 0; raw < 0x10000; ++raw) {
    if (instruction_bytes(static_cast<std::uint16_t>(raw)) == 2) all.insert(raw);
  }
  compare_with_foreign(all);
}

TEST(Decode, AgreesWithForeignDisassemblerOnWideEncodings) { compare_with_foreign(sample_of_wide_encodings()); }

// What disassemble() prints is assembly for the same instruction: the assembler of the tests reads it back,
// except for bits that the syntax does not show and for CSRs that share a name.
TEST(Decode, AssemblyReadsBack) {
  std::mt19937 random(3);
  for (const RowInfo& row : rows()) {
    const isa::Pattern& pattern = row.pattern;
    for (int i = 0; i < 50; ++i) {
      isa::Operands o = pattern.extract(static_cast<std::uint32_t>(random()));
      if (o.rm > 4) o.rm = 7;
      if (row.mnemonic() == "fence.i") o.imm = 0;
      if (row.mnemonic().starts_with("fence")) o.rd = o.rs1 = 0;
      const std::uint32_t raw = pattern.encode(o);
      if (!pattern.matches(raw)) continue;
      const std::uint64_t pc = 0x1234'5000;
      const std::string text = disassemble(decoder(), raw, pc);
      std::vector<std::uint16_t> halves;
      ASSERT_NO_THROW(halves = assemble(text, pc)) << text;
      ASSERT_EQ(halves.size() * 2, pattern.length_bytes()) << text;
      const std::uint32_t back = halves[0] | (halves.size() == 2 ? std::uint32_t{halves[1]} << 16 : 0);
      if (text.contains("pmp") || text.contains("hpm")) continue;
      EXPECT_EQ(back, raw) << text;
    }
  }
}

}  // namespace
}  // namespace doppel::riscv::test
