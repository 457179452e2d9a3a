#include "translator/region.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>

#include "ir/opt/if_conversion.h"

namespace doppel {
namespace {

constexpr std::size_t kMostBlocks = 64;
constexpr unsigned kMostInstructions = 600;

// Page offsets that the block at `offset` may continue at within its page.
std::vector<unsigned> successors(const ir::Block& block, unsigned offset) {
  std::vector<unsigned> found;
  for (const ir::Inst& inst : block.insts) {
    if (inst.op != ir::Op::kExit && inst.op != ir::Op::kExitIf) continue;
    // A call leaves the region, for what it calls ends by a jump that only the guest knows.
    if (static_cast<ir::ExitKind>(inst.detail) != ir::ExitKind::kGo) continue;
    const std::int64_t target = static_cast<std::int64_t>(offset) + inst.imm;
    if (target >= 0 && target < static_cast<std::int64_t>(kPageSize)) found.push_back(static_cast<unsigned>(target));
  }
  return found;
}

using Graph = std::map<unsigned, std::vector<unsigned>>;

std::set<unsigned> reachable(const Graph& edges, unsigned from) {
  std::set<unsigned> seen{from};
  std::vector<unsigned> open{from};
  while (!open.empty()) {
    const auto next = edges.find(open.back());
    open.pop_back();
    if (next == edges.end()) continue;
    for (const unsigned to : next->second) {
      if (seen.insert(to).second) open.push_back(to);
    }
  }
  return seen;
}

using Blocks = std::map<unsigned, ir::Block>;  // by page offset

bool too_long(const ir::Block& first, const ir::Block& second) {
  return first.origins.size() + second.origins.size() > isa::BlockLimits::kMostInstructions;
}

// Branches over little code that go both ways become choices, where they lie in the loop.
void convert_branches(Blocks& blocks, Graph& edges, const std::set<unsigned>& loop, const RegionProfile& profile) {
  for (const unsigned offset : loop) {
    const auto found = blocks.find(offset);
    if (found == blocks.end()) continue;
    ir::Block& block = found->second;
    const auto side = blocks.find(offset + block.guest_bytes);
    if (side == blocks.end() || too_long(block, side->second)) continue;
    auto converted = ir::without_branch(block, side->second);
    if (!converted) continue;
    const ShortBranch branch{offset, side->first, block.origins.size(), side->second.origins.size()};
    if (!profile.goes_both_ways(branch)) continue;
    block = std::move(*converted);
    edges[offset] = successors(block, offset);
  }
}

// Blocks that only one other goes on with become part of it.
void join_blocks(Blocks& blocks, Graph& edges, unsigned head) {
  const std::set<unsigned> entered = reachable(edges, head);
  std::map<unsigned, unsigned> ways;
  for (const unsigned offset : entered) {
    for (const unsigned target : edges[offset]) ++ways[target];
  }
  for (auto& [offset, block] : blocks) {
    if (!entered.contains(offset)) continue;
    for (;;) {
      const unsigned end = offset + block.guest_bytes;
      const auto next = blocks.find(end);
      if (next == blocks.end() || end == head || ways[end] != 1 || too_long(block, next->second)) break;
      auto joined = ir::joined(block, next->second);
      if (!joined) break;
      block = std::move(*joined);
      edges[offset] = successors(block, offset);
    }
  }
}

// What control comes to from `head` and comes back from.
std::set<unsigned> around(const Graph& edges, unsigned head) {
  Graph backward;
  for (const auto& [offset, to] : edges) {
    for (const unsigned target : to) backward[target].push_back(offset);
  }
  const std::set<unsigned> after = reachable(edges, head);
  const std::set<unsigned> before = reachable(backward, head);
  std::set<unsigned> both;
  std::ranges::set_intersection(after, before, std::inserter(both, both.end()));
  return both;
}

// The most used of the guest's registers in [first, first + 8 * count).
std::vector<std::uint32_t> most_used(const std::map<std::uint32_t, std::uint64_t>& uses, std::uint32_t first,
                                     unsigned count, unsigned most) {
  std::vector<std::pair<std::uint64_t, std::uint32_t>> ranked;
  for (const auto& [offset, weight] : uses) {
    if (offset >= first && offset < first + 8 * count) ranked.push_back({weight, offset});
  }
  std::ranges::sort(ranked, std::greater{});
  if (ranked.size() > most) ranked.resize(most);
  std::vector<std::uint32_t> chosen;
  for (const auto& [weight, offset] : ranked) chosen.push_back(offset);
  return chosen;
}

// `chosen` in such an order that those that are `usual` have their usual places; where places are left, all usual ones do.
std::vector<std::uint32_t> beside(std::vector<std::uint32_t> chosen, const std::vector<std::uint32_t>& usual) {
  std::vector<std::uint32_t> placed = usual;
  std::vector<std::uint32_t> others;
  std::ranges::copy_if(chosen, std::back_inserter(others), [&](std::uint32_t offset) {
    return std::ranges::find(usual, offset) == usual.end();
  });
  for (std::uint32_t& place : placed) {
    if (others.empty()) break;
    if (std::ranges::find(chosen, place) != chosen.end()) continue;
    place = others.front();
    others.erase(others.begin());
  }
  placed.insert(placed.end(), others.begin(), others.end());
  return placed;
}

}  // namespace

std::optional<Region> form_region(std::span<const std::byte> page, std::uint64_t base, unsigned head,
                                  const LiftFunction& lift, const x64::StateOffsets& offsets,
                                  const RegionProfile& profile, const ir::PassSet& passes) {
  const bool flat = offsets.memory != x64::MemoryModel::kPaged;
  // What is reachable from the head, in basic blocks.
  Graph forward;
  isa::PageOffsets heads;
  std::vector<unsigned> open{head};
  ir::Block block;
  while (!open.empty() && forward.size() < kMostBlocks) {
    const unsigned offset = open.back();
    open.pop_back();
    if (forward.contains(offset)) continue;
    lift(page, base, offset, {.at_branches = true}, block);
    heads.set(offset / 2);
    std::vector<unsigned>& to = forward[offset] = successors(block, offset);
    for (const unsigned target : to) {
      heads.set(target / 2);
      open.insert(open.begin(), target);
    }
  }
  // Again, now that all places are known where one begins.
  Blocks lifted;
  for (auto& [offset, to] : forward) {
    lift(page, base, offset, {.at_branches = true, .heads = &heads}, lifted[offset]);
    to = successors(lifted[offset], offset);
  }
  if (passes.contains(ir::Combination::kIfConversion)) {
    convert_branches(lifted, forward, around(forward, head), profile);
  }
  if (passes.contains(ir::Combination::kBlockJoining)) join_blocks(lifted, forward, head);
  std::vector<unsigned> members{head};
  for (const unsigned offset : around(forward, head)) {
    if (offset != head) members.push_back(offset);
  }
  const bool loops = members.size() > 1 || std::ranges::find(forward[head], head) != forward[head].end();
  if (!loops) return std::nullopt;

  Region region;
  std::map<std::uint32_t, std::uint64_t> uses;  // of state offsets, by weight
  for (const unsigned offset : members) {
    ir::Block& member = region.blocks.emplace_back(std::move(lifted[offset]));
    ir::optimize(member, passes);
    region.instructions += static_cast<unsigned>(member.origins.size());
    if (region.instructions > kMostInstructions) return std::nullopt;
    const unsigned weight = 1 + 4 * profile.heat(offset);
    region.parts.push_back({member, flat ? base + offset : offset});
    for (const ir::Inst& inst : member.insts) {
      if (inst.op == ir::Op::kGet || inst.op == ir::Op::kSet) uses[static_cast<std::uint32_t>(inst.imm)] += weight;
    }
  }
  region.pins.integer = beside(most_used(uses, offsets.integer_registers, offsets.integer_count, x64::kPinnedRegisters),
                               offsets.pinned);
  region.pins.floating =
      most_used(uses, offsets.floating_registers, offsets.floating_count, x64::kPinnedFloatingRegisters);
  return region;
}

}  // namespace doppel
