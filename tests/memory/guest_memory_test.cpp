#include "memory/guest_memory.h"

#include <array>
#include <thread>

#include <gtest/gtest.h>

namespace doppel {
namespace {

constexpr GuestPhysical kLow{0x8000'0000};
constexpr GuestPhysical kHigh{0x8000'4000};

// Two adjacent regions and nothing else.
GuestMemory two_regions() {
  GuestMemory memory;
  EXPECT_TRUE(memory.add_ram({kLow, 0x4000}));
  EXPECT_TRUE(memory.add_ram({kHigh, 0x1000}));
  return memory;
}

std::vector<std::byte> some_bytes(std::size_t count) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < count; ++i) bytes.push_back(static_cast<std::byte>(i + 1));
  return bytes;
}

TEST(GuestPhysicalRange, ContainsExactlyAlsoWhereSumsWrap) {
  constexpr GuestPhysicalRange range{{0x1000}, 0x1000};
  EXPECT_TRUE(range.contains({0x1000}));
  EXPECT_TRUE(range.contains({0x1ff8}, 8));
  EXPECT_FALSE(range.contains({0x1ff9}, 8));
  EXPECT_FALSE(range.contains({0xfff}));
  EXPECT_FALSE(range.contains({0x2000}));
  EXPECT_FALSE(range.contains({0x1800}, ~std::uint64_t{0}));
  EXPECT_FALSE(range.contains({~std::uint64_t{0}}, 0x1001));
  EXPECT_TRUE(range.contains({0x1800}, 0));
}

TEST(GuestPhysicalRange, Overlaps) {
  constexpr GuestPhysicalRange range{{0x1000}, 0x1000};
  EXPECT_TRUE(range.overlaps({{0x1fff}, 1}));
  EXPECT_TRUE(range.overlaps({{0}, 0x10000}));
  EXPECT_FALSE(range.overlaps({{0x2000}, 1}));
  EXPECT_FALSE(range.overlaps({{0xfff}, 1}));
}

TEST(GuestMemory, RefusesPartialPagesAndOverlap) {
  GuestMemory memory;
  EXPECT_FALSE(memory.add_ram({{0x1000}, 0}));
  EXPECT_FALSE(memory.add_ram({{0x1001}, 0x1000}));
  EXPECT_FALSE(memory.add_ram({{0x1000}, 0x1001}));
  EXPECT_TRUE(memory.add_ram({{0x1000}, 0x1000}));
  EXPECT_FALSE(memory.add_ram({{0x1000}, 0x1000}));
  EXPECT_EQ(memory.size_bytes(), 0x1000u);
}

TEST(GuestMemory, SaysSoWhenTheHostHasNoRoom) {
  GuestMemory memory;
  const auto result = memory.add_ram({{0}, std::uint64_t{1} << 60});
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("host"), std::string::npos);
}

TEST(GuestMemory, StartsZeroedAndKeepsWhatIsWritten) {
  const GuestMemory memory = two_regions();
  EXPECT_EQ(memory.load<std::uint64_t>(kLow), 0u);
  const auto written = some_bytes(100);
  ASSERT_TRUE(memory.write(kLow + 0x7f, written));
  std::vector<std::byte> seen(100);
  ASSERT_TRUE(memory.read(kLow + 0x7f, seen));
  EXPECT_EQ(seen, written);
}

TEST(GuestMemory, RefusesWhatIsNotWhollyInOneRegionAndCopiesNothing) {
  const GuestMemory memory = two_regions();
  const auto bytes = some_bytes(16);
  EXPECT_FALSE(memory.write(kHigh - 8, bytes));
  EXPECT_EQ(memory.load<std::uint64_t>(kHigh - 8), 0u);
  EXPECT_EQ(memory.load<std::uint64_t>(kHigh), 0u);
  EXPECT_FALSE(memory.write(kLow - 1, bytes));
  EXPECT_FALSE(memory.write(kHigh + 0xff8, bytes));
  EXPECT_FALSE(memory.write({~std::uint64_t{0}}, bytes));
  auto seen = some_bytes(16);
  EXPECT_FALSE(memory.read(kHigh + 0xff8, seen));
  EXPECT_EQ(seen, some_bytes(16));
  EXPECT_EQ(memory.host(kLow, ~std::uint64_t{0}), nullptr);
}

TEST(GuestMemory, LoadsAndStoresAlignedLittleEndianValues) {
  const GuestMemory memory = two_regions();
  ASSERT_TRUE(memory.store<std::uint32_t>(kLow + 4, 0x1234'5678));
  EXPECT_EQ(memory.load<std::uint8_t>(kLow + 4), 0x78);
  EXPECT_EQ(memory.load<std::uint16_t>(kLow + 6), 0x1234);
  EXPECT_EQ(memory.load<std::uint64_t>(kLow), 0x1234'5678'0000'0000u);
  EXPECT_EQ(memory.load<std::uint32_t>(kLow + 2), std::nullopt);
  EXPECT_FALSE(memory.store<std::uint16_t>(kLow + 1, 0));
  EXPECT_EQ(memory.load<std::uint8_t>(kHigh + 0x1000), std::nullopt);
}

TEST(GuestMemory, PublishesBetweenThreads) {
  const GuestMemory memory = two_regions();
  const auto payload = some_bytes(64);
  std::thread producer([&] {
    EXPECT_TRUE(memory.write(kLow + 64, payload));
    EXPECT_TRUE(memory.store<std::uint16_t>(kLow, 1));
  });
  while (memory.load<std::uint16_t>(kLow) != 1) std::this_thread::yield();
  std::vector<std::byte> seen(64);
  ASSERT_TRUE(memory.read(kLow + 64, seen));
  EXPECT_EQ(seen, payload);
  producer.join();
}

TEST(GuestMemory, MovesWithItsBytes) {
  GuestMemory memory = two_regions();
  ASSERT_TRUE(memory.store<std::uint8_t>(kLow, 9));
  const GuestMemory moved = std::move(memory);
  EXPECT_EQ(moved.load<std::uint8_t>(kLow), 9);
  EXPECT_EQ(moved.regions().size(), 2u);
}

}  // namespace
}  // namespace doppel
