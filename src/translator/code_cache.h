// The translated blocks of one vCPU, by guest-physical page.
//
// A page remembers the bytes that its blocks were lifted from. After the guest asked for its stores to be seen
// by fetches (FENCE.I) each page is compared with memory before it is entered again, and loses its blocks when
// it differs; nothing is watched meanwhile, so pages without code cost nothing. Blocks are position-independent
// and say nothing of privilege or address space: a page is translated once, however it is mapped. Direct jumps
// are linked within a page only, so a page's blocks are dropped without looking for who jumps to them. When the
// code memory is full, everything goes.
// Belongs to the vCPU's thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "host/x64/compile.h"
#include "ir/ir.h"
#include "ir/opt/optimize.h"
#include "memory/address.h"
#include "memory/code_page.h"
#include "translator/code_memory.h"
#include "translator/region.h"

namespace doppel {

class CodeCache {
 public:
  struct Page {
    // For each halfword of the page, where its block's code begins; 0: no block, which leads back here.
    std::array<std::uint32_t, kPageSize / 2> entries{};
    std::array<std::uint8_t, kPageSize / 2> heat{};  // how often note_running() named the halfword
    CodePage source;
    const std::byte* host = nullptr;
    GuestPhysical gpa;
    std::uint64_t generation = 0;  // of the last comparison with memory
  };
  static constexpr std::uint32_t kEntriesOffset = offsetof(Page, entries);

  struct Statistics {
    std::uint64_t blocks = 0;
    std::uint64_t regions = 0;
    std::uint64_t guest_instructions = 0;  // in them
    double seconds = 0;                    // spent translating
    std::uint64_t invalidated = 0;         // pages that had changed
    std::uint64_t evictions = 0;           // of the whole cache
    std::uint64_t lookups = 0;
  };

  // `on_clear` is called when pages are about to vanish: pointers to them must be forgotten.
  CodeCache(CodeMemory memory, x64::Compiler compiler, LiftFunction lift, x64::SlowHelper read,
            x64::SlowHelper write, x64::SlowHelper step, std::function<void()> on_clear);

  // The page at `gpa`, whose bytes are at `host`, checked against memory if it has to be.
  Page& page(GuestPhysical gpa, const std::byte* host);
  // The code of the block at `offset` of `page`, translated if it is not yet. May clear the cache, and with it
  // `page`: nullptr then, and the caller starts over.
  const std::byte* entry(Page& page, unsigned offset);
  // Directs jump number `site` to `target`, which entry() gave and which lies in the same page.
  void link(std::uint64_t site, const std::byte* target);
  // Guest code was found running at `offset` of `page`. What is found so `hot_after` times is compiled anew as a region,
  // if it is in a loop.
  void note_running(Page& page, unsigned offset, std::uint8_t hot_after);
  // The guest may have changed code.
  void expect_changes() { ++generation_; }
  // Counts how often the cache was cleared: site numbers of an earlier age mean nothing.
  std::uint64_t age() const { return statistics_.evictions; }

  using EnterFunction = void (*)(void* state, const std::byte* code);
  EnterFunction enter_function() const;
  const std::byte* code() const { return memory_.code(); }
  const x64::Stubs& stubs() const { return stubs_; }  // offsets in code()

  const Statistics& statistics() const { return statistics_; }
  std::uint64_t code_bytes() const { return memory_.used(); }

  // For --trace and --perf-map; called after each translation.
  struct Translation {
    const ir::Block& lifted;             // of a region: its first block, after the passes
    const ir::Block& optimized;
    std::span<const std::byte> code;     // where it runs
    GuestPhysical page;
    unsigned page_offset;
    bool region;
  };
  std::function<void(const Translation&)> on_translation;

 private:
  void clear();
  // Adds code with its links; nullopt, with the cache cleared, when there is no room.
  std::optional<std::uint32_t> add(const x64::EmittedCode& emitted);

  CodeMemory memory_;
  x64::Compiler compiler_;
  LiftFunction lift_;
  std::function<void()> on_clear_;
  x64::Stubs stubs_;
  std::uint32_t stubs_end_ = 0;
  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;  // by guest-physical page number
  std::vector<std::uint32_t> sites_;  // where each jump's displacement is
  std::uint64_t generation_ = 1;
  Statistics statistics_;
  ir::Block block_;  // kept for its memory
};

}  // namespace doppel
