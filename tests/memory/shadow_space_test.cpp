#include "memory/shadow_space.h"

#include <map>
#include <random>

#include <gtest/gtest.h>

#include "memory/guarded_access.h"

#include <signal.h>

namespace doppel {
namespace {

constexpr GuestPhysical kRam{0x8000'0000};
constexpr std::uint64_t kPages = 64;

// Accesses through the space, where a fault of the host is an answer.
class ShadowSpaceTest : public testing::Test {
 protected:
  void SetUp() override {
    struct sigaction action = {};
    action.sa_sigaction = [](int signal, siginfo_t*, void* context) {
      if (!recover_guarded_access(signal, *static_cast<ucontext_t*>(context))) ::signal(signal, SIG_DFL);
    };
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGSEGV, &action, &before_);
    ASSERT_TRUE(memory_.add_ram({kRam, kPages * kPageSize}));
    for (std::uint64_t i = 0; i < kPages; ++i) ASSERT_TRUE(memory_.store<std::uint64_t>(page(i), i));
    space_ = ShadowSpace::create(memory_);
    ASSERT_NE(space_, nullptr);
  }
  void TearDown() override { ::sigaction(SIGSEGV, &before_, nullptr); }

  static GuestPhysical page(std::uint64_t i) { return kRam + i * kPageSize; }
  std::optional<std::uint64_t> read(std::uint64_t gva) {
    std::uint64_t value = 0;
    if (guarded_read(space_->host(gva), 8, value) != 0) return std::nullopt;
    return value;
  }
  bool write(std::uint64_t gva, std::uint64_t value) { return guarded_write(space_->host(gva), 8, value) == 0; }

  GuestMemory memory_;
  std::unique_ptr<ShadowSpace> space_;
  struct sigaction before_ {};
};

using Page = ShadowSpace::Page;
using GuestPage = ShadowSpace::GuestPage;

std::optional<GuestPage> nothing(std::uint64_t) { return std::nullopt; }

TEST_F(ShadowSpaceTest, HasWhatWasEntered) {
  EXPECT_EQ(read(0x10000), std::nullopt);
  ASSERT_TRUE(space_->enter(0x10123, {page(3), false}, kPageSize, kPageSize));
  ASSERT_TRUE(space_->enter(ShadowSpace::kBytes - 8, {page(4), true}, kPageSize, kPageSize));
  EXPECT_EQ(read(0x10000), 3u);
  EXPECT_FALSE(write(0x10000, 9));
  EXPECT_EQ(read(0x11000), std::nullopt);
  EXPECT_EQ(read(0xf000), std::nullopt);
  EXPECT_TRUE(write(ShadowSpace::kBytes - kPageSize, 9));
  EXPECT_EQ(memory_.load<std::uint64_t>(page(4)), 9u);
  EXPECT_EQ(read(ShadowSpace::kBytes), std::nullopt);
  // Once more, with other rights.
  ASSERT_TRUE(space_->enter(0x10000, {page(3), true}, kPageSize, kPageSize));
  EXPECT_TRUE(write(0x10000, 10));
}

TEST_F(ShadowSpaceTest, RefusesWhatIsNotThere) {
  EXPECT_FALSE(space_->enter(ShadowSpace::kBytes, {page(0), true}, kPageSize, kPageSize));
  EXPECT_FALSE(space_->enter(~std::uint64_t{0}, {page(0), true}, kPageSize, kPageSize));
  EXPECT_FALSE(space_->enter(0, {page(kPages), true}, kPageSize, kPageSize));
  EXPECT_EQ(read(0), std::nullopt);
}

TEST_F(ShadowSpaceTest, RemovesWhatChangedAndWasSuspected) {
  std::map<std::uint64_t, Page> tables{{0x1000, {page(1), true}}, {0x2000, {page(2), true}}, {0x3000, {page(3), true}}};
  for (const auto& [gva, entry] : tables) ASSERT_TRUE(space_->enter(gva, entry, kPageSize, kPageSize));
  const auto look = [&](std::uint64_t gva) -> std::optional<GuestPage> {
    const auto found = tables.find(gva);
    if (found == tables.end()) return std::nullopt;
    return GuestPage{found->second, kPageSize};
  };
  tables.erase(0x2000);
  tables.at(0x3000).writable = false;
  space_->verify(look);
  EXPECT_EQ(read(0x2000), 2u) << "nobody suspects it";
  space_->suspect(0x2008);
  EXPECT_EQ(read(0x2000), 2u) << "not yet";
  space_->verify(look);
  EXPECT_EQ(read(0x2000), std::nullopt);
  EXPECT_TRUE(write(0x3000, 7));
  space_->suspect_all();
  space_->verify(look);
  EXPECT_EQ(read(0x1000), 1u);
  EXPECT_EQ(read(0x3000), std::nullopt);
}

// A fence of any address in a large page is one of all its pieces.
TEST_F(ShadowSpaceTest, SuspectsAllOfLargePages) {
  constexpr std::uint64_t kLarge = std::uint64_t{2} << 20, kHuge = std::uint64_t{1} << 30;
  ASSERT_TRUE(space_->enter(kLarge, {page(1), true}, kPageSize, kLarge));
  ASSERT_TRUE(space_->enter(4 * kLarge, {page(2), true}, kPageSize, kPageSize));
  space_->suspect(kLarge + 0x1f'f000);
  space_->suspect(4 * kLarge + kPageSize);
  space_->verify(nothing);
  EXPECT_EQ(read(kLarge), std::nullopt);
  EXPECT_EQ(read(4 * kLarge), 2u);
  ASSERT_TRUE(space_->enter(kHuge, {page(3), true}, kPageSize, kHuge));
  space_->suspect(kHuge + kHuge / 2);
  space_->verify(nothing);
  EXPECT_EQ(read(kHuge), std::nullopt);
}

// A page of 2 MiB that is all there is looked at once.
TEST_F(ShadowSpaceTest, VerifiesLargePagesAsAWhole) {
  constexpr std::uint64_t kLarge = ShadowSpace::kPieceBytes;
  GuestMemory large;
  ASSERT_TRUE(large.add_ram({kRam, 2 * kLarge}));
  space_ = ShadowSpace::create(large);
  const Page first{kRam, true};
  ASSERT_TRUE(space_->enter(kLarge, first, kLarge, kLarge, false));
  unsigned looks = 0;
  const auto as_before = [&](std::uint64_t gva) -> std::optional<GuestPage> {
    ++looks;
    return GuestPage{{kRam + (gva - kLarge), true}, kLarge};
  };
  space_->suspect(kLarge + 5 * kPageSize);
  space_->verify(as_before);
  EXPECT_EQ(looks, 1u);
  EXPECT_TRUE(write(2 * kLarge - 8, 1));
  // Of small pages now, one of which lies elsewhere.
  space_->suspect_all();
  space_->verify([&](std::uint64_t gva) -> std::optional<GuestPage> {
    const bool moved = gva == kLarge + kPageSize;
    return GuestPage{{kRam + (gva - kLarge) + (moved ? kLarge : 0), true}, kPageSize};
  });
  EXPECT_TRUE(write(kLarge, 1));
  EXPECT_FALSE(write(kLarge + kPageSize, 1));
  EXPECT_EQ(space_->removals_around(kLarge), 1u);
  space_->suspect_all();
  looks = 0;
  space_->verify(as_before);
  EXPECT_GT(looks, 500u) << "it is not whole any more";
}

TEST_F(ShadowSpaceTest, HasTheUpperHalf) {
  space_ = ShadowSpace::create(memory_, ShadowSpace::kUpperHalf);
  constexpr std::uint64_t kLast = 0 - kPageSize;
  EXPECT_FALSE(space_->enter(0, {page(0), true}, kPageSize, kPageSize));
  EXPECT_FALSE(space_->enter(ShadowSpace::kUpperHalf - kPageSize, {page(0), true}, kPageSize, kPageSize));
  ASSERT_TRUE(space_->enter(ShadowSpace::kUpperHalf, {page(1), true}, kPageSize, kPageSize));
  ASSERT_TRUE(space_->enter(kLast - kPageSize, {page(2), true}, 2 * kPageSize, kPageSize));
  EXPECT_EQ(read(ShadowSpace::kUpperHalf), 1u);
  EXPECT_EQ(read(kLast), 3u);
  std::uint64_t value = 0;
  const std::uintptr_t sum = space_->base() + kLast;
  EXPECT_EQ(guarded_read(reinterpret_cast<const std::byte*>(sum), 8, value), 0);
  EXPECT_EQ(value, 3u);
  space_->suspect(kLast);
  space_->verify(nothing);
  EXPECT_EQ(read(kLast), std::nullopt);
  EXPECT_EQ(read(kLast - kPageSize), 2u);
  space_->clear();
  EXPECT_EQ(read(ShadowSpace::kUpperHalf), std::nullopt);
}

// Several at once lie one behind the other, and go one by one.
TEST_F(ShadowSpaceTest, EntersRuns) {
  ASSERT_TRUE(space_->enter(0x10000, {page(8), true}, 4 * kPageSize, kPageSize));
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(read(0x10000 + i * kPageSize), 8 + i);
  EXPECT_EQ(read(0x14000), std::nullopt);
  space_->suspect(0x11000);
  space_->verify(nothing);
  EXPECT_EQ(read(0x10000), 8u);
  EXPECT_EQ(read(0x11000), std::nullopt);
  EXPECT_EQ(read(0x12000), 10u);
  EXPECT_FALSE(space_->enter(0x20000, {page(kPages - 1), true}, 2 * kPageSize, kPageSize)) << "the second is no RAM";
}

// Against a map that says what must be there, by chance.
TEST_F(ShadowSpaceTest, KeepsUpWithItsModel) {
  std::mt19937_64 random(1);
  std::map<std::uint64_t, Page> entered;
  const auto address = [&] { return (random() % 96 + (random() % 4 << 9)) << kPageShift; };
  for (unsigned round = 0; round < 3000; ++round) {
    const std::uint64_t gva = address();
    if (random() % 4 != 0) {
      const Page entry{page(random() % 2 == 0 ? gva / kPageSize % kPages : random() % kPages), random() % 2 == 0};
      ASSERT_TRUE(space_->enter(gva, entry, kPageSize, kPageSize));
      entered[gva] = entry;
    } else {
      for (unsigned i = 0; i < 8; ++i) {
        const std::uint64_t gone = address();
        space_->suspect(gone);
        entered.erase(gone);
      }
      space_->verify([&](std::uint64_t at) -> std::optional<GuestPage> {
        const auto found = entered.find(at);
        if (found == entered.end()) return std::nullopt;
        return GuestPage{found->second, kPageSize};
      });
    }
    const std::uint64_t at = address();
    const auto found = entered.find(at);
    ASSERT_EQ(read(at), found == entered.end() ? std::nullopt : memory_.load<std::uint64_t>(found->second.gpa));
    ASSERT_EQ(write(at, at), found != entered.end() && found->second.writable);
  }
}

}  // namespace
}  // namespace doppel
