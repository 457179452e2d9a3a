#include "translator/code_cache.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>
#include <utility>

#include "base/bits.h"

namespace doppel {
namespace {

constexpr std::uint64_t kNoAddress = 1;  // of an empty jump entry
constexpr std::uint8_t kDecided = 255;    // of heat: there is a region, or there will be none
constexpr std::uint8_t kSecondLook = 32;  // at a region, when it was found running so often
// A branch goes both ways if neither is taken so many times as often as the other: else the host predicts it well enough.
constexpr std::size_t kOneSided = 6;
// What has to be seen for a decision, as parts and multiples of how often what is hot was found running: so often what
// the branch jumps over, to say that it goes both ways; so often the block before, to say that it does not.
constexpr unsigned kFewestSamples = 4;
constexpr unsigned kMostSamples = 8;
// How often an instruction misses the window before it is taken to do so always.
constexpr std::uint8_t kMostMisses = 16;
// So many pages are compared with memory as soon as code may have changed, before anybody enters them. Of how many times
// the last one leaves that to who does, to learn which ones are still entered.
constexpr std::size_t kMostEntered = 64;
constexpr std::uint64_t kExpectationsARound = 16;
// One that could not be lifted was looked at as well, behind a block.
constexpr std::size_t kLongestInstruction = 4;

// A page's number, and whether its code is for a window.
std::uint64_t key_of(std::uint64_t base, bool windowed) { return base >> kPageShift | std::uint64_t{windowed} << 63; }

// Adds the time from its construction to its end.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() { seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace

struct CodeCache::Page {
  std::uint64_t base = 0;
  std::unordered_map<unsigned, Block> blocks;  // by offset
  struct Branch {
    enum class State : std::uint8_t { kOpen, kBothWays, kOneWay };
    ShortBranch at;
    State state = State::kOpen;
    unsigned head_samples = 0, side_samples = 0;
    std::vector<unsigned> regions;  // that ask, by offset
  };
  std::map<unsigned, Branch> branches;         // by the offset of the block before
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

    const std::byte* fresh() {
      if (std::exchange(others_stale, false)) copy.copy(host, ~used);
      return copy.bytes();
    }
    std::span<const std::byte> bytes() { return {fresh(), kPageSize + (has_behind ? CodePage::kBytesBehind : 0)}; }
  };
  std::unique_ptr<Source> source;
  std::unique_ptr<Entries> entries;  // in paged memory
};

// It owns what it works on. Once submitted it is the background's until it is done.
struct CodeCache::Job {
  std::shared_ptr<const HotPipeline> how;
  std::uint64_t page;  // by key_of()
  std::uint32_t number;
  bool slots_known;
  HotSource source;
  std::optional<HotCode> code{};
  double seconds = 0;
  std::atomic<bool> done{false};

