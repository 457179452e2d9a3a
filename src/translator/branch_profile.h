// Which short branches of a page go both ways, learnt from where code is found running: regions make choices of those.
// One thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "isa/common/block_limits.h"
#include "translator/region.h"

namespace doppel {

class BranchProfile {
 public:
  enum class State : std::uint8_t { kOpen, kBothWays, kOneWay };

  // How the branch goes, for the region at that page offset. As long as that is open note_running() may name the region.
  State ask(const ShortBranch& branch, unsigned region);
  // Code was found running at `offset`, as what is hot was `hot_after` times. Gives the regions that have asked for what is
  // known now.
  std::vector<unsigned> note_running(unsigned offset, std::uint8_t hot_after);
  bool is_open() const;  // the way of some branch is to be found yet
  // The blocks whose branch is known to go both ways.
  isa::PageOffsets both_ways() const;
  void clear() { branches_.clear(); }

 private:
  struct Branch {
    ShortBranch at;
    State state = State::kOpen;
    unsigned head_samples = 0, side_samples = 0;
    std::vector<unsigned> regions;  // that have asked
  };
  static State decide(const Branch& branch, unsigned hot_after);

  std::map<unsigned, Branch> branches_;  // by the offset of the block before
};

}  // namespace doppel
