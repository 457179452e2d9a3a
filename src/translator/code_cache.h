// Translated code, by the guest page that it was made of.
//
// In paged memory a cache belongs to one vCPU, and its pages are guest-physical. Blocks are position-independent and say
// nothing of privilege or address space: a page is translated once, however it is mapped. A page remembers the bytes that
// its blocks were lifted from. After the guest asked for its stores to be seen by fetches (FENCE.I) each page is compared
// with memory before it is entered again, and loses its blocks when it differs; nothing is watched meanwhile, so pages
// without code cost nothing. Direct jumps are linked within a page. Where the vCPU has a window onto its data (x64::Window) a
// page has other code than where it has none. Instructions that keep missing the window leave it; and jumps to other pages
// are linked, too, by passages (x64::Passage), which ask the TLB whether that is still the page.
//
// In flat memory a cache belongs to all vCPUs of one address space, and its pages are guest-virtual. Jumps are linked
// wherever they go; whoever changes code or mappings says so (invalidate()), and every way to the old code is cut before
// that returns. A vCPU that is inside it still leaves it with its slice. Where nobody can say so, since the memory belongs
// to a guest's operating system, pages remember their bytes as in paged memory, and the vCPU has them verified after fences,
// before it enters any.
//
// Hot code is compiled anew: at once, or in a Background from a snapshot and without the cache's lock. The result is taken at
// the next sample of what runs, if the page still has the bytes. So only vCPUs' threads write code memory.
//
// Code itself stays where it is until the code memory is full. Then in paged memory the oldest goes, a segment of the code
// memory at a time. In flat memory, where any vCPU may be inside, everything goes, once no vCPU runs any of it.
// Any thread may call, except where a function says otherwise.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "host/x64/compile.h"
#include "ir/ir.h"
#include "ir/opt/optimize.h"
#include "memory/address.h"
#include "memory/code_page.h"
#include "translator/code_archive.h"
#include "translator/code_memory.h"
#include "translator/hot_jobs.h"

namespace doppel {

class CodeCache {
 public:
  struct Page;

  // In paged memory: for each halfword of a page, where its block's code begins; 0: no block, which leads back here.
  struct Entries {
    std::array<std::uint32_t, kPageSize / 2> code{};
    std::array<std::uint8_t, kPageSize / 2> runs{};  // for the engine, of what has no code yet
    std::uint16_t first = 0;                         // the page's first halfword, as of the last comparison with memory
    Page* page = nullptr;
  };

  // In flat memory: what indirect jumps of one vCPU know. Empty entries have an odd address, which nothing jumps to.
  struct JumpEntry {
    std::uint64_t address;
    const std::byte* code;
  };
  // A program that jumps to more places than the first table holds gets a larger one.
  static constexpr std::size_t kFirstJumpEntries = 4096, kMostJumpEntries = 65536;

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };

  // A vCPU that runs code of this cache, known to it from construction to destruction.
  class Runner {
   public:
    explicit Runner(CodeCache& cache);
    ~Runner();
    Runner(const Runner&) = delete;
    Runner& operator=(const Runner&) = delete;

    JumpEntry* jumps() { return jumps_.get(); }
    std::size_t jump_entries() const { return entries_; }
    // Between these the cache is not cleared. false: it was since `age`, and code found then is gone.
    bool begin(std::uint64_t age);
    void end() { running_.store(false, std::memory_order_release); }

   private:
    friend class CodeCache;
    JumpEntry& entry(std::uint64_t address) { return jumps_.get()[address / 2 % entries_]; }
    void forget_jumps();
    void make_table(std::size_t entries);
    // To be called when a jump's target was known to the cache, and had been to this vCPU perhaps.
    void note_miss();

    CodeCache& cache_;
    std::unique_ptr<JumpEntry, Free> jumps_;
    std::size_t entries_ = 0;
    std::size_t misses_ = 0;  // since the table was made
    std::atomic<bool> running_{false};
  };

  struct Statistics {
    std::uint64_t blocks = 0;
    std::uint64_t regions = 0;
    std::uint64_t loaded = 0;              // blocks and regions that came from an archive
    std::uint64_t guest_instructions = 0;  // in them
    double seconds = 0;                    // spent translating
    double background_seconds = 0;         // of them, while vCPUs ran on
    std::uint64_t invalidated = 0;         // pages that had changed
    std::uint64_t evictions = 0;           // in paged memory of a segment, else of the whole cache
    std::uint64_t far_links = 0;           // that were made
    std::uint64_t lookups = 0;
    std::uint64_t code_bytes = 0;
  };

