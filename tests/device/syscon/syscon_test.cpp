#include "device/syscon/syscon.h"

#include "device/fdt_view.h"
#include "device/test_env.h"

namespace doppel::test {
namespace {

struct SysconTest : testing::Test {
  std::vector<PowerRequest> requests;
  Syscon syscon{[this](PowerRequest request) { requests.push_back(request); }};
};

TEST_F(SysconTest, PassFailAndReset) {
  write(syscon, 0, Width::k4, 0x5555);
  write(syscon, 0, Width::k4, 0x0007'3333);
  write(syscon, 0, Width::k2, 0x7777);
  using enum PowerRequest::Action;
  EXPECT_EQ(requests, (std::vector<PowerRequest>{{kPowerOff, 0}, {kPowerOff, 7}, {kReset, 0}}));
}

TEST_F(SysconTest, IgnoresEverythingElse) {
  write(syscon, 0, Width::k4, 0);
  write(syscon, 0, Width::k1, 0x55);
  write(syscon, 0, Width::k8, 0x5555);
  write(syscon, 4, Width::k4, 0x5555);
  EXPECT_EQ(read(syscon, 0, Width::k4), 0u);
  EXPECT_TRUE(requests.empty());
}

TEST_F(SysconTest, SurvivesRandomAccess) { access_at_random(syscon, Syscon::kSizeBytes, 100'000, 4); }

TEST_F(SysconTest, DescribesItself) {
  const FdtView fdt = describe(syscon, {.range = {{0x10'0000}, Syscon::kSizeBytes}, .self = 6});
  EXPECT_EQ(fdt.texts("/test@100000", "compatible"), "sifive,test1 sifive,test0 syscon");
  EXPECT_EQ(fdt.cells("/test@100000", "reg"), (Cells{0, 0x10'0000, 0, 0x1000}));
  EXPECT_EQ(fdt.cells("/test@100000", "phandle"), Cells{6});
  EXPECT_EQ(fdt.texts("/poweroff", "compatible"), "syscon-poweroff");
  EXPECT_EQ(fdt.cells("/poweroff", "value"), Cells{0x5555});
  EXPECT_EQ(fdt.cells("/poweroff", "regmap"), Cells{6});
  EXPECT_EQ(fdt.cells("/poweroff", "offset"), Cells{0});
  EXPECT_EQ(fdt.texts("/reboot", "compatible"), "syscon-reboot");
  EXPECT_EQ(fdt.cells("/reboot", "value"), Cells{0x7777});
}

}  // namespace
}  // namespace doppel::test