  void run() {
    {
      const Stopwatch stopwatch(seconds);
      code = compile_hot(*how, source);
    }
    done.store(true, std::memory_order_release);
  }
};

// --- Runners.

CodeCache::Runner::Runner(CodeCache& cache) : cache_(cache) {
  if (cache.flat()) make_table(kFirstJumpEntries);
  const std::lock_guard lock(cache.mutex_);
  cache.runners_.push_back(this);
}

CodeCache::Runner::~Runner() {
  const std::lock_guard lock(cache_.mutex_);
  std::erase(cache_.runners_, this);
}

void CodeCache::Runner::make_table(std::size_t entries) {
  // Zeroed, and so not touched before it is used.
  jumps_.reset(static_cast<JumpEntry*>(std::calloc(entries, sizeof(JumpEntry))));
  if (jumps_ == nullptr) throw std::bad_alloc();
  // Address 0 is no entry's but the first one's.
  jumps_.get()->address = kNoAddress;
  entries_ = entries;
  misses_ = 0;
}

void CodeCache::Runner::note_miss() {
  if (++misses_ > 2 * entries_ && entries_ < kMostJumpEntries) make_table(4 * entries_);
}

bool CodeCache::Runner::begin(std::uint64_t age) {
  running_.store(true, std::memory_order_seq_cst);
  if (cache_.age() == age) return true;
  end();
  return false;
}

void CodeCache::Runner::forget_jumps() {
  if (jumps_ == nullptr) return;
  for (std::size_t i = 0; i < entries_; ++i) {
    JumpEntry& entry = jumps_.get()[i];
    if (entry.address != 0) std::atomic_ref(entry.address).store(kNoAddress, std::memory_order_relaxed);
  }
}

// --- The cache.

CodeCache::CodeCache(CodeMemory memory, x64::Compiler compiler, Guest guest, const Helpers& helpers)
    : memory_(std::move(memory)), compiler_(std::move(compiler)), guest_(std::move(guest)) {
  common_pins_.integer = compiler_.offsets().pinned;
  // Offset 0 of the code memory is where an empty entry leads.
  memory_.append(compiler_.make_entry_miss());
  stubs_ = compiler_.make_stubs(helpers.read, helpers.write, helpers.step, helpers.clock);
  const std::uint32_t at = *memory_.append(stubs_.bytes);
  for (std::uint32_t* stub : {&stubs_.enter, &stubs_.exit, &stubs_.exit_spilled, &stubs_.clock}) *stub += at;
  for (std::uint32_t& stub : stubs_.leave) stub += at;
  for (x64::StubOffsets* stub : {&stubs_.read, &stubs_.write, &stubs_.step}) {
    stub->full += at;
    stub->bare += at;
  }
  stubs_end_ = memory_.used();
}

CodeCache::~CodeCache() = default;

CodeCache::EnterFunction CodeCache::enter_function() const {
  // Generated by make_stubs() with exactly this signature.
  return reinterpret_cast<EnterFunction>(reinterpret_cast<std::uintptr_t>(memory_.code() + stubs_.enter));
}

CodeCache::Statistics CodeCache::statistics() const {
  const std::lock_guard lock(mutex_);
  Statistics statistics = statistics_;
  statistics.evictions = age();
  statistics.code_bytes = memory_.used();
  return statistics;
}

CodeCache::Page& CodeCache::page_at(std::uint64_t base, bool windowed) {
  const std::uint64_t key = key_of(base, windowed);
  Recent& recent = recent_at(key);
  if (recent.page != nullptr && recent.key == key) return *recent.page;
  std::unique_ptr<Page>& slot = pages_[key];
  if (slot == nullptr) {
    slot = std::make_unique<Page>();
    slot->base = base;
    if (windowed) slot->window.emplace();
  }
  recent = {key, slot.get()};
  return *slot;
}

CodeCache::Entries& CodeCache::page(GuestPhysical gpa, const std::byte* host, bool windowed) {
  const std::lock_guard lock(mutex_);
  Page& page = page_at(align_down(gpa.value, kPageSize), windowed);
  if (page.entries == nullptr) {
    page.entries = std::make_unique<Entries>();
    page.entries->page = &page;
    page.source = std::make_unique<Page::Source>();
  }
  Page::Source& source = *page.source;
  if (source.generation == generation_) return *page.entries;
  const bool is_new = source.generation == 0;
  const bool changed = verify(page, host);
  source.generation = generation_;
  if (!page.is_current && entered_.size() < kMostEntered) {
    page.is_current = true;
    entered_.push_back(&page);
  }
  if ((is_new || changed) && archive_ != nullptr) load(page);
  return *page.entries;
}

void CodeCache::expect_changes() {
  const std::lock_guard lock(mutex_);
  const bool ends_round = ++generation_ % kExpectationsARound == 0;
  std::erase_if(entered_, [this, ends_round](Page* page) {
    Page::Source& source = *page->source;
    const bool changed = !ends_round && verify(*page, source.host);
    page->is_current = !ends_round && !changed;
    if (page->is_current) source.generation = generation_;
    if (changed) source.generation = 0;  // as if it were new
    return !page->is_current;
  });
}

bool CodeCache::is_current(const void* entries) { return static_cast<const Entries*>(entries)->page->is_current; }

bool CodeCache::verify(Page& page, const std::byte* host) {
  Page::Source& source = *page.source;
  bool changed = source.used != 0 && !source.copy.same(host, source.used);
  if (source.used_behind && !changed) {
    const Guest::Bytes behind = guest_.bytes_at(page.base + kPageSize);
    changed = behind.host == nullptr || !source.copy.same_behind(behind.host);
  }
  if (changed) {
    ++statistics_.invalidated;
    drop_blocks(page);
    source.used = 0;
    source.used_behind = false;
    page.loaded = false;
  }
  source.host = host;
  source.others_stale = true;
  source.has_behind = source.used_behind;
  return changed;
}

void CodeCache::verify() {
  const std::lock_guard lock(mutex_);
  for (auto& [number, page] : pages_) verify(*page);
}

void CodeCache::verify(std::span<const std::uint64_t> addresses) {
  if (any_large_) return verify();
  const std::lock_guard lock(mutex_);
  for (const std::uint64_t address : addresses) {
    // The page before may have an instruction that goes on in this one.
    for (const std::uint64_t number : {address >> kPageShift, (address >> kPageShift) - 1}) {
      const auto page = pages_.find(number);
      if (page != pages_.end()) verify(*page->second);
    }
  }
}

void CodeCache::verify(Page& page) {
  if (page.source == nullptr) return;
  if (const Guest::Bytes now = guest_.bytes_at(page.base); now.host != nullptr) {
    verify(page, now.host);
    return;
  }
  // It may come back: nothing is fetched from it meanwhile.
  if (page.source->used != 0) ++statistics_.invalidated;
  drop_blocks(page);
  page.source.reset();
  page.loaded = false;
}

std::span<const std::byte> CodeCache::source(Page& page, unsigned offset, std::size_t bytes) {
  if (page.source == nullptr && guest_.bytes_at) {
    const Guest::Bytes now = guest_.bytes_at(page.base);
    if (now.host == nullptr) return {};
    any_large_ = any_large_ || now.page_bytes > kPageSize;
    page.source = std::make_unique<Page::Source>();
    verify(page, now.host);
  }
  if (page.source != nullptr) {
    if (guest_.bytes_at && !page.source->has_behind && offset + bytes > kPageSize) {
      const Guest::Bytes behind = guest_.bytes_at(page.base + kPageSize);
      if (page.source->has_behind = behind.host != nullptr; page.source->has_behind) {
        any_large_ = any_large_ || behind.page_bytes > kPageSize;
        page.source->copy.copy_behind(behind.host);
      }
    }
    return page.source->bytes();
  }
  fetched_.resize(kPageSize + CodePage::kBytesBehind);
  const auto wanted = std::span(fetched_).subspan(offset, std::min(bytes, fetched_.size() - offset));
  const std::size_t got = guest_.fetch(page.base + offset, wanted);
  // What stops short of the page's end is no part of a block: it is padded with what is no instruction.
  if (got == 0) return {};
  std::ranges::fill(wanted.subspan(got), std::byte{0});
  return std::span(fetched_).first(got == wanted.size() ? fetched_.size() : kPageSize);
}

bool CodeCache::is_cold(std::uint64_t address) {
  // Measured with programs that live some milliseconds: fewer and more cost more. Fewer are enough where the work will
  // not be done again: a program that has come twice will come more often; and in one that runs for long already.
  const bool repays = guest_.bytes_at || (archive_ != nullptr && !archive_->empty());
  const unsigned most = repays ? 2 : 8;
  std::uint8_t& visits = visits_[(address >> 1 ^ address >> 16) % visits_.size()];
  return ++visits <= most;
}

const std::byte* CodeCache::source(const Entries& entries) { return entries.page->source->fresh(); }

const std::byte* CodeCache::find(Entries& entries, unsigned offset, const void* site, const Way& way) {
  const std::lock_guard lock(mutex_);
  const auto far = site_at(site);
  const bool is_far = far && sites_[*far].far;
  const std::byte* code = find(*entries.page, offset, is_far ? nullptr : site);
  if (code == nullptr) {
    clear(nullptr);
  } else if (is_far) {
    link_far(entries, offset, *far, way);
  }
  return code;
}

bool CodeCache::is_far(const void* site) const {
  const std::lock_guard lock(mutex_);
  const auto index = site_at(site);
  return index && sites_[*index].far;
}

const std::byte* CodeCache::find(Runner& runner, std::uint64_t address, const void* site, std::uint64_t& age) {
  age = this->age();
  // What this thread's code would find itself. Whoever drops code has emptied the entry.
  if (JumpEntry& entry = runner.entry(address); site == nullptr && std::atomic_ref(entry.address).load() == address) {
    return std::atomic_ref(entry.code).load();
  }
  const std::lock_guard lock(mutex_);
  age = this->age();
  const unsigned offset = static_cast<unsigned>(address % kPageSize);
  const auto known = pages_.find(address >> kPageShift);
  Page* page = known == pages_.end() ? nullptr : known->second.get();
  if (archive_ != nullptr && (page == nullptr || !page->loaded)) {
    const std::uint64_t base = align_down(address, kPageSize);
    if (guest_.bytes_at && guest_.bytes_at(base).host == nullptr) return nullptr;
    page = &page_at(base);
    load(*page);
  }
  if (page == nullptr || (!page->blocks.contains(offset) && !take_other(*page, offset, false))) {
    if (is_cold(address)) return nullptr;
    if (page == nullptr) page = &page_at(align_down(address, kPageSize));
    if (source(*page, offset, 2).empty()) return nullptr;
  } else if (site == nullptr) {
    runner.note_miss();
  }
  const std::byte* code = find(*page, offset, site);
  if (code == nullptr) {
    clear(&runner);
    return nullptr;
  }
  // The code first: between the two stores nothing on this thread jumps.
  JumpEntry& entry = runner.entry(address);
  entry.code = code;
  std::atomic_ref(entry.address).store(address, std::memory_order_relaxed);
  return code;
}

const std::byte* CodeCache::find(Page& page, unsigned offset, const void* site) {
  ++statistics_.lookups;
  Block& block = page.blocks[offset];
  if (block.code == 0 && !take_other(page, offset, false)) {
    const Stopwatch stopwatch(statistics_.seconds);
    const auto code = translate(page, offset, block);
    if (!code) return nullptr;
    redirect(page, offset, block, *code);
    ++statistics_.blocks;
  }
  if (site != nullptr) link(block, site);
  return memory_.code() + block.code;
}

std::optional<std::uint32_t> CodeCache::translate(Page& page, unsigned offset, Block& block) {
  const std::uint64_t address = page.base + offset;
  const std::span<const std::byte> bytes = source(page, offset, isa::BlockLimits::kMostBytes);
  guest_.lift(bytes, page.base, offset, {}, block_);
  check(block_);
  ir::Block lifted;
  if (on_translation) lifted = block_;
  ir::optimize(block_, quick_);
  check(block_);
  const x64::Window* window = page.window ? &*page.window : nullptr;
  const x64::EmittedCode emitted = compiler_.compile({block_, flat() ? address : offset}, window);
  const std::optional<std::uint32_t> at = add(page, {emitted.bytes, emitted.links, emitted.faults});
  if (!at) return std::nullopt;
  note_use(page, offset, block_.guest_bytes);
  block.begin = static_cast<std::uint16_t>(offset);
  block.end = static_cast<std::uint16_t>(offset + block_.guest_bytes);
  archive(page, offset, offset, bytes.subspan(offset, block_.guest_bytes), emitted, nullptr, false);
  statistics_.guest_instructions += block_.origins.size();
  if (on_translation) {
    on_translation({lifted, block_, {memory_.code() + *at, emitted.bytes.size()}, address, false});
  }
  return at;
}

void CodeCache::note_use(Page& page, std::size_t offset, std::size_t bytes) {
  if (page.source == nullptr) return;
  if (offset + bytes > kPageSize) page.source->used_behind = true;
  page.source->used |= CodePage::lines_of(offset, offset + bytes + kLongestInstruction);
}

std::optional<std::uint32_t> CodeCache::add(Page& page, const NewCode& code) {
  const std::optional<std::uint32_t> at = memory_.append(code.bytes);
  if (!at) return std::nullopt;
  // Code is appended, so both stay in order.
  for (const x64::Link& link : code.links) {
    const bool far = !flat() && link.target >= kPageSize;
    sites_.push_back({.at = *at + link.at, .unlinked = *at + link.unlinked, .far = far});
    if (far) continue;
    if (Block* target = block_at(page, link.target)) this->link(*target, static_cast<std::uint32_t>(sites_.size() - 1));
  }
  if (code.faults.empty() && code.pins == nullptr) return at;
  const std::lock_guard lock(fault_mutex_);
  for (x64::FaultPoint point : code.faults) {
    point.at += *at;
    faults_.push_back(point);
  }
  if (code.pins != nullptr) regions_[*at] = {*at + static_cast<std::uint32_t>(code.bytes.size()), *code.pins};
  return at;
}

CodeCache::Block* CodeCache::block_at(Page& page, std::uint64_t target) {
  Page* holder = &page;
  if (flat() && align_down(target, kPageSize) != page.base) {
    const auto known = pages_.find(target >> kPageShift);
    if (known == pages_.end()) return nullptr;
    holder = known->second.get();
  }
  const auto found = holder->blocks.find(static_cast<unsigned>(target % kPageSize));
  return found == holder->blocks.end() || found->second.code == 0 ? nullptr : &found->second;
}

std::optional<std::uint32_t> CodeCache::site_at(const void* site) const {
  const auto distance = static_cast<const std::byte*>(site) - memory_.code();
  // It may be one of another cache, whose code the vCPU has just left for this one's.
  if (site == nullptr || distance < 0 || static_cast<std::uint64_t>(distance) >= memory_.size()) return std::nullopt;
  const auto at = static_cast<std::uint32_t>(distance);
  const auto found = std::ranges::lower_bound(sites_, at, {}, &Site::at);
  // The cache may have been cleared since it was left.
  if (found == sites_.end() || found->at != at) return std::nullopt;
  return static_cast<std::uint32_t>(found - sites_.begin());
}

void CodeCache::link(Block& block, const void* site) {
  // Another vCPU may have linked it already.
  if (const auto index = site_at(site); index && !sites_[*index].linked) link(block, *index);
}

void CodeCache::link_far(Entries& entries, unsigned offset, std::uint32_t site, const Way& way) {
  if (sites_[site].linked) return;
  const x64::PassageCode passage = compiler_.make_passage({way.from, way.to, &entries, offset});
  const auto at = memory_.append(passage.bytes);
  if (!at) return;
  sites_[site].linked = true;
  memory_.patch_jump(sites_[site].at, *at);
  if (passage.link.at == 0) return;
  ++statistics_.far_links;
  sites_.push_back({.at = *at + passage.link.at, .unlinked = *at + passage.link.unlinked});
  link(entries.page->blocks[offset], static_cast<std::uint32_t>(sites_.size() - 1));
}

void CodeCache::link(Block& block, std::uint32_t site) {
  sites_[site].linked = true;
  block.incoming.push_back(site);
  memory_.patch_jump(sites_[site].at, block.code);
}

void CodeCache::redirect(Page& page, unsigned offset, Block& block, std::uint32_t code) {
  block.code = code;
  if (page.entries != nullptr) {
    std::atomic_ref(page.entries->code[offset / 2]).store(code, std::memory_order_release);
  }
  for (const std::uint32_t site : block.incoming) memory_.patch_jump(sites_[site].at, code);
  const std::uint64_t address = page.base + offset;
  for (Runner* runner : runners_) {
    if (runner->jumps_ == nullptr) break;
    JumpEntry& entry = runner->entry(address);
    if (std::atomic_ref(entry.address).load(std::memory_order_relaxed) == address) {
      std::atomic_ref(entry.code).store(memory_.code() + code, std::memory_order_release);
    }
  }
}

void CodeCache::unlink(const Page& page, unsigned offset, Block& block) {
  const std::uint64_t address = page.base + offset;
  for (const std::uint32_t index : block.incoming) {
    Site& site = sites_[index];
    site.linked = false;
    memory_.patch_jump(site.at, site.unlinked);
  }
  block.incoming.clear();
  for (Runner* runner : runners_) {
    if (runner->jumps_ == nullptr) break;
    std::atomic_ref entry(runner->entry(address).address);
    if (entry.load(std::memory_order_relaxed) == address) entry.store(kNoAddress, std::memory_order_relaxed);
  }
}

void CodeCache::drop_blocks(Page& page) {
  for (auto& [offset, block] : page.blocks) unlink(page, offset, block);
  page.blocks.clear();
  page.branches.clear();
  if (page.window) {
    page.window->outside.reset();
    page.misses.clear();
  }
  if (page.entries == nullptr) return;
  page.entries->code.fill(0);
  page.entries->runs.fill(0);
}

void CodeCache::note_outside(Entries& entries, unsigned offset) {
  const std::lock_guard lock(mutex_);
  Page& page = *entries.page;
  if (!page.window || ++page.misses[offset] < kMostMisses) return;
  page.window->outside.set(offset / 2);
  page.misses.erase(offset);
  // Code that has it is made anew when it comes again.
  for (auto at = page.blocks.begin(); at != page.blocks.end();) {
    auto& [begin, block] = *at;
    if (offset < block.begin || offset >= block.end) {
      ++at;
      continue;
    }
    unlink(page, begin, block);
    entries.code[begin / 2] = 0;
    entries.runs[begin / 2] = std::numeric_limits<std::uint8_t>::max();
    at = page.blocks.erase(at);
  }
}

void CodeCache::invalidate(std::uint64_t address, std::uint64_t size_bytes) {
  const std::lock_guard lock(mutex_);
  // The page before may have an instruction that goes on in the first one.
  const std::uint64_t first = (address >> kPageShift) - (address >= kPageSize ? 1 : 0);
  const std::uint64_t last = (address + std::max<std::uint64_t>(size_bytes, 1) - 1) >> kPageShift;
  for (auto at = pages_.begin(); at != pages_.end();) {
    Page& page = *at->second;
    if (at->first < first || at->first > last) {
      ++at;
      continue;
    }
    if (!page.blocks.empty()) ++statistics_.invalidated;
    drop_blocks(page);
    if (Recent& recent = recent_at(at->first); recent.page == &page) recent = {};
    at = pages_.erase(at);
  }
}

std::optional<CodeCache::Fault> CodeCache::fault_at(const void* host) const {
  const auto distance = static_cast<const std::byte*>(host) - memory_.code();
  const std::lock_guard lock(fault_mutex_);
  if (distance < 0 || static_cast<std::uint64_t>(distance) >= memory_.size()) return std::nullopt;
  const auto at = static_cast<std::uint32_t>(distance);
  const auto point = std::ranges::lower_bound(faults_, at, {}, &x64::FaultPoint::at);
  if (point == faults_.end() || point->at != at) return std::nullopt;
  auto region = regions_.upper_bound(at);
  const bool in_region = region != regions_.begin() && at < (--region)->second.end;
  return Fault{*point, in_region ? &region->second.pins : &common_pins_};
}

// --- What is kept.

void CodeCache::archive(const Page& page, unsigned offset, std::size_t first, std::span<const std::byte> source,
                        const x64::EmittedCode& emitted, const x64::Pins* pins, bool final) {
  if (archive_ == nullptr || source.empty()) return;
  const bool recurs = !flat() || guest_.recurs(page.base + offset);
  // The threads of a program share it anyway.
  if (!recurs && page.source == nullptr) return;
  const std::uint64_t base = page.archived_at;
  ArchivedCode code{.address = base + offset, .source_address = base + first, .source = source, .code = emitted.bytes,
                    .links = emitted.links, .faults = emitted.faults, .pins = {}, .final = final, .recurs = recurs};
  if (pins != nullptr) code.pins = *pins;
  archive_->add(code);
}

void CodeCache::load(Page& page) {
  page.loaded = true;
  std::span<const std::byte> present;
  if (page.source != nullptr || guest_.bytes_at) {
    present = source(page, 0, kPageSize + CodePage::kBytesBehind);
    page.archived_at = CodeArchive::page_of(present, flat() ? page.base : page.window.has_value());
  } else {
    page.archived_at = page.base;
  }
  std::vector<std::pair<std::uint32_t, unsigned>> open;  // sites and the blocks of this page that they go to
  archive_->for_each_in(page.archived_at, [&](const ArchivedCode& kept) {
    if (present.empty()) {
      fetched_.resize(kPageSize + CodePage::kBytesBehind);
      present = std::span(fetched_).first(guest_.fetch(page.base, fetched_));
    }
    const auto first_site = static_cast<std::uint32_t>(sites_.size());
    if (!adopt(page, kept, present)) return false;
    for (std::uint32_t i = 0; i < kept.links.size(); ++i) {
      const std::uint64_t target = kept.links[i].target;
      if (sites_[first_site + i].linked || align_down(target, kPageSize) != (flat() ? page.base : 0)) continue;
      open.push_back({first_site + i, static_cast<unsigned>(target % kPageSize)});
    }
    return true;
  });
  for (const auto& [site, offset] : open) {
    if (const auto found = page.blocks.find(offset); found != page.blocks.end()) link(found->second, site);
  }
}

bool CodeCache::adopt(Page& page, const ArchivedCode& kept, std::span<const std::byte> present) {
  const auto offset = static_cast<unsigned>(kept.address - page.archived_at);
  const auto known = page.blocks.find(offset);
  const bool better = known == page.blocks.end() || known->second.code == 0 ||
                      (kept.final && known->second.heat != kDecided);
  if (!better || (kept.pins && !has_pins(*kept.pins))) return false;
  const std::uint64_t from = kept.source_address - page.archived_at;
  if (from > present.size() || present.size() - from < kept.source.size()) return false;
  // What is known here of the window, that code may not know.
  const auto begin = static_cast<unsigned>(from), end = static_cast<unsigned>(from + kept.source.size());
  if (page.window && page.window->any_in(begin, end)) return false;
  if (!std::ranges::equal(kept.source, present.subspan(from, kept.source.size()))) return false;
  const auto at = add(page, {kept.code, kept.links, kept.faults, kept.pins ? &*kept.pins : nullptr});
  if (!at) return false;
  note_use(page, from, kept.source.size());
  Block& block = page.blocks[offset];
  redirect(page, offset, block, *at);
  block.begin = static_cast<std::uint16_t>(from);
  block.end = static_cast<std::uint16_t>(from + kept.source.size());
  block.heat = kept.final ? kDecided : 0;
  ++statistics_.loaded;
  return true;
}

bool CodeCache::take_other(Page& page, unsigned offset, bool final) {
  if (archive_ == nullptr || page.source == nullptr) return false;
  bool taken = false;
  archive_->find_added(page.archived_at + offset, [&](const ArchivedCode& code) {
    if (final && !code.final) return false;
    return taken = adopt(page, code, source(page, offset, isa::BlockLimits::kMostBytes));
  });
  return taken;
}

bool CodeCache::has_pins(const x64::Pins& pins) const {
  const auto are_registers = [](const std::vector<std::uint32_t>& offsets, std::uint32_t first, std::uint32_t count) {
    return std::ranges::all_of(offsets, [=](std::uint32_t at) { return at - first < 8 * count && (at - first) % 8 == 0; });
  };
  const x64::StateOffsets& o = compiler_.offsets();
  return pins.integer.size() <= x64::kPinnedRegisters && pins.floating.size() <= x64::kPinnedFloatingRegisters &&
         are_registers(pins.integer, o.integer_registers, o.integer_count) &&
         are_registers(pins.floating, o.floating_registers, o.floating_count);
}

void CodeCache::save() {
  const std::lock_guard lock(mutex_);
  if (archive_ != nullptr) archive_->write();
}

// --- Regions.

void CodeCache::note_running(Entries& entries, unsigned offset, std::uint8_t hot_after, std::uint64_t unfit) {
  const std::lock_guard lock(mutex_);
  take_finished();
  note_running(*entries.page, offset, hot_after, unfit);
}

void CodeCache::note_running(std::uint64_t address, std::uint8_t hot_after) {
  const std::lock_guard lock(mutex_);
  take_finished();
  const auto page = pages_.find(address >> kPageShift);
  if (page != pages_.end()) note_running(*page->second, static_cast<unsigned>(address % kPageSize), hot_after, 0);
}

void CodeCache::note_running(Page& page, unsigned offset, std::uint8_t hot_after, std::uint64_t unfit) {
  if (!page.branches.empty()) note_branches(page, offset, hot_after, unfit);
  const auto found = page.blocks.find(offset);
  if (found == page.blocks.end()) return;
  Block& block = found->second;
  if (block.code == 0) return;
  if (block.heat == kDecided) {
    // Once more, when it is known which of its page slots repay. Only then the region is worth being kept.
    if (block.page_slots == 0 || ++block.later_heat < kSecondLook) return;
    const bool again = archive_ != nullptr || (block.page_slots & unfit) != 0;
    block.page_slots = 0;
    if (again) compile(page, offset, block, true, unfit, true);
    return;
  }
  if (++block.heat < hot_after) return;
  if (take_other(page, offset, true)) return;
  block.heat = kDecided;
  compile(page, offset, block, false, 0, false);
}

void CodeCache::note_branches(Page& page, unsigned offset, std::uint8_t hot_after, std::uint64_t unfit) {
  using State = Page::Branch::State;
  const unsigned fewest = std::max(hot_after / kFewestSamples, 1u);
  const unsigned most = hot_after * kMostSamples;
  std::vector<unsigned> regions;
  for (auto& [head, branch] : page.branches) {
    if (branch.state != State::kOpen) continue;
    if (branch.at.side == offset) ++branch.side_samples;
    if (head != offset) continue;
    ++branch.head_samples;
    // A block is found running in proportion to its length, too.
    const std::size_t all = branch.head_samples * branch.at.side_instructions;
    const std::size_t side = std::min(all, branch.side_samples * branch.at.head_instructions);
    const std::size_t over = all - side;
    const bool both_ways = branch.side_samples >= fewest && std::max(side, over) < kOneSided * std::min(side, over);
    if (!both_ways && branch.head_samples < most) continue;
    branch.state = both_ways ? State::kBothWays : State::kOneWay;
    regions = std::move(branch.regions);
  }
  for (const unsigned of : regions) {
    const auto found = page.blocks.find(of);
    if (found == page.blocks.end() || !found->second.has_open_branches) continue;
    Block& block = found->second;
    const bool slots_known = block.later_heat >= kSecondLook;
    compile(page, of, block, true, slots_known ? unfit : 0, slots_known);
  }
}

void CodeCache::compile(Page& page, unsigned offset, Block& block, bool is_region, std::uint64_t unfit,
                        bool slots_known) {
  const std::span<const std::byte> bytes = source(page, 0, kPageSize + CodePage::kBytesBehind);
  if (bytes.empty()) return;
  if (pipeline_ == nullptr) pipeline_.reset(new HotPipeline{guest_.lift, all_, compiler_});
  block.awaited = ++last_job_;
  const std::shared_ptr<Job> job(new Job{.how = pipeline_, .page = key_of(page.base, page.window.has_value()),
                                         .number = last_job_, .slots_known = slots_known,
                                         .source = {.page = {bytes.begin(), bytes.end()}, .base = page.base, .offset = offset,
                                                    .is_region = is_region, .window = page.window, .unfit = unfit}});
  for (const auto& [at, other] : page.blocks) job->source.heat[at / 2] = other.heat;
  for (const auto& [head, branch] : page.branches) {
    job->source.both_ways[head / 2] = branch.state == Page::Branch::State::kBothWays;
  }
  if (background_ != nullptr && background_->submit([job] { job->run(); })) {
    jobs_.push_back(job);
    return;
  }
  job->run();
  statistics_.seconds += job->seconds;
  install(page, block, *job);
}

void CodeCache::take_finished() {
  for (; !jobs_.empty() && jobs_.front()->done.load(std::memory_order_acquire); jobs_.pop_front()) {
    const Job& job = *jobs_.front();
    statistics_.seconds += job.seconds;
    statistics_.background_seconds += job.seconds;
    // The page may have lost its blocks meanwhile, or the cache have been cleared.
    const auto page = pages_.find(job.page);
    if (page == pages_.end()) continue;
    const auto found = page->second->blocks.find(job.source.offset);
    if (found == page->second->blocks.end() || found->second.awaited != job.number) continue;
    Block& block = found->second;
    if (still_holds(*page->second, job)) {
      install(*page->second, block, job);
    } else {
      block.heat = 0;  // what there is now may become hot, too
    }
  }
}

bool CodeCache::still_holds(Page& page, const Job& job) {
  if (!job.code) return true;
  const HotSource& from = job.source;
  if (page.window && page.window->outside != from.window->outside) return false;
  // Only what blocks were made of has been compared with memory since: a region takes in more.
  const std::span<const std::byte> bytes = source(page, 0, kPageSize + CodePage::kBytesBehind);
  return std::ranges::all_of(job.code->parts, [&](const auto& part) {
    const std::size_t end = std::min(part.second + kLongestInstruction, std::max(from.page.size(), bytes.size()));
    return end <= std::min(from.page.size(), bytes.size()) &&
           std::equal(bytes.begin() + part.first, bytes.begin() + end, from.page.begin() + part.first);
  });
}

void CodeCache::install(Page& page, Block& block, const Job& job) {
  block.awaited = 0;
  if (!job.code) return;
  const HotCode& code = *job.code;
  const HotSource& from = job.source;
  const x64::EmittedCode& emitted = code.emitted;
  const x64::Pins* pins = code.pins ? &*code.pins : nullptr;
  const std::optional<std::uint32_t> at = add(page, {emitted.bytes, emitted.links, emitted.faults, pins});
  if (!at) return;
  std::size_t first = from.offset, end = from.offset;
  for (const auto& [part_begin, part_end] : code.parts) {
    note_use(page, part_begin, part_end - part_begin);
    first = std::min(first, part_begin);
    end = std::max(end, part_end);
  }
  bool has_open_branches = false, is_outdated = false;
  for (const ShortBranch& over : code.branches) {
    using State = Page::Branch::State;
    Page::Branch& branch = page.branches.try_emplace(over.head, Page::Branch{.at = over, .regions = {}}).first->second;
    is_outdated = is_outdated || (branch.state == State::kBothWays && !from.both_ways[over.head / 2]);
    if (branch.state != State::kOpen) continue;
    has_open_branches = true;
    if (std::ranges::find(branch.regions, from.offset) == branch.regions.end()) branch.regions.push_back(from.offset);
  }
  if (job.slots_known || emitted.page_slots == 0) {
    archive(page, from.offset, first, std::span(from.page).subspan(first, end - first), emitted, pins, !has_open_branches);
  }
  redirect(page, from.offset, block, *at);
  block.begin = static_cast<std::uint16_t>(first);
  block.end = static_cast<std::uint16_t>(end);
  block.page_slots = job.slots_known ? 0 : emitted.page_slots;
  block.has_open_branches = has_open_branches;
  if (pins != nullptr) {
    ++statistics_.regions;
  } else {
    statistics_.guest_instructions += code.optimized.origins.size();
  }
  if (on_translation) {
    on_translation({pins != nullptr ? code.optimized : code.lifted, code.optimized, {memory_.code() + *at, emitted.bytes.size()}, page.base + from.offset,
                    pins != nullptr});
  }
  if (is_outdated) compile(page, from.offset, block, true, from.unfit, job.slots_known);
}

void CodeCache::clear(const Runner* caller) {
  age_.fetch_add(1, std::memory_order_seq_cst);
  // Whoever begins from now on sees the new age; whoever runs comes out at the end of its slice.
  for (Runner* runner : runners_) {
    while (runner != caller && runner->running_.load(std::memory_order_seq_cst)) std::this_thread::yield();
    runner->forget_jumps();
  }
  if (guest_.on_clear) guest_.on_clear();
  entered_.clear();
  pages_.clear();
  recent_.fill({});
  sites_.clear();
  const std::lock_guard lock(fault_mutex_);
  faults_.clear();
  regions_.clear();
  memory_.truncate(stubs_end_);
}

}  // namespace doppel
