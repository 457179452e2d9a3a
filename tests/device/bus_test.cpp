#include "device/bus.h"

#include <thread>

#include "device/test_env.h"

namespace doppel::test {
namespace {

// Remembers the last access and answers with more bits than were asked for.
class Probe final : public Device {
 public:
  explicit Probe(std::string_view name) : name_(name) {}
  std::string_view name() const override { return name_; }
  std::uint64_t read(Offset offset, Width width) override {
    EXPECT_FALSE(monitor().try_lock());
    last = offset.value;
    last_width = width;
    return 0x8877'6655'4433'2211;
  }
  void write(Offset offset, Width width, std::uint64_t value) override {
    EXPECT_FALSE(monitor().try_lock());
    last = offset.value;
    last_width = width;
    last_value = value;
  }
  void reset() override {}
  void save(StateWriter&) const override {}
  void describe(FdtBuilder&, const Placement&) const override {}

  std::uint64_t last = 0;
  Width last_width = Width::k1;
  std::uint64_t last_value = 0;

 private:
  std::string_view name_;
};

struct BusTest : testing::Test {
  Probe low{"low"};
  Probe high{"high"};
  Bus bus;

  BusTest() {
    EXPECT_TRUE(bus.map({{0x2000}, 0x100}, high));
    EXPECT_TRUE(bus.map({{0x1000}, 0x1000}, low));
  }
};

TEST_F(BusTest, DevicesSeeOffsets) {
  EXPECT_EQ(bus.read({0x1ff8}, Width::k8), 0x8877'6655'4433'2211u);
  EXPECT_EQ(low.last, 0xff8u);
  EXPECT_TRUE(bus.write({0x2004}, Width::k4, 0x1'0000'0002));
  EXPECT_EQ(high.last, 4u);
  EXPECT_EQ(high.last_width, Width::k4);
}

TEST_F(BusTest, ValuesAreAsWideAsTheAccess) {
  EXPECT_EQ(bus.read({0x1000}, Width::k1), 0x11u);
  EXPECT_EQ(bus.read({0x1000}, Width::k2), 0x2211u);
  EXPECT_EQ(bus.read({0x1000}, Width::k4), 0x4433'2211u);
  EXPECT_TRUE(bus.write({0x1000}, Width::k1, 0x1234));
  EXPECT_EQ(low.last_value, 0x34u);
}

TEST_F(BusTest, RefusesHolesMisalignmentAndStraddling) {
  low.last = high.last = 99;
  for (const std::uint64_t gpa : {0x0ull, 0xfffull, 0x2100ull, ~0ull}) {
    EXPECT_EQ(bus.read({gpa}, Width::k1), std::nullopt) << gpa;
    EXPECT_FALSE(bus.write({gpa}, Width::k1, 0)) << gpa;
  }
  EXPECT_EQ(bus.read({0x1001}, Width::k2), std::nullopt);
  EXPECT_EQ(bus.read({0x1004}, Width::k8), std::nullopt);
  EXPECT_EQ(low.last, 99u);
  EXPECT_EQ(high.last, 99u);

  Probe odd{"odd"};
  ASSERT_TRUE(bus.map({{0x3000}, 6}, odd));
  EXPECT_EQ(bus.read({0x3000}, Width::k8), std::nullopt);
  EXPECT_NE(bus.read({0x3004}, Width::k2), std::nullopt);
}

TEST_F(BusTest, RefusesOverlapNamingBothDevices) {
  Probe third{"third"};
  const auto result = bus.map({{0x20ff}, 1}, third);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("third"), std::string::npos);
  EXPECT_NE(result.error().message.find("high"), std::string::npos);
  EXPECT_EQ(bus.mappings().size(), 2u);
  EXPECT_EQ(bus.mappings().front().device, &low);
}

TEST(Bus, AnswersNothingWhileEmpty) {
  EXPECT_EQ(Bus().read({0}, Width::k1), std::nullopt);
}

}  // namespace
}  // namespace doppel::test
