#include "machine/riscv/boot.h"

#include <gmock/gmock.h>

#include "device/fdt.h"
#include "device/fdt_view.h"
#include "machine/boot_files.h"

namespace doppel::riscv {
namespace {

using namespace doppel::test;
using testing::HasSubstr;

constexpr GuestPhysical kRam{0x8000'0000};
constexpr std::uint64_t kMiB = 1 << 20;

struct Machine {
  explicit Machine(std::uint64_t megabytes = 256) { EXPECT_TRUE(memory.add_ram({kRam, megabytes * kMiB})); }

  Result<StartState> boot() {
    return load_boot_files(config, memory, [] {
      FdtBuilder fdt;
      fdt.text("model", "generated");
      return fdt.finish();
    });
  }
  FdtView tree_at(std::uint64_t address) const {
    const std::byte* at = memory.host({address}, 4096);
    EXPECT_NE(at, nullptr);
    return FdtView({at, at + fdt_totalsize(at)});
  }

  GuestMemory memory;
  BootConfig config;
};

TEST(Boot, BuiltinFirmwareEntersTheKernel) {
  const TemporaryFile kernel(make_image());
  const TemporaryFile initrd(file_of("the initrd"));
  Machine machine;
  machine.config.kernel = kernel.path();
  machine.config.initrd = initrd.path();
  machine.config.append = "quiet";
  const StartState start = machine.boot().value();
  EXPECT_TRUE(start.supervisor);
  EXPECT_EQ(start.pc, kRam.value + 2 * kMiB);
  EXPECT_EQ(start.a1 % (2 * kMiB), 0u);

  const FdtView tree = machine.tree_at(start.a1);
  EXPECT_EQ(tree.bytes("/", "model"), std::string("generated\0", 10));
  EXPECT_EQ(tree.bytes("/chosen", "bootargs"), std::string("quiet\0", 6));
  const auto begin = tree.cells("/chosen", "linux,initrd-start"), end = tree.cells("/chosen", "linux,initrd-end");
  EXPECT_EQ(end[1] - begin[1], 10u);
  EXPECT_EQ(std::memcmp(machine.memory.host({begin[1]}, 10), "the initrd", 10), 0);
}

TEST(Boot, TreeStaysBelowThreeGigabytes) {
  const TemporaryFile kernel(make_image());
  Machine machine(4096);
  machine.config.kernel = kernel.path();
  EXPECT_LT(machine.boot().value().a1, 3072 * kMiB);
}

TEST(Boot, FirmwareFindsTheKernelThroughItsInfo) {
  const TemporaryFile firmware(file_of("firmware"));
  const TemporaryFile loader(file_of("a boot loader without header"));
  Machine machine;
  machine.config.firmware = firmware.path();
  machine.config.kernel = loader.path();
  const StartState start = machine.boot().value();
  EXPECT_FALSE(start.supervisor);
  EXPECT_EQ(start.pc, kRam.value);
  EXPECT_EQ(std::memcmp(machine.memory.host({kRam.value + 2 * kMiB}, 6), "a boot", 6), 0);
  const auto word = [&](unsigned index) { return machine.memory.load<std::uint64_t>({start.a2 + 8 * index}).value(); };
  EXPECT_EQ(word(0), 0x4942534fu);
  EXPECT_EQ(word(1), 2u);
  EXPECT_EQ(word(2), kRam.value + 2 * kMiB);
  EXPECT_EQ(word(3), 1u);
}

TEST(Boot, WithoutFirmwareTheKernelStartsInMachineMode) {
  const TemporaryFile kernel(make_elf({.tohost = 0x8000'0008}));
  Machine machine(4);
  machine.config.firmware = "none";
  machine.config.kernel = kernel.path();
  const StartState start = machine.boot().value();
  EXPECT_FALSE(start.supervisor);
  EXPECT_EQ(start.pc, kRam.value);
  EXPECT_EQ(start.tohost, kRam + 8);
}

TEST(Boot, OwnTreeReplacesTheGeneratedOne) {
  FdtBuilder fdt;
  fdt.text("model", "mine");
  const TemporaryFile tree(fdt.finish());
  const TemporaryFile kernel(make_image());
  Machine machine;
  machine.config.kernel = kernel.path();
  machine.config.device_tree = tree.path();
  EXPECT_EQ(machine.tree_at(machine.boot().value().a1).bytes("/", "model"), std::string("mine\0", 5));
  machine.config.device_tree = kernel.path();
  EXPECT_THAT(machine.boot().error().message, HasSubstr("not a flattened device tree"));
}

TEST(Boot, LargeInitrdMovesUpToTheKernel) {
  const TemporaryFile kernel(make_image());
  File contents(40 * kMiB);
  for (std::size_t at = 0; at < contents.size(); at += 4096) put(contents, at, std::uint64_t{at});
  const TemporaryFile initrd(contents);
  Machine machine(64);
  machine.config.kernel = kernel.path();
  machine.config.initrd = initrd.path();
  const auto begin = machine.tree_at(machine.boot().value().a1).cells("/chosen", "linux,initrd-start");
  EXPECT_EQ(std::memcmp(machine.memory.host({begin[1]}, contents.size()), contents.data(), contents.size()), 0);
}

TEST(Boot, SaysWhatDoesNotFit) {
  const TemporaryFile kernel(make_image(4096, 6 * kMiB));
  const TemporaryFile initrd(File(5 * kMiB));
  {
    Machine machine(4);
    machine.config.kernel = kernel.path();
    EXPECT_THAT(machine.boot().error().message, HasSubstr("more than the machine has"));
  }
  {
    Machine machine(7);
    machine.config.kernel = kernel.path();
    EXPECT_THAT(machine.boot().error().message, HasSubstr(kernel.path() + ": needs memory from"));
  }
  {
    Machine machine(12);
    machine.config.kernel = kernel.path();
    EXPECT_TRUE(machine.boot());
    machine.config.initrd = initrd.path();
    EXPECT_THAT(machine.boot().error().message, HasSubstr(initrd.path()));
  }
}

TEST(Boot, SaysWhichFileIsMissing) {
  Machine machine;
  EXPECT_THAT(machine.boot().error().message, HasSubstr("nothing to boot"));
  machine.config.kernel = "/nonexistent/kernel";
  EXPECT_THAT(machine.boot().error().message, HasSubstr("/nonexistent/kernel"));
  machine.config.kernel = "/";
  EXPECT_THAT(machine.boot().error().message, HasSubstr("is a directory"));
}

}  // namespace
}  // namespace doppel::riscv
