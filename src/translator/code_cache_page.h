// A page of a code cache, for the parts that the cache is written in. Not for others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>

#include "memory/code_page.h"
#include "translator/branch_profile.h"
#include "translator/code_cache.h"

namespace doppel {

struct CodeCache::Page {
  // One that could not be lifted was looked at as well, behind a block.
  static constexpr std::size_t kLongestInstruction = 4;

  // Its number, and whether its code is for a window.
  static std::uint64_t key_of(std::uint64_t base, bool windowed) {
    return base >> kPageShift | std::uint64_t{windowed} << 63;
  }
  std::uint64_t key() const { return key_of(base, window.has_value()); }

  std::uint64_t base = 0;
  std::unordered_map<unsigned, Block> blocks;  // by offset
  BranchProfile branches;                      // of its regions
  bool loaded = false;                         // what the archive has for it
  bool is_current = false;                     // one of entered_
  std::uint64_t archived_at = 0;               // its address there, once that is so
  std::optional<x64::Window> window;           // in paged memory, where its code is for one
  std::unordered_map<unsigned, std::uint8_t> misses;  // of that, by offset
  // What its bytes were, where memory may change without a word.
  struct Source {
    CodePage copy;
    const std::byte* host = nullptr;
    std::uint64_t generation = 0;  // of the last comparison with memory
    CodePage::Lines used = 0;      // that blocks were made of
    bool others_stale = false;     // the other lines may be older than that comparison
    bool has_behind = false;       // the copy has what comes behind the page
    bool used_behind = false;      // likewise
    std::uint8_t changes_behind = 0;  // in paged memory, how often note_behind() was told of others

    const std::byte* fresh() {
      if (std::exchange(others_stale, false)) copy.copy(host, ~used);
      return copy.bytes();
    }
    std::span<const std::byte> bytes() { return {fresh(), kPageSize + (has_behind ? CodePage::kBytesBehind : 0)}; }
  };
  std::unique_ptr<Source> source;
  std::unique_ptr<Entries> entries;  // in paged memory
};

}  // namespace doppel
