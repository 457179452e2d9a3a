// What a code cache does about hot code: it counts what is found running, has it compiled, and puts the result in place.
#include <algorithm>
#include <memory>

#include "translator/code_cache_page.h"

namespace doppel {
namespace {

constexpr std::uint8_t kSecondLook = 32;  // at a region, when it was found running so often

}  // namespace

bool CodeCache::note_running(Entries& entries, unsigned offset, std::uint8_t hot_after, std::uint64_t unfit) {
  const std::lock_guard lock(mutex_);
  const bool learns = note_running(*entries.page, offset, hot_after, unfit);
  take_finished();
  return learns;
}

bool CodeCache::note_running(std::uint64_t address, std::uint8_t hot_after) {
  const std::lock_guard lock(mutex_);
  const auto page = pages_.find(address >> kPageShift);
  const bool learns = page != pages_.end() &&
                      note_running(*page->second, static_cast<unsigned>(address % kPageSize), hot_after, 0);
  take_finished();
  return learns;
}

bool CodeCache::note_running(Page& page, unsigned offset, std::uint8_t hot_after, std::uint64_t unfit) {
  note_branches(page, offset, hot_after, unfit);
  const bool learns = page.branches.is_open();
  const auto found = page.blocks.find(offset);
  if (found == page.blocks.end()) return learns;
  Block& block = found->second;
  if (block.code == 0) return learns;
  if (block.heat == Block::kDecided) {
    // Once more, when it is known which of its page slots repay. Only then the region is worth being kept.
    if (block.page_slots == 0) return learns;
    if (++block.later_heat < kSecondLook) return true;
    const bool again = archive_ != nullptr || (block.page_slots & unfit) != 0;
    block.page_slots = 0;
    if (again) compile(page, offset, block, true, unfit, true);
    return true;
  }
  if (++block.heat < hot_after || take_other(page, offset, true)) return true;
  block.heat = Block::kDecided;
  compile(page, offset, block, false, 0, false);
  return true;
}

void CodeCache::note_branches(Page& page, unsigned offset, std::uint8_t hot_after, std::uint64_t unfit) {
  for (const unsigned region : page.branches.note_running(offset, hot_after)) {
    const auto found = page.blocks.find(region);
    if (found == page.blocks.end() || !found->second.has_open_branches) continue;
    Block& block = found->second;
    const bool slots_known = block.later_heat >= kSecondLook;
    compile(page, region, block, true, slots_known ? unfit : 0, slots_known);
  }
}

void CodeCache::compile(Page& page, unsigned offset, Block& block, bool is_region, std::uint64_t unfit,
                        bool slots_known) {
  const std::span<const std::byte> bytes = source(page, 0, kPageSize + CodePage::kBytesBehind);
  if (bytes.empty()) return;
  if (pipeline_ == nullptr) pipeline_.reset(new HotPipeline{guest_.lift, all_, compiler_});
  block.awaited = ++last_job_;
  const std::shared_ptr<HotJob> job(
      new HotJob{.how = pipeline_, .page = page.key(), .number = block.awaited, .slots_known = slots_known,
                 .source = {.page = {bytes.begin(), bytes.end()}, .base = page.base, .offset = offset,
                            .is_region = is_region, .both_ways = page.branches.both_ways(), .window = page.window,
                            .unfit = unfit}});
  for (const auto& [at, other] : page.blocks) job->source.heat[at / 2] = other.heat;
  hot_jobs_.submit(job);
}

void CodeCache::take_finished() {
  while (const auto done = hot_jobs_.take_done()) {
    const HotJob& job = *done;
    statistics_.seconds += job.seconds;
    if (job.in_background) statistics_.background_seconds += job.seconds;
    if (!flat() && job.code && job.code->emitted.bytes.size() > memory_.room()) evict();
    // The page may have lost its blocks meanwhile, or be gone.
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

bool CodeCache::still_holds(Page& page, const HotJob& job) {
  if (!job.code) return true;
  const HotSource& from = job.source;
  if (page.window && page.window->outside != from.window->outside) return false;
  // Only what blocks were made of has been compared with memory since: a region takes in more.
  const std::span<const std::byte> bytes = source(page, 0, kPageSize + CodePage::kBytesBehind);
  return std::ranges::all_of(job.code->parts, [&](const auto& part) {
    const std::size_t end = std::min(part.second + Page::kLongestInstruction, std::max(from.page.size(), bytes.size()));
    return end <= std::min(from.page.size(), bytes.size()) &&
           std::equal(bytes.begin() + part.first, bytes.begin() + end, from.page.begin() + part.first);
  });
}

void CodeCache::install(Page& page, Block& block, const HotJob& job) {
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
  for (const ShortBranch& branch : code.branches) {
    using State = BranchProfile::State;
    const State state = page.branches.ask(branch, from.offset);
    has_open_branches = has_open_branches || state == State::kOpen;
    is_outdated = is_outdated || (state == State::kBothWays && !from.both_ways[branch.head / 2]);
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
    on_translation({pins != nullptr ? code.optimized : code.lifted, code.optimized,
                    {memory_.code() + *at, emitted.bytes.size()}, page.base + from.offset, pins != nullptr});
  }
  if (is_outdated) compile(page, from.offset, block, true, from.unfit, job.slots_known);
}

}  // namespace doppel
