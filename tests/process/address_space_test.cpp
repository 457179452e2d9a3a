#include "process/address_space.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>
#include <thread>
#include <vector>

namespace doppel::process {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;
constexpr int kPrivate = MAP_PRIVATE | MAP_ANONYMOUS;

class AddressSpaceTest : public testing::TestWithParam<AddressSpace::Place> {
 protected:
  void SetUp() override {
    auto made = AddressSpace::create(GetParam());
    ASSERT_TRUE(made) << made.error().message;
    space_ = std::move(*made);
    space_->on_code_change = [this](std::uint64_t, std::uint64_t) { ++code_changes_; };
  }

  std::uint64_t map(std::uint64_t gva, std::uint64_t count, int protection = kReadWrite, int flags = kPrivate) {
    const std::int64_t at = space_->map(gva, count * kPage, protection, flags, -1, 0);
    EXPECT_GT(at, 0);
    return static_cast<std::uint64_t>(at);
  }
  std::byte& at(std::uint64_t gva) { return *space_->flat().host(gva); }
  std::string layout(std::uint64_t gva, unsigned count) {  // one letter a page
    std::string text;
    for (unsigned i = 0; i < count; ++i) {
      const std::uint64_t page = gva + i * kPage;
      text += space_->allows(page, PROT_WRITE)  ? 'w'
              : space_->allows(page, PROT_EXEC) ? 'x'
              : space_->allows(page, PROT_READ) ? 'r'
                                                : '.';
    }
    return text;
  }

