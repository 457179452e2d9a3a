#include "isa/riscv/tlb.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/bits.h"

namespace doppel::riscv {

void TlbContext::clear() {
  clear_data();
  clear_fetch();
  upper_half_is_global = true;
  clear_paths();
  for (std::size_t i = 0; i < kLargeShifts.size(); ++i) {
    if (!any_large[i]) continue;
    any_large[i] = false;
    large[i].reset();
  }
}

void TlbContext::clear_data() {
  filled.for_each([this](unsigned first) {
    std::fill_n(&read[first], kGroup, TlbEntry{});
    std::fill_n(&write[first], kGroup, TlbEntry{});
  });
  filled.clear();
  clear_chunks();
  clear_slots();
}

void TlbContext::clear_chunks() {
  if (!std::exchange(any_chunks, false)) return;
  read_chunks.fill({});
  write_chunks.fill({});
}

void TlbContext::begin_round() {
  unfit_slots = 0;
  for (unsigned i = 0; i < kSlots; ++i) {
    if (slot_refills[i] == 0) unfit_slots |= std::uint64_t{1} << i;
    std::uint8_t& next = next_pauses[i];
    if (slot_refills[i] != 0) {
      next /= 2;
    } else if (slot_pauses[i] != 0) {
      if (--slot_pauses[i] != 0) continue;
    } else if (next != 0) {
      slot_pauses[i] = next;
      next = std::min<std::uint8_t>(2 * next, kLongestPause);
      continue;
    } else {
      next = 1;
    }
    slot_refills[i] = kRefills;
  }
}

void TlbContext::copy_global(const TlbContext& other) {
  if (!other.upper_half_is_global) return;
  const auto copy = [](const Groups& groups, const auto& from, auto& to) {
    groups.for_each([&](unsigned first) {
      for (unsigned i = first; i < first + kGroup; ++i) {
        if (in_upper_half(from[i].tag)) to[i] = from[i];
      }
    });
  };
  copy(other.filled, other.read, read);
  copy(other.filled, other.write, write);
  copy(other.filled_fetch, other.fetch, fetch);
  copy(other.filled_fetch, other.translated, translated);
  filled = other.filled;
  filled_fetch = other.filled_fetch;
  large = other.large;
  any_large = other.any_large;
}

bool TlbContext::clear_local() {
  if (!upper_half_is_global || (!filled.any() && !filled_fetch.any())) return false;
  const auto clear = [](const Groups& groups, auto& entries) {
    groups.for_each([&](unsigned first) {
      for (unsigned i = first; i < first + kGroup; ++i) {
        if (!in_upper_half(entries[i].tag)) entries[i] = {};
      }
    });
  };
  clear(filled, read);
  clear(filled, write);
  clear(filled_fetch, fetch);
  clear(filled_fetch, translated);
  clear_chunks();
  clear_paths();
  clear_slots();
  return true;
}

void TlbContext::clear_fetch(KeepsCode keeps) {
  Groups kept;
  filled_fetch.for_each([&](unsigned first) {
    std::fill_n(&fetch[first], kGroup, FetchEntry{});
    for (unsigned i = first; i < first + kGroup; ++i) {
      if (translated[i].tag == TlbEntry::kEmpty) continue;
      if (keeps != nullptr && keeps(translated[i].code)) {
        kept.set(i / kGroup);
      } else {
        translated[i] = {};
      }
    }
  });
  filled_fetch = kept;
}

void TlbContext::note_large_page(std::uint64_t gva, std::uint64_t size_bytes) {
  const auto shift = static_cast<unsigned>(std::countr_zero(size_bytes));
  const auto which = static_cast<std::size_t>(std::ranges::find(kLargeShifts, shift) - kLargeShifts.begin());
  any_large[which] = true;
  large[which].set(hash(gva >> shift));
}

void TlbContext::clear_entry(unsigned index) {
  read[index] = {};
  write[index] = {};
  fetch[index] = {};
  translated[index] = {};
}

void TlbContext::clear_page(std::uint64_t gva) {
  clear_entry(index(gva));
  clear_slots();
  if (Path& known = path(gva); known.region == region(gva)) known = {};
  for (std::size_t i = 0; i < kLargeShifts.size(); ++i) {
    if (!any_large[i] || !large[i].test(hash(gva >> kLargeShifts[i]))) continue;
    const std::uint64_t size_bytes = std::uint64_t{1} << kLargeShifts[i];
    clear_range(align_down(gva, size_bytes), size_bytes);
  }
}

void TlbContext::clear_range(std::uint64_t start, std::uint64_t size_bytes) {
  for (unsigned i = 0; i < kEntries; ++i) {
    if (read[i].tag - start < size_bytes) read[i] = {};
    if (write[i].tag - start < size_bytes) write[i] = {};
    if (fetch[i].tag - start < size_bytes) fetch[i] = {};
    if (translated[i].tag - start < size_bytes) translated[i] = {};
  }
  for (unsigned i = 0; any_chunks && i < kChunks; ++i) {
    if (read_chunks[i].tag - start < size_bytes) read_chunks[i] = {};
    if (write_chunks[i].tag - start < size_bytes) write_chunks[i] = {};
  }
  for (Path& known : paths) {
    if ((known.region << kRegionShift) - start < size_bytes) known = {};
  }
}

}  // namespace doppel::riscv