  struct Guest {
    LiftFunction lift;
    // In flat memory: copies what can be fetched from that address on, up to two bytes into the next page, for an
    // instruction that goes on there. Gives how many bytes that are.
    std::function<std::size_t(std::uint64_t address, std::span<std::byte> into)> fetch;
    // In flat memory that may change without a word: the bytes of the page at that address, if that can be fetched from now,
    // and the size of the guest's page that it is part of. Then fetch() is not used.
    struct Bytes {
      const std::byte* host = nullptr;
      std::uint64_t page_bytes = kPageSize;
    };
    std::function<Bytes(std::uint64_t page)> bytes_at;
    // In flat memory, if code is kept: whether what can be fetched there is likely to be there again in another run.
    std::function<bool(std::uint64_t address)> recurs;
    // In paged memory: where the bytes are that follow the page at which the vCPU is now; nullptr if that is not known. Any
    // answer will do, since code asks again.
    std::function<const std::byte*()> behind;
    // In paged memory, called when pages are about to vanish: pointers to them must be forgotten.
    std::function<void()> on_eviction;
  };
  struct Helpers {
    x64::SlowHelper read, write, step;
    x64::ClockHelper clock;
  };
  CodeCache(CodeMemory memory, x64::Compiler compiler, Guest guest, const Helpers& helpers);
  ~CodeCache();

  // --- In paged memory, on the vCPU's thread.

  // The page at `gpa`, whose bytes are at `host`, checked against memory if it has to be; as code for a window or without.
  Entries& page(GuestPhysical gpa, const std::byte* host, bool windowed = false);
  // Where a link leads from and to: the guest-virtual addresses of pages.
  struct Way {
    std::uint64_t from, to;
    bool found_anew;  // the page was asked for since the link's code was left, and may be another than that lies in
  };
  // The code of the block at `offset` of that page, translated if it is not yet; `site`, if any, is linked to it. May evict
  // code, and with it the page: nullptr then, and the caller starts over.
  const std::byte* find(Entries& entries, unsigned offset, const void* site, const Way& way);
  // The page's bytes, as blocks are made of them.
  static const std::byte* source(const Entries& entries);
  // The page's last instruction goes on in what follows it, where now those bytes are. If its code expects others, or none,
  // it is made anew.
  void note_behind(Entries& entries, const std::byte* behind);
  // The instruction at `offset` of such a page has accessed what is not in the window. Whoever does so often has code
  // made that does not expect it there.
  void note_outside(Entries& entries, unsigned offset);
  // The guest may have changed code. Pages entered of late are compared with memory at once.
  void expect_changes();
  // Whether these Entries, of a cache in which changes were just expected, are as memory says.
  static bool is_current(const void* entries);
  // As below; may evict the page. `unfit` says of which page slots the base left its page too often of late.
  bool note_running(Entries& entries, unsigned offset, std::uint8_t hot_after, std::uint64_t unfit);

  // --- Both.

  // From now on code comes from the archive where it is there, and what is translated goes there, to be written at the
  // end by save(). Before anything is translated.
  void use(std::shared_ptr<CodeArchive> archive) { archive_ = std::move(archive); }
  void save();
  // Hot code is compiled there from now on, and not by who finds it hot. It outlives the cache.
  void compile_in(Background& background) { hot_jobs_.compile_in(background); }
  // Other passes do not run. Before anything is translated, and without an archive, whose code has seen all of them.
  void allow(const ir::PassSet& passes) { all_ = all_ & passes, quick_ = quick_ & passes; }

  // --- In flat memory, on the runner's thread.

  // The same by guest-virtual address; also nullptr where nothing can be fetched, and where code is cold: it is to be
  // translated only when it comes again. Sets `age` to that of the code.
  const std::byte* find(Runner& runner, std::uint64_t address, const void* site, std::uint64_t& age);
  // Guest code was found running at `address`. What is found so `hot_after` times is compiled anew: as a region, if it is
  // in a loop, else as a block with all passes. False: all that could be learnt there is known.
  bool note_running(std::uint64_t address, std::uint8_t hot_after);
  // What was made of these addresses is not entered any more.
  void invalidate(std::uint64_t address, std::uint64_t size_bytes);
  // Where memory may change without a word: compares code with it, what was made of all pages, or of these addresses' pages.
  // What has changed is not entered any more.
  void verify();
  void verify(std::span<const std::uint64_t> addresses);
  // What to do about a host fault at `host`; nothing if no code of ours accesses guest memory there. For signal handlers
  // of a runner's thread.
  struct Fault {
    x64::FaultPoint point;
    const x64::Pins* pins;  // in force there
  };
  std::optional<Fault> fault_at(const void* host) const;