  std::unique_ptr<AddressSpace> space_;
  int code_changes_ = 0;
};

TEST_P(AddressSpaceTest, SplitsAndJoinsRegions) {
  const std::uint64_t gva = map(0, 8);
  EXPECT_EQ(space_->protect(gva + 2 * kPage, 2 * kPage, PROT_READ), 0);
  EXPECT_EQ(space_->unmap(gva + 6 * kPage, kPage), 0);
  EXPECT_EQ(layout(gva, 9), "wwrrww.w.");
  EXPECT_EQ(space_->protect(gva + 4 * kPage, 4 * kPage, PROT_READ), -ENOMEM);
  EXPECT_EQ(space_->protect(gva + 2 * kPage, 2 * kPage, kReadWrite), 0);
  EXPECT_EQ(map(gva + 6 * kPage, 1, PROT_NONE, kPrivate | MAP_FIXED), gva + 6 * kPage);
  EXPECT_EQ(layout(gva, 8), "wwwwww.w");
}

TEST_P(AddressSpaceTest, PlacesAsAsked) {
  const std::uint64_t gva = map(0, 4);
  EXPECT_EQ(space_->map(gva, kPage, kReadWrite, kPrivate | MAP_FIXED_NOREPLACE, -1, 0), -EEXIST);
  EXPECT_NE(map(gva, 1), gva);  // an occupied hint
  EXPECT_EQ(map(0x5000'0123, 1), 0x5000'0000);
  EXPECT_EQ(space_->map(0, kPage, kReadWrite, kPrivate | MAP_FIXED, -1, 0), -EPERM);
  EXPECT_EQ(space_->map(kPage / 2, kPage, kReadWrite, kPrivate | MAP_FIXED, -1, 0), -EINVAL);
  EXPECT_EQ(space_->map(0, 0, kReadWrite, kPrivate, -1, 0), -EINVAL);
  EXPECT_EQ(space_->map(0, ~std::uint64_t{0}, kReadWrite, kPrivate, -1, 0), -ENOMEM);
  EXPECT_EQ(space_->map(AddressSpace::kLowBytes - kPage, 2 * kPage, PROT_READ, kPrivate | MAP_FIXED, -1, 0), -ENOMEM);
  EXPECT_EQ(space_->map(~std::uint64_t{0} << 12, kPage, PROT_READ, kPrivate | MAP_FIXED, -1, 0), -ENOMEM);
  EXPECT_EQ(space_->unmap(~std::uint64_t{0} << 12, kPage), -EINVAL);
}

TEST_P(AddressSpaceTest, RemapsInPlaceAndElsewhere) {
  const std::uint64_t gva = map(0x4000'0000, 2);
  at(gva) = std::byte{7};
  EXPECT_EQ(space_->remap(gva, 2 * kPage, 6 * kPage, 0, 0), static_cast<std::int64_t>(gva));
  EXPECT_EQ(layout(gva, 7), "wwwwww.");
  map(gva + 6 * kPage, 1, PROT_READ);
  EXPECT_EQ(space_->remap(gva, 6 * kPage, 7 * kPage, 0, 0), -ENOMEM);
  const std::int64_t moved = space_->remap(gva, 6 * kPage, 7 * kPage, MREMAP_MAYMOVE, 0);
  ASSERT_GT(moved, 0);
  const auto there = static_cast<std::uint64_t>(moved);
  EXPECT_EQ(at(there), std::byte{7});
  EXPECT_EQ(layout(gva, 7), "......r");
  EXPECT_EQ(space_->remap(there, 7 * kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, gva + 6 * kPage),
            static_cast<std::int64_t>(gva + 6 * kPage));
  EXPECT_EQ(layout(gva, 7), "......w");
  EXPECT_EQ(layout(there, 7), ".......");
  EXPECT_EQ(space_->remap(gva, kPage, 2 * kPage, MREMAP_MAYMOVE, 0), -EFAULT);
  // What was moved away is free again.
  EXPECT_EQ(map(gva, 6, kReadWrite, kPrivate | MAP_FIXED_NOREPLACE), gva);
}

TEST_P(AddressSpaceTest, KeepsTheOldPlaceWhenAsked) {
  const std::uint64_t gva = map(0, 2);
  at(gva) = std::byte{7};
  const std::int64_t moved = space_->remap(gva, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0);
  ASSERT_GT(moved, 0);
  EXPECT_EQ(at(static_cast<std::uint64_t>(moved)), std::byte{7});
  EXPECT_EQ(at(gva), std::byte{0});
}

TEST_P(AddressSpaceTest, TellsOfCodeAlone) {
  const std::uint64_t data = map(0, 4);
  space_->protect(data, kPage, PROT_READ);
  space_->unmap(data, 4 * kPage);
  EXPECT_EQ(code_changes_, 0);
  const std::uint64_t code = map(0, 4, PROT_READ | PROT_EXEC);
  EXPECT_EQ(code_changes_, 1);
  space_->advise(code, kPage, MADV_WILLNEED);
  EXPECT_EQ(code_changes_, 1);
  space_->advise(code, kPage, MADV_DONTNEED);
  EXPECT_EQ(code_changes_, 2);
  space_->protect(code + kPage, kPage, PROT_READ);
  EXPECT_EQ(code_changes_, 3);
  space_->unmap(code + kPage, kPage);
  EXPECT_EQ(code_changes_, 3);
  space_->remap(code + 2 * kPage, 2 * kPage, 4 * kPage, MREMAP_MAYMOVE, 0);
  EXPECT_EQ(code_changes_, 4);
}

TEST_P(AddressSpaceTest, MovesTheBreak) {
  space_->start_break_at(0x2000'0001);
  const std::int64_t start = space_->set_break(0);
  EXPECT_EQ(start, 0x2000'1000);
  EXPECT_EQ(space_->set_break(static_cast<std::uint64_t>(start) + 5000), start + 5000);
  EXPECT_EQ(layout(0x2000'1000, 3), "ww.");
  map(0x2001'0000, 1);
  EXPECT_EQ(space_->set_break(0x2002'0000), start + 5000);  // something is in the way
  EXPECT_EQ(space_->set_break(static_cast<std::uint64_t>(start)), start);
  EXPECT_EQ(layout(0x2000'1000, 2), "..");
}

TEST_P(AddressSpaceTest, ServesManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this] {
      for (int i = 0; i < 500; ++i) {
        const std::uint64_t gva = map(0, 3);
        at(gva + 2 * kPage) = std::byte{1};
        EXPECT_EQ(space_->protect(gva, kPage, PROT_READ), 0);
        EXPECT_EQ(layout(gva, 3), "rww");
        EXPECT_EQ(space_->unmap(gva, 3 * kPage), 0);
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

INSTANTIATE_TEST_SUITE_P(Places, AddressSpaceTest,
                         testing::Values(AddressSpace::Place::kIdentity, AddressSpace::Place::kElsewhere),
                         [](const auto& tested) {
                           return tested.param == AddressSpace::Place::kIdentity ? "Identity" : "Elsewhere";
                         });

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(AddressSpace, IsTheHostsOwnWhereThatIsFree) {
  const auto space = AddressSpace::create();
  ASSERT_TRUE(space);
  EXPECT_EQ((*space)->flat().base, nullptr);
  const auto second = AddressSpace::create(AddressSpace::Place::kElsewhere);
  ASSERT_TRUE(second);
  EXPECT_NE((*second)->flat().base, nullptr);
}

TEST(AddressSpace, NeedsNoRoomUnderALimit) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
  const rlimit tight{std::uint64_t{8} << 30, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &tight), 0);
  const auto space = AddressSpace::create();
  ::setrlimit(RLIMIT_AS, &before);
  ASSERT_TRUE(space);
  EXPECT_EQ((*space)->flat().base, nullptr);
}
#endif

}  // namespace
}  // namespace doppel::process
