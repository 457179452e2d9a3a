#include "translator/branch_profile.h"

#include <gtest/gtest.h>

#include <vector>

namespace doppel {
namespace {

using State = BranchProfile::State;
using Regions = std::vector<unsigned>;

constexpr std::uint8_t kHot = 8;
constexpr unsigned kHead = 0x100, kSide = 0x120, kRegion = 0x80, kOther = 0x100;
constexpr ShortBranch kBranch{.head = kHead, .side = kSide, .head_instructions = 4, .side_instructions = 4};

// As often as that, one after the other; the first answer that names somebody.
Regions run(BranchProfile& profile, unsigned offset, unsigned times) {
  for (unsigned i = 0; i < times; ++i) {
    if (Regions regions = profile.note_running(offset, kHot); !regions.empty()) return regions;
  }
  return {};
}

TEST(BranchProfile, NamesWhoAskedOnceItIsDecided) {
  BranchProfile profile;
  for (const unsigned region : {kRegion, kOther, kRegion}) EXPECT_EQ(profile.ask(kBranch, region), State::kOpen);
  EXPECT_EQ(run(profile, kSide, 10), Regions());
  // The side runs about half of the time only now.
  EXPECT_EQ(run(profile, kHead, 12), (Regions{kRegion, kOther}));
  EXPECT_EQ(profile.ask(kBranch, kRegion), State::kBothWays);
  EXPECT_TRUE(profile.both_ways().test(kHead / 2));
  EXPECT_EQ(profile.both_ways().count(), 1u);
  EXPECT_EQ(run(profile, kHead, 1000), Regions());
}

TEST(BranchProfile, WaitsLongForWhatSeldomRuns) {
  BranchProfile profile;
  profile.ask(kBranch, kRegion);
  EXPECT_EQ(run(profile, kSide, 1), Regions());
  EXPECT_EQ(run(profile, kHead, 8 * kHot - 1), Regions());
  EXPECT_EQ(profile.ask(kBranch, kRegion), State::kOpen);
  EXPECT_EQ(run(profile, kHead, 1), Regions{kRegion});
  EXPECT_EQ(profile.ask(kBranch, kRegion), State::kOneWay);
  EXPECT_TRUE(profile.both_ways().none());
}

// A long side is found running more often than it runs.
TEST(BranchProfile, CountsByLength) {
  for (const std::size_t length : {4u, 40u}) {
    BranchProfile profile;
    profile.ask({.head = kHead, .side = kSide, .head_instructions = 4, .side_instructions = length}, kRegion);
    for (unsigned i = 0; i < 20; ++i) {
      run(profile, kHead, 2);
      run(profile, kSide, 1);
    }
    EXPECT_EQ(profile.both_ways().any(), length == 4);
  }
}

TEST(BranchProfile, KnowsNothingOfOtherCode) {
  BranchProfile profile;
  EXPECT_EQ(run(profile, kHead, 100), Regions());
  profile.ask(kBranch, kRegion);
  profile.clear();
  EXPECT_EQ(run(profile, kHead, 100), Regions());
}

}  // namespace
}  // namespace doppel