  // Counts how often code was evicted.
  std::uint64_t age() const { return age_.load(std::memory_order_seq_cst); }

  using EnterFunction = void (*)(void* state, const std::byte* code);
  EnterFunction enter_function() const;
  const std::byte* code() const { return memory_.code(); }
  const x64::Stubs& stubs() const { return stubs_; }  // offsets in code()
  const x64::Compiler& compiler() const { return compiler_; }

  Statistics statistics() const;

  // For fork(): held, nobody is in the middle of a change.
  std::mutex& mutex() { return mutex_; }

  // For --trace and --perf-map; called after each translation, under the cache's lock.
  struct Translation {
    const ir::Block& lifted;             // of a region: its first block, after the passes
    const ir::Block& optimized;
    std::span<const std::byte> code;     // where it runs
    std::uint64_t address;               // of the guest; physical in paged memory
    bool region;
  };
  std::function<void(const Translation&)> on_translation;

 private:
  struct Block {
    static constexpr std::uint8_t kDecided = 255;  // of heat: there is a region, or there will be none

    std::uint32_t code = 0;
    std::uint16_t begin = 0, end = 0;     // what of the page it was made of
    std::uint8_t heat = 0;                // how often note_running() named it
    std::uint8_t later_heat = 0;          // likewise, once it was a region
    bool has_open_branches = false;       // the region, of which nobody knows yet whether they go both ways
    std::uint32_t awaited = 0;            // the number of the HotJob that is to replace its code
    std::uint64_t page_slots = 0;         // that the region uses
    std::vector<std::uint32_t> incoming;  // where the sites are that are linked to it
  };
  struct Recent {
    std::uint64_t key;
    Page* page = nullptr;
  };
  struct Site {
    std::uint32_t at, unlinked;
    bool linked = false, far = false;
  };
  // One that has a passage, which is evicted no earlier than the site.
  struct FarLink {
    std::uint32_t site;  // where that is
    std::uint64_t page;  // the key of the one that it leads to
  };
  struct RegionCode {
    std::uint32_t end;
    x64::Pins pins;
  };
  // Of the code memory: they are filled in turn, and emptied before that. What is in them besides blocks, by place.
  struct Segment {
    std::vector<Site> sites;
    std::vector<x64::FaultPoint> faults;           // under fault_mutex_
    std::map<std::uint32_t, RegionCode> regions;   // likewise
  };

