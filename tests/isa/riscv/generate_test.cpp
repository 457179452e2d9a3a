// The generator itself, and what its programs show: they run on the interpreter as promised, reach every
// row, and end in the state that QEMU's user mode ends in.
#include "isa/riscv/generate.h"

#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <map>
#include <set>

#include "temporary_folder.h"
#include "test_machine.h"

namespace doppel::riscv::test {
namespace {

constexpr u64 kStart = kCode + 0x400, kScratch = kData + 0x800;

GeneratorOptions options() {
  GeneratorOptions options;
  options.start = kStart;
  options.scratch = kScratch;
  return options;
}

// What QEMU 7.2 gets wrong: its CTZW looks at the upper half, too. Interpreter.CountsTrailingZerosOfWords
// stands in.
constexpr std::string_view kWrongOnQemu[] = {"ctzw"};

// What a program leaves behind.
struct Final {
  std::array<u64, 32> x{}, f{};
  u64 fcsr = 0;
  std::vector<u64> memory;
  bool operator==(const Final&) const = default;
};

struct Trace {
  Final final;
  std::optional<u64> trap;
  std::vector<RowIndex> executed;  // in order
};

// In U-mode, step by step.
Trace interpret(TestMachine& machine, const Program& program, u64 most = 4000) {
  static const Decoder decoder(IsaConfig::rva22());
  HartState& s = machine.state();
  std::ranges::copy(program.x, s.x.begin());
  s.f = program.f;
  s.fflags = program.fcsr & 31;
  s.frm = program.fcsr >> 5;
  s.reservation = HartState::kNoReservation;
  s.menvcfg = s.senvcfg = envcfg::kCbcfe | envcfg::kCbie | envcfg::kCbze;
  s.pc = program.start;
  machine.set_privilege(Privilege::kUser);
  machine.set_status(mstatus::kFs);
  machine.load(program.start, program.code);
  for (std::size_t i = 0; i < program.memory.size(); ++i) machine.poke(program.scratch + 8 * i, program.memory[i]);
  machine.hart.on_fence_i();

  Trace run;
  while (s.pc != program.end() && !machine.trapped() && most-- > 0) {
    const std::size_t at = (s.pc - program.start) / 2;
    const std::uint32_t high = at + 1 < program.code.size() ? program.code[at + 1] : 0;
    run.executed.push_back(at < program.code.size() ? decoder.decode(program.code[at] | high << 16).row : kIllegal);
    machine.resume(1);
  }
  if (s.pc != program.end()) run.trap = machine.trapped().value_or(~u64{0});
  std::copy_n(s.x.begin(), 32, run.final.x.begin());
  run.final.f = s.f;
  run.final.fcsr = s.fflags | u64{s.frm} << 5;
  for (std::size_t i = 0; i < program.memory.size(); ++i) {
    run.final.memory.push_back(machine.peek(program.scratch + 8 * i));
  }
  return run;
}

TEST(Generator, IsRepeatable) {
  Generator one(options(), 7), same(options(), 7), other(options(), 8);
  for (int i = 0; i < 10; ++i) {
    const Program a = one.next(), b = same.next(), c = other.next();
    EXPECT_EQ(a.code, b.code);
    EXPECT_EQ(a.x, b.x);
    EXPECT_EQ(a.memory, b.memory);
    EXPECT_NE(a.code, c.code);
  }
}

TEST(Generator, ProgramsEndAndKeepToThemselves) {
  TestMachine machine;
  GeneratorOptions with_blocks = options();
  with_blocks.cache_blocks = true;
  Generator generator(with_blocks, 1);
  constexpr u64 kCanary = 0x1234'5678'9abc'def0;
  std::map<RowIndex, int> executed;
  constexpr u64 kAfter = kScratch + Program::kScratchBytes;
  for (int i = 0; i < 400; ++i) {
    const Program program = generator.next();
    machine.poke(kScratch - 8, kCanary);
    machine.poke(kAfter, kCanary);
    const Trace run = interpret(machine, program);
    ASSERT_EQ(run.trap, std::nullopt) << program.listing() << fmt::format("at {:#x}", machine.state().mepc);
    EXPECT_EQ(machine.peek(kScratch - 8), kCanary);
    EXPECT_EQ(machine.peek(kAfter), kCanary);
    EXPECT_EQ(run.final.x[2], kScratch);
    EXPECT_EQ(run.final.x[8], kScratch + 2048);
    for (const RowIndex row : run.executed) ++executed[row];
  }
  for (RowIndex i = 0; i < rows().size(); ++i) {
    const bool wanted = Generator::generates(rows()[i], with_blocks);
    EXPECT_TRUE(wanted ? executed[i] >= 10 : executed[i] == 0) << rows()[i].syntax() << ": " << executed[i];
  }
}

TEST(Generator, KeepsToTheExtensionsAndWeights) {
  GeneratorOptions few = options();
  few.isa.extensions.reset();
  few.isa.extensions.set(static_cast<std::size_t>(Extension::kI));
  few.isa.extensions.set(static_cast<std::size_t>(Extension::kM));
  few.weight = [](const RowInfo& row) { return row.extension == Extension::kM ? 10u : 1u; };
  const Decoder decoder(few.isa);
  Generator generator(few, 3);
  std::size_t all = 0, multiply = 0;
  for (int i = 0; i < 50; ++i) {
    const Program program = generator.next();
    for (std::size_t at = 0; at < program.code.size(); at += 2) {
      const Decoded decoded = decoder.decode(program.code[at] | std::uint32_t{program.code[at + 1]} << 16);
      ASSERT_NE(decoded.row, kIllegal) << program.listing();
      ++all;
      multiply += rows()[decoded.row].extension == Extension::kM;
    }
  }
  EXPECT_GT(2 * multiply, all / 2);
}

// --- Against QEMU. Around the data go what the code that enters and leaves a program needs.

struct Area {
  static constexpr std::int32_t kX = -2048, kF = kX + 256, kFcsr = kF + 256, kHost = -1024;  // from Program::scratch
  static constexpr u64 kStart = kScratch - 2048;
  static constexpr u64 kBytes = 2048 + Program::kScratchBytes;
};

// Program::code between code that loads the initial state and code that stores the final one.
std::vector<std::uint16_t> callable(const Program& program) {
  const auto all = [](const char* format, std::int32_t offset, unsigned from) {
    std::string text;
    for (unsigned i = from; i < 32; ++i) {
      if (i != 2) text += fmt::format(fmt::runtime(format), i, offset + 8 * static_cast<std::int32_t>(i)) + "\n";
    }
    return text;
  };
  std::string enter = fmt::format("li t0, {}\n", kScratch);
  for (unsigned i = 1; i < 32; ++i) enter += fmt::format("sd x{}, {}(t0)\n", i, Area::kHost + 8 * static_cast<int>(i));
  enter += "addi sp, t0, 0\n" + fmt::format("ld t0, {}(sp)\n csrrw zero, fcsr, t0\n", Area::kFcsr);
  enter += all("fld f{}, {}(sp)", Area::kF, 0) + fmt::format("fld f2, {}(sp)\n", Area::kF + 16);
  enter += all("ld x{}, {}(sp)", Area::kX, 1);
  std::string leave = all("sd x{}, {}(sp)", Area::kX, 1) + all("fsd f{}, {}(sp)", Area::kF, 0);
  leave += fmt::format("fsd f2, {}(sp)\n csrrs t0, fcsr, zero\n sd t0, {}(sp)\n", Area::kF + 16, Area::kFcsr);
  leave += all("ld x{}, {}(sp)", Area::kHost, 1) + fmt::format("ld sp, {}(sp)\n jalr zero, 0(ra)", Area::kHost + 16);

  std::vector<std::uint16_t> code = assemble(enter);
  while (code.size() < (kStart - kCode) / 2) code.push_back(0x0001);  // c.nop
  EXPECT_EQ(code.size(), (kStart - kCode) / 2) << "the program must lie where it was made for";
  code.insert(code.end(), program.code.begin(), program.code.end());
  const std::vector<std::uint16_t> end = assemble(leave);
  code.insert(code.end(), end.begin(), end.end());
  return code;
}

template <class T>
void append(std::vector<std::byte>& bytes, std::span<const T> values) {
  const auto raw = std::as_bytes(values);
  bytes.insert(bytes.end(), raw.begin(), raw.end());
}

std::vector<std::byte> image_of(const Program& program) {
  std::vector<u64> area(Area::kBytes / 8);
  std::ranges::copy(program.x, area.begin());
  std::ranges::copy(program.f, area.begin() + 32);
  area[64] = program.fcsr;
  std::ranges::copy(program.memory, area.begin() + 256);
  const std::vector<std::uint16_t> code = callable(program);
  const u64 header[] = {kCode, code.size() * 2, Area::kStart, Area::kBytes};
  std::vector<std::byte> bytes;
  append(bytes, std::span<const u64>(header));
  append(bytes, std::span<const u64>(area));
  append(bytes, std::span<const std::uint16_t>(code));
  return bytes;
}

// The outcomes of as many programs as QEMU came through.
std::vector<Final> run_on_qemu(const std::vector<Program>& programs, const std::string& qemu,
                               const TemporaryFolder& folder) {
  std::ofstream input(folder / "in", std::ios::binary);
  for (const Program& program : programs) {
    const std::vector<std::byte> image = image_of(program);
    input.write(reinterpret_cast<const char*>(image.data()), static_cast<std::streamsize>(image.size()));
  }
  input.close();
  (void)std::system(fmt::format("{0} {1}/guest <{1}/in >{1}/out", qemu, folder.path()).c_str());
  std::ifstream output(folder / "out", std::ios::binary);
  std::vector<Final> finals;
  std::vector<u64> area(Area::kBytes / 8);
  while (output.read(reinterpret_cast<char*>(area.data()), Area::kBytes)) {
    Final& final = finals.emplace_back();
    std::copy_n(area.begin(), 32, final.x.begin());
    std::copy_n(area.begin() + 32, 32, final.f.begin());
    final.x[0] = 0;
    final.x[2] = kScratch;  // where the area is addressed from
    final.fcsr = area[64];
    final.memory.assign(area.begin() + 256, area.end());
  }
  return finals;
}

std::string describe(const Program& program, const Final& here, const Final& there) {
  std::string text = program.listing() + fmt::format("{:>12} {:>16} {:>16} {:>16}\n", "", "before", "here", "QEMU");
  const auto line = [&](std::string_view name, u64 before, u64 ours, u64 theirs) {
    text += fmt::format("{:>12} {:016x} {:016x} {:016x}{}\n", name, before, ours, theirs, ours == theirs ? "" : " <--");
  };
  for (unsigned i = 0; i < 32; ++i) line(integer_register_names()[i], program.x[i], here.x[i], there.x[i]);
  for (unsigned i = 0; i < 32; ++i) line(float_register_names()[i], program.f[i], here.f[i], there.f[i]);
  line("fcsr", program.fcsr, here.fcsr, there.fcsr);
  for (std::size_t i = 0; i < here.memory.size(); ++i) {
    if (here.memory[i] == there.memory[i]) continue;
    line(fmt::format("s0{:+}", static_cast<int>(8 * i) - 2048), program.memory[i], here.memory[i], there.memory[i]);
  }
  return text;
}

TEST(Generator, ProgramsEndAsOnQemu) {
  for (const char* tool : {"riscv64-linux-gnu-gcc", "qemu-riscv64"}) {
    if (!is_installed(tool)) GTEST_SKIP() << tool << " is not installed";
  }
  const TemporaryFolder folder;
  const auto source = std::filesystem::path(__FILE__).parent_path() / "qemu_guest.c";
  run_command(fmt::format("riscv64-linux-gnu-gcc -O1 -static -o {}/guest {}", folder.path(), source.string()));
  // The property's name changed its case after version 7.
  std::string qemu;
  for (const char* half : {"Zfhmin=true", "zfhmin=true"}) {
    const std::string command = std::string("qemu-riscv64 -cpu rv64,zba=true,zbb=true,zbs=true,") + half;
    if (succeeds(fmt::format("{} {}/guest </dev/null", command, folder.path()))) qemu = command;
  }
  if (qemu.empty()) GTEST_SKIP() << "this qemu-riscv64 has not all the extensions";

  // DOPPEL_ROUNDS in the environment asks for a longer run.
  const char* asked = std::getenv("DOPPEL_ROUNDS");
  const int rounds = asked != nullptr ? std::atoi(asked) : 1;
  constexpr int kPrograms = 2000, kLeast = 50;
  GeneratorOptions comparable = options();
  comparable.weight = [](const RowInfo& row) {
    return std::ranges::find(kWrongOnQemu, row.mnemonic()) == std::end(kWrongOnQemu) ? 1u : 0u;
  };
  std::map<RowIndex, int> executed;
  TestMachine machine;
  for (int round = 0; round < rounds; ++round) {
    Generator generator(comparable, static_cast<u64>(round));
    std::vector<Program> programs;
    for (int i = 0; i < kPrograms; ++i) programs.push_back(generator.next());
    const std::vector<Final> finals = run_on_qemu(programs, qemu, folder);
    for (std::size_t i = 0; i < finals.size(); ++i) {
      const Trace run = interpret(machine, programs[i]);
      ASSERT_EQ(run.trap, std::nullopt) << programs[i].listing();
      ASSERT_TRUE(run.final == finals[i]) << "round " << round << ", program " << i << "\n"
                                          << describe(programs[i], run.final, finals[i]);
      for (const RowIndex row : run.executed) ++executed[row];
    }
    ASSERT_EQ(finals.size(), programs.size()) << "QEMU ended at\n" << programs[finals.size()].listing();
  }
  for (RowIndex i = 0; i < rows().size(); ++i) {
    if (!Generator::generates(rows()[i], comparable) || comparable.weight(rows()[i]) == 0) continue;
    EXPECT_GE(executed[i], kLeast) << rows()[i].syntax();
  }
}

}  // namespace
}  // namespace doppel::riscv::test
