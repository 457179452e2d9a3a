#include "translator/branch_profile.h"

#include <algorithm>
#include <utility>

namespace doppel {
namespace {

// A branch goes both ways if neither is taken so many times as often as the other: else the host predicts it well enough.
constexpr std::size_t kOneSided = 6;
// What has to be seen for a decision, as parts and multiples of how often what is hot was found running: so often what
// the branch jumps over, to say that it goes both ways; so often the block before, to say that it does not.
constexpr unsigned kFewestSamples = 4;
constexpr unsigned kMostSamples = 8;

}  // namespace

BranchProfile::State BranchProfile::ask(const ShortBranch& branch, unsigned region) {
  Branch& known = branches_.try_emplace(branch.head, Branch{.at = branch, .regions = {}}).first->second;
  if (known.state == State::kOpen && std::ranges::find(known.regions, region) == known.regions.end()) {
    known.regions.push_back(region);
  }
  return known.state;
}

bool BranchProfile::is_open() const {
  return std::ranges::any_of(branches_, [](const auto& entry) { return entry.second.state == State::kOpen; });
}

std::vector<unsigned> BranchProfile::note_running(unsigned offset, std::uint8_t hot_after) {
  for (auto& [head, branch] : branches_) {
    if (branch.state == State::kOpen && branch.at.side == offset) ++branch.side_samples;
  }
  const auto found = branches_.find(offset);
  if (found == branches_.end() || found->second.state != State::kOpen) return {};
  Branch& branch = found->second;
  ++branch.head_samples;
  branch.state = decide(branch, hot_after);
  return branch.state == State::kOpen ? std::vector<unsigned>() : std::move(branch.regions);
}

BranchProfile::State BranchProfile::decide(const Branch& branch, unsigned hot_after) {
  // A block is found running in proportion to its length, too.
  const std::size_t all = branch.head_samples * branch.at.side_instructions;
  const std::size_t side = std::min(all, branch.side_samples * branch.at.head_instructions);
  const std::size_t over = all - side;
  const bool is_seen = branch.side_samples >= std::max(hot_after / kFewestSamples, 1u);
  if (is_seen && std::max(side, over) < kOneSided * std::min(side, over)) return State::kBothWays;
  return branch.head_samples < hot_after * kMostSamples ? State::kOpen : State::kOneWay;
}

isa::PageOffsets BranchProfile::both_ways() const {
  isa::PageOffsets offsets;
  for (const auto& [head, branch] : branches_) offsets[head / 2] = branch.state == State::kBothWays;
  return offsets;
}

}  // namespace doppel