  Recent& recent_at(std::uint64_t key) { return recent_[(key ^ key >> 52) % recent_.size()]; }
  bool flat() const { return compiler_.offsets().memory != x64::MemoryModel::kPaged; }
  // All of these under the lock.
  Page& page_at(std::uint64_t base, bool windowed = false);
  // Drops the page's blocks if its bytes, now at `host`, are not what they were made of; gives whether that is so.
  bool verify(Page& page, const std::byte* host);
  void verify(Page& page);  // likewise, wherever its bytes are now
  // The page's bytes as blocks are to be made of them, of which those in [offset, offset + bytes) are wanted; empty: they
  // cannot be fetched.
  std::span<const std::byte> source(Page& page, unsigned offset, std::size_t bytes);
  // Whether code at `address` was seldom asked for yet: much runs only once, and would not repay being translated.
  bool is_cold(std::uint64_t address);
  const std::byte* find(Page& page, unsigned offset, const void* site);
  // Makes code of the block at `offset`, quickly; nothing when there is no room.
  std::optional<std::uint32_t> translate(Page& page, unsigned offset, Block& block);
  void note_use(Page& page, std::size_t offset, std::size_t bytes);  // code was made of it
  bool note_running(Page& page, unsigned offset, std::uint8_t hot_after, std::uint64_t unfit);
  // Counts where code was found running, for branches that some region is to know about. Those that are decided by that
  // have their regions made anew.
  void note_branches(Page& page, unsigned offset, std::uint8_t hot_after, std::uint64_t unfit);
  // Has the block at `offset` compiled as well as it gets, which `is_region` already or not; now, if it cannot be done in the
  // background. `slots_known`: it is known which of a region's page slots repay.
  void compile(Page& page, unsigned offset, Block& block, bool is_region, std::uint64_t unfit, bool slots_known);
  // Takes what is done.
  void take_finished();
  // Whether what the job was made of is what the page has.
  bool still_holds(Page& page, const HotJob& job);
  // Puts the result in the block's place, if there is one and room. A region is kept once it is known which of its page
  // slots repay, for the time being if not yet how its branches go.
  void install(Page& page, Block& block, const HotJob& job);
  void link(Block& block, const void* site);
  void link(Block& block, Site& site);
  // The same for a far link, to the block at `offset` of the page; false when there is no room.
  bool link_far(Entries& entries, unsigned offset, Site& site, const Way& way);
  void unlink(Site& site);
  Site* site_at(const void* site);  // null: it is none of this cache's
  Site* site_at(std::uint32_t at);
  // From now on whoever goes to the block comes to `code`.
  void redirect(Page& page, unsigned offset, Block& block, std::uint32_t code);
  void drop_blocks(Page& page);
  // In paged memory, some of them, if there are: their code is made anew when it comes again.
  bool drop_blocks(Page& page, const std::function<bool(const Block&)>& which);
  void unlink(const Page& page, unsigned offset, Block& block);  // nobody goes to it any more
  // Adds code with its links, linked where their targets are known; nullopt when there is no room.
  struct NewCode {
    std::span<const std::byte> bytes;
    std::span<const x64::Link> links;
    std::span<const x64::FaultPoint> faults;
    const x64::Pins* pins = nullptr;  // of a region
  };
  std::optional<std::uint32_t> add(Page& page, const NewCode& code);
  // The block that a link's target names, if it has code.
  Block* block_at(Page& page, std::uint64_t target);
  // Takes what the archive has for the page and was made of the bytes that are there.
  void load(Page& page);
  // Takes the code if it was made of `present`, what the page has from its beginning on.
  bool adopt(Page& page, const ArchivedCode& code, std::span<const std::byte> present);
  // Where pages remember their bytes, the same for what another hart has translated; `final`: only if there is nothing better.
  bool take_other(Page& page, unsigned offset, bool final);
  // Gives the archive what was made of the page's bytes in [first, first + source.size()).
  void archive(const Page& page, unsigned offset, std::size_t first, std::span<const std::byte> source,
               const x64::EmittedCode& emitted, const x64::Pins* pins, bool final);
  bool has_pins(const x64::Pins& pins) const;  // of the guest's registers
  // In paged memory. Empties the next segment, to be filled now, of all blocks that have their code there, and drops the
  // pages that have no other ones.
  void evict();
  void clear(const Runner& caller);  // in flat memory
  void begin_segment(std::size_t index);

  CodeMemory memory_;
  x64::Compiler compiler_;
  Guest guest_;
  x64::Stubs stubs_;
  std::uint32_t stubs_end_ = 0;
  std::uint32_t segment_bytes_ = 0;
  x64::Pins common_pins_;

  mutable std::mutex mutex_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;  // by Page::key()
  std::array<Recent, 1024> recent_{};  // of pages_, by the key's lowest bits and its highest one
  std::vector<Segment> segments_;
  std::size_t segment_ = 0;                                         // the one that is being filled
  std::vector<FarLink> far_links_;
  std::vector<Runner*> runners_;
  std::uint64_t generation_ = 1;
  std::vector<Page*> entered_;  // since changes were expected, or long before and after
  bool any_large_ = false;  // some page with code is part of a larger one of the guest
  std::atomic<std::uint64_t> age_{0};
  Statistics statistics_;
  ir::Block block_;  // kept for its memory
  ir::PassSet all_ = ir::PassSet::all(), quick_ = ir::PassSet::quick();
  std::shared_ptr<CodeArchive> archive_;  // may be null
  HotJobs hot_jobs_;
  std::shared_ptr<const HotPipeline> pipeline_;  // made for the first of them
  std::uint32_t last_job_ = 0;                   // the last one's number
  std::vector<std::byte> fetched_;
  std::array<std::uint8_t, 32768> visits_{};  // by address; where two meet, the second one seems warmer than it is

  // Faults are looked up in signal handlers while another thread may hold mutex_ and wait for this one.
  mutable std::mutex fault_mutex_;
};

}  // namespace doppel
