// What a paged cache does when its code memory is full. Its guest has one kind of instruction, which is a block: its bytes are
// what it sets in the state, and where it goes. No code is run: tests read where it leads.
#include "translator/code_cache.h"

#include <fcntl.h>
#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <random>

#include <gtest/gtest.h>

#include "base/unique_fd.h"

namespace doppel {
namespace {

using Entries = CodeCache::Entries;

constexpr unsigned kPages = 24, kBlockBytes = 128, kBlocksAPage = kPageSize / kBlockBytes;
constexpr std::size_t kCodeBytes = 128 << 10, kSegments = 8;
constexpr std::uint64_t kImage = 0xffff'ffff'8000'0000;  // where the pages lie

struct Instruction {
  std::uint64_t number;  // another one for each
  std::uint64_t target;  // its offset in the page, perhaps behind that
};

x64::StateOffsets state_offsets() {
  x64::StateOffsets o{};
  std::uint32_t at = 1024;
  for (std::uint32_t* field : {&o.pc, &o.page, &o.tlb, &o.code, &o.exit, &o.budget, &o.exit_reason, &o.exit_site, &o.stack,
                               &o.clock, &o.leave, &o.signs, &o.outside, &o.window, &o.jump_mask, &o.read.full, &o.read.bare,
                               &o.write.full, &o.write.bare, &o.step.full, &o.step.bare}) {
    *field = at += 32;
  }
  o.memory = x64::MemoryModel::kPaged;
  o.slots = 4096;
  o.tlb_entries = 256;
  o.tlb_chunks = o.tlb_groups = 16;
  o.integer_count = o.floating_count = 32;
  o.floating_registers = 256;
  for (std::uint32_t i = 1; i <= x64::kPinnedRegisters; ++i) o.pinned.push_back(8 * i);
  return o;
}

void lift(std::span<const std::byte> page, std::uint64_t, unsigned offset, const isa::BlockLimits&, ir::Block& block) {
  Instruction instruction;
  std::memcpy(&instruction, &page[offset], sizeof instruction);
  block = {};
  ir::Builder builder(block);
  builder.begin_guest_instruction(0, 0);
  // As much code as a few dozen instructions.
  for (std::uint32_t i = 0; i < 64; ++i) builder.set(512 + 8 * i, builder.constant(instruction.number * (2 * i + 1)));
  builder.emit(ir::Op::kExit, ir::Type::kVoid, ir::kNone, ir::kNone, ir::kNone,
               static_cast<std::int64_t>(instruction.target) - offset);
  block.guest_bytes = kBlockBytes;
}

class PagedCache : public testing::Test {
 protected:
  PagedCache() {
    std::mt19937_64 random(1);
    for (unsigned i = 0; i < kPages * kBlocksAPage; ++i) {
      // One in four goes on in the next page, and none in itself.
      const std::uint64_t distance = (1 + random() % (kBlocksAPage - 1)) * kBlockBytes;
      write(i, {random() | 1, (offset(i) + distance) % kPageSize + (random() % 4 == 0 ? kPageSize : 0)});
    }
  }
  std::unique_ptr<CodeCache> make_cache() {
    CodeCache::Guest guest;
    guest.lift = lift;
    guest.behind = [] { return nullptr; };
    guest.on_eviction = [this] { ++forgotten_; };
    return std::make_unique<CodeCache>(CodeMemory::create(kCodeBytes).value(), x64::Compiler(state_offsets(), {.segment_bases = true}),
                                       std::move(guest), CodeCache::Helpers{});
  }
  // Blocks have numbers: page by page.
  std::byte* bytes(unsigned block) { return &memory_[block * kBlockBytes]; }
  void write(unsigned block, const Instruction& instruction) { std::memcpy(bytes(block), &instruction, sizeof instruction); }
  Instruction instruction(unsigned block) {
    Instruction read;
    std::memcpy(&read, bytes(block), sizeof read);
    return read;
  }
  unsigned target(unsigned block) {
    const unsigned page = block / kBlocksAPage * kBlocksAPage;
    return (page + static_cast<unsigned>(instruction(block).target / kBlockBytes)) % (kPages * kBlocksAPage);
  }
  static unsigned offset(unsigned block) { return block % kBlocksAPage * kBlockBytes; }
  static std::uint64_t address(unsigned block) { return kImage + block / kBlocksAPage * kPageSize; }
  Entries& entries(unsigned block) {
    const unsigned page = block / kBlocksAPage;
    return cache_->page({page * kPageSize}, &memory_[page * kPageSize], true);
  }
  // Where its code is, or 0.
  std::uint32_t code(unsigned block) { return entries(block).code[offset(block) / 2]; }
  // Has it translated, and the jump at the end of `from` linked to it, if there is one.
  std::uint32_t find(unsigned block, std::optional<unsigned> from = {}) {
    for (;;) {
      const void* site = from && code(*from) != 0 ? cache_->code() + code(*from) + jump_of(*from).at : nullptr;
      Entries& page = entries(block);
      const std::byte* found = cache_->find(page, offset(block), site, {address(from.value_or(block)), address(block), false});
      if (found != nullptr) return static_cast<std::uint32_t>(found - cache_->code());
    }
  }
  x64::Link jump_of(unsigned block) {
    ir::Block lifted;
    lift(std::span(memory_).subspan(block / kBlocksAPage * kPageSize, kPageSize), 0, offset(block), {}, lifted);
    const x64::Window window;
    return cache_->compiler().compile({lifted, offset(block)}, &window).links.at(0);
  }
  template <class T>
  T code_at(std::uint32_t at) {
    T read;
    std::memcpy(&read, cache_->code() + at, sizeof read);
    return read;
  }
  std::uint32_t leads_to(std::uint32_t displacement) { return displacement + 4 + code_at<std::uint32_t>(displacement); }
  // Where the jump at the end of its code goes, relative to that where it is not linked.
  std::uint32_t jump(unsigned block) { return leads_to(code(block) + jump_of(block).at); }
  bool is_linked(unsigned block) { return jump(block) != code(block) + jump_of(block).unlinked; }
  // Whether there is code that sets what the block does.
  bool does(std::uint32_t at, unsigned block) {
    return has(at, instruction(block).number);
  }
  bool has(std::uint32_t at, std::uint64_t constant) {
    const std::span near(cache_->code() + at, 128);
    const auto bytes = std::as_bytes(std::span(&constant, 1));
    return std::search(near.begin(), near.end(), bytes.begin(), bytes.end()) != near.end();
  }
  std::uint64_t evictions() const { return cache_->statistics().evictions; }

