#include "machine/riscv/device_tree.h"

#include <gmock/gmock.h>

#include "device/fdt_view.h"
#include "machine/boot_files.h"

namespace doppel::riscv {
namespace {

using test::FdtView;
using testing::HasSubstr;
using testing::Not;

std::vector<std::byte> tree_of_harts(MachineFirmware firmware, std::vector<Phandle> controllers = {7, 8}) {
  FdtBuilder fdt;
  fdt.cells("#address-cells", {2});
  fdt.cells("#size-cells", {2});
  describe_harts(fdt, IsaConfig::rva22(), firmware, controllers);
  return fdt.finish();
}

TEST(DeviceTree, DescribesEachHart) {
  const FdtView tree(tree_of_harts(MachineFirmware::kBuiltin));
  EXPECT_EQ(tree.cells("/cpus", "timebase-frequency"), std::vector<std::uint32_t>{10'000'000});
  EXPECT_EQ(tree.cells("/cpus/cpu@1", "reg"), std::vector<std::uint32_t>{1});
  EXPECT_EQ(tree.cells("/cpus/cpu@1/interrupt-controller", "phandle"), std::vector<std::uint32_t>{8});
  EXPECT_EQ(tree.cells("/cpus/cpu@0", "riscv,cboz-block-size"), std::vector<std::uint32_t>{64});
  EXPECT_EQ(tree.bytes("/cpus/cpu@0", "riscv,isa-base"), std::string("rv64i\0", 6));
  EXPECT_EQ(tree.bytes("/cpus/cpu@0", "mmu-type"), std::string("riscv,sv57\0", 11));
  EXPECT_THAT(tree.bytes("/cpus/cpu@0", "riscv,isa"), testing::StartsWith("rv64imafdc_"));
  EXPECT_THAT(tree.bytes("/cpus/cpu@0", "riscv,isa-extensions"), HasSubstr(std::string("\0zba\0", 5)));
  EXPECT_FALSE(tree.has("/cpus/cpu@2"));
}

// Software may count on hardware updating of A and D bits only where firmware has switched it on.
TEST(DeviceTree, NamesSvadeOnlyWhereFirmwareChooses) {
  const std::string svade("\0svade\0", 7), svadu("\0svadu\0", 7);
  const FdtView builtin(tree_of_harts(MachineFirmware::kBuiltin));
  EXPECT_THAT(builtin.bytes("/cpus/cpu@0", "riscv,isa-extensions"), HasSubstr(svadu));
  EXPECT_THAT(builtin.bytes("/cpus/cpu@0", "riscv,isa-extensions"), Not(HasSubstr(svade)));
  const FdtView external(tree_of_harts(MachineFirmware::kExternal));
  EXPECT_THAT(external.bytes("/cpus/cpu@0", "riscv,isa-extensions"), HasSubstr(svadu));
  EXPECT_THAT(external.bytes("/cpus/cpu@0", "riscv,isa-extensions"), HasSubstr(svade));
}

TEST(DeviceTree, ChosenIsAddedAndReplaced) {
  const auto first = with_chosen(tree_of_harts(MachineFirmware::kBuiltin), "tree", {"one", {}, {}}).value();
  EXPECT_FALSE(FdtView(first).has("/chosen", "linux,initrd-start"));
  const GuestPhysicalRange initrd{{0x1'8000'0000}, 0x1000};
  const FdtView second(with_chosen(first, "tree", {"two words", initrd, {}}).value());
  EXPECT_EQ(second.bytes("/chosen", "bootargs"), std::string("two words\0", 10));
  EXPECT_EQ(second.cells("/chosen", "linux,initrd-start"), (std::vector<std::uint32_t>{1, 0x8000'0000}));
  EXPECT_EQ(second.cells("/chosen", "linux,initrd-end"), (std::vector<std::uint32_t>{1, 0x8000'1000}));
  EXPECT_EQ(second.bytes("/chosen", "rng-seed").size(), 32u);
}

TEST(DeviceTree, LeavesABootLoaderRoomToPatchIt) {
  auto tree = with_chosen(tree_of_harts(MachineFirmware::kBuiltin), "tree", {std::string(2000, 'a'), {}, {}}).value();
  EXPECT_EQ(fdt_totalsize(tree.data()), tree.size());
  const std::vector<std::byte> patch(4096);
  EXPECT_EQ(::fdt_setprop(tree.data(), 0, "patch", patch.data(), static_cast<int>(patch.size())), 0);
}

// A boot loader without machine-mode firmware before it finds room for its own properties.
TEST(DeviceTree, LeavesRoomToGrow) {
  auto tree = with_chosen(tree_of_harts(MachineFirmware::kBuiltin), "tree", {}).value();
  EXPECT_EQ(fdt_totalsize(tree.data()), tree.size());
  const std::string value(kTreeGrowthBytes / 2, 'x');
  EXPECT_EQ(fdt_setprop(tree.data(), 0, "added", value.data(), static_cast<int>(value.size())), 0);
  EXPECT_EQ(fdt_check_full(tree.data(), tree.size()), 0);
}

TEST(DeviceTree, RefusesWhatIsNoTree) {
  auto tree = tree_of_harts(MachineFirmware::kBuiltin);
  EXPECT_THAT(with_chosen(test::file_of("text"), "FILE", {}).error().message, HasSubstr("FILE: not a flattened"));
  EXPECT_FALSE(with_chosen({}, "FILE", {}));
  for (std::size_t size = 0; size < tree.size(); size += 37) {
    EXPECT_FALSE(with_chosen({tree.begin(), tree.begin() + static_cast<std::ptrdiff_t>(size)}, "FILE", {})) << size;
  }
}

}  // namespace
}  // namespace doppel::riscv
