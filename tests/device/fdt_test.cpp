#include "device/fdt.h"

#include "device/fdt_view.h"

namespace doppel::test {
namespace {

TEST(FdtBuilder, WritesNodesAndEveryKindOfProperty) {
  FdtBuilder fdt;
  fdt.text("model", "test");
  {
    const auto soc = fdt.node("soc");
    fdt.texts("compatible", {"a,b", "c"});
    fdt.flag("ranges");
    {
      const auto device = fdt.node("device", 0x1'0000'0000);
      fdt.reg({{0x1'0000'0000}, 0x1000});
      fdt.number64("wide", 0x1122'3344'5566'7788);
    }
  }
  {
    const auto chosen = fdt.node("chosen");
    fdt.bytes("seed", {});
  }
  const FdtView view(fdt.finish());
  EXPECT_EQ(view.texts("/", "model"), "test");
  EXPECT_EQ(view.texts("/soc", "compatible"), "a,b c");
  EXPECT_EQ(view.bytes("/soc", "ranges"), "");
  EXPECT_EQ(view.cells("/soc/device@100000000", "reg"), (Cells{1, 0, 0, 0x1000}));
  EXPECT_EQ(view.cells("/soc/device@100000000", "wide"), (Cells{0x1122'3344, 0x5566'7788}));
  EXPECT_TRUE(view.has("/chosen"));
  EXPECT_FALSE(view.has("/soc/chosen"));
}

TEST(FdtBuilder, InterruptOnlyWhereThereIsOne) {
  FdtBuilder fdt;
  {
    const auto node = fdt.node("with");
    fdt.interrupt({.irq = 10, .interrupt_parent = 5});
  }
  {
    const auto node = fdt.node("without");
    fdt.interrupt({});
  }
  const FdtView view(fdt.finish());
  EXPECT_EQ(view.cells("/with", "interrupts"), Cells{10});
  EXPECT_EQ(view.cells("/with", "interrupt-parent"), Cells{5});
  EXPECT_FALSE(view.has("/without", "interrupts"));
}

TEST(FdtBuilder, GrowsAsFarAsNeeded) {
  FdtBuilder fdt;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    const auto node = fdt.node("node", i);
    fdt.text(i % 2 == 0 ? "even" : "odd", std::string(100, 'x'));
  }
  { const auto last = fdt.node("last"); }
  const FdtView view(fdt.finish());
  EXPECT_EQ(view.texts("/node@7cf", "odd"), std::string(100, 'x'));
  EXPECT_TRUE(view.has("/last"));
}

}  // namespace
}  // namespace doppel::test