  std::vector<std::byte> memory_ = std::vector<std::byte>(kPages * kPageSize + kPageSize);
  unsigned forgotten_ = 0;  // how often pointers to pages were
  std::unique_ptr<CodeCache> cache_ = make_cache();
};

// Until the code memory is full nothing goes; then so much, and not more, of the oldest.
TEST_F(PagedCache, EvictsTheOldest) {
  std::vector<unsigned> known;
  for (unsigned block = 0; evictions() == 0; ++block) {
    find(block);
    known.push_back(block);
  }
  known.pop_back();  // it came in the place of the others
  EXPECT_GT(cache_->statistics().code_bytes, kCodeBytes * 9 / 10);
  EXPECT_EQ(forgotten_, 1u);
  const auto left = std::find_if(known.begin(), known.end(), [&](unsigned block) { return code(block) != 0; });
  EXPECT_TRUE(std::all_of(left, known.end(), [&](unsigned block) { return code(block) != 0; }));
  const auto gone = static_cast<std::size_t>(left - known.begin());
  EXPECT_GT(gone, known.size() / (2 * kSegments));
  EXPECT_LT(gone, known.size() / kSegments + 2);
  // Where the page has other blocks it is known that this one runs often.
  EXPECT_TRUE(std::any_of(known.begin(), left, [&](unsigned block) { return entries(block).runs[offset(block) / 2] == 255; }));
}

// Pages have no end, and are known as long as they have blocks.
TEST_F(PagedCache, ForgetsPagesWithoutCode) {
  const unsigned last = kPages * kBlocksAPage - 1;
  entries(last).runs[0] = 1;
  const auto fill = [&](std::uint64_t rounds) {
    for (unsigned block = 0; evictions() < rounds; ++block) find(block % (last - kBlocksAPage));
  };
  fill(1);
  EXPECT_EQ(entries(last).runs[0], 0);
  // Only so many are compared with memory first: they are some that are there.
  fill(30 * kSegments);
  EXPECT_TRUE(CodeCache::is_current(&entries(last)));
}

// Round after round of the code memory: the dispatcher asks for what comes next, or for anything, and code changes.
TEST_F(PagedCache, AllLeadsWhereItShould) {
  std::mt19937_64 random(2);
  unsigned linked = 0, far = 0, block = 0;
  for (std::uint64_t seen = 0, steps = 0; seen < 8 * kSegments; ++steps) {
    const bool goes_on = random() % 4 != 0 && code(block) != 0;
    const unsigned next = goes_on ? target(block) : static_cast<unsigned>(random() % (kPages * kBlocksAPage));
    find(next, goes_on ? std::optional(block) : std::nullopt);
    ASSERT_TRUE(!goes_on || code(block) == 0 || is_linked(block)) << block << " after " << steps;
    block = next;
    if (steps % 50 == 0) {
      const auto changed = static_cast<unsigned>(random() % (kPages * kBlocksAPage));
      write(changed, {random() | 1, instruction(changed).target});
      cache_->expect_changes();
    }
    if (evictions() == seen) continue;
    seen = evictions();
    for (unsigned at = 0; at < kPages * kBlocksAPage; ++at) {
      if (code(at) == 0) continue;
      ASSERT_TRUE(does(code(at), at)) << at << " after " << steps;
      if (!is_linked(at)) continue;
      ++linked;
      if (target(at) / kBlocksAPage == at / kBlocksAPage) {
        ASSERT_EQ(jump(at), code(target(at))) << at << " after " << steps;
        continue;
      }
      // The passage knows the page as it is now.
      ++far;
      const auto page = reinterpret_cast<std::uintptr_t>(&entries(target(at)));
      ASSERT_TRUE(has(jump(at), page)) << at << " after " << steps;
    }
  }
  EXPECT_GT(linked, 1000u);
  EXPECT_GT(far, 100u);
}

// The room for hot code is made when there is none.
TEST_F(PagedCache, HotCodeIsNotLost) {
  for (unsigned block = 0; evictions() < 2 * kSegments; ++block) {
    const unsigned hot = block % (kPages * kBlocksAPage);
    const std::uint32_t before = find(hot);
    cache_->note_running(entries(hot), offset(hot), 1, 0);
    ASSERT_NE(code(hot), before) << block;
    ASSERT_NE(code(hot), 0u) << block;
  }
}

// What is kept is taken again once it was evicted, and as far as there was no room for it.
TEST_F(PagedCache, KeptCodeComesAgain) {
  std::string folder = (std::filesystem::temp_directory_path() / "cache.XXXXXX").string();
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto tour = [&] {
    cache_ = make_cache();
    cache_->use(std::make_shared<CodeArchive>(fd.get(), CodeArchive::Key{1, 2}));
    std::mt19937_64 random(3);
    for (unsigned i = 0; i < kPages * kBlocksAPage; ++i) find(i);
    for (unsigned i = 0; i < 1000; ++i) find(static_cast<unsigned>(random() % (kPages * kBlocksAPage)));
    cache_->save();
    return cache_->statistics();
  };
  EXPECT_GE(tour().blocks, kPages * kBlocksAPage);
  const CodeCache::Statistics second = tour();
  EXPECT_GT(second.evictions, 2 * kSegments);
  EXPECT_EQ(second.blocks, 0u);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace doppel
