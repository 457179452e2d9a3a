// What may be known of page tables: all that they said since the last fence that covers it (privileged manual, "Supervisor
// Memory-Management Fence Instruction"). Walks them without a word from the Mmu.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/bits.h"
#include "isa/riscv/csr.h"
#include "isa/riscv/hart_state.h"
#include "isa/riscv/mmu.h"
#include "memory/guest_memory.h"

namespace doppel::riscv::test {

using u64 = std::uint64_t;

class PageTableHistory {
 public:
  // Page tables lie in [tables, tables + bytes), in RAM.
  PageTableHistory(const GuestMemory& memory, const HartState& state, u64 tables, u64 bytes)
      : memory_(memory), state_(state), tables_(tables), now_seen_(bytes / 8) {
    observe();
    forget();
  }

  // To be called when page tables have changed, before the next fence.
  void observe() {
    ++time_;
    const std::byte* now = memory_.host({tables_}, 8 * now_seen_.size());
    for (std::size_t page = 0; page < now_seen_.size(); page += kPageSize / 8) {
      if (std::memcmp(&now_seen_[page], now + 8 * page, kPageSize) == 0) continue;
      for (std::size_t i = page; i < page + kPageSize / 8; ++i) {
        const u64 value = *memory_.load<u64>({tables_ + 8 * i});
        if (value == now_seen_[i]) continue;
        note(past_[tables_ + 8 * i], {now_seen_[i], time_});
        now_seen_[i] = value;
      }
    }
  }
  // SFENCE.VMA, as Mmu::fence().
  void fence(const u64* gva, const u64* asid) {
    ++time_;
    if (gva == nullptr && asid == nullptr) return forget();
    Fence fence{time_, {}, {}};
    if (gva != nullptr) fence.gva = *gva;
    if (asid != nullptr) fence.asid = *asid;
    fences_.push_back(fence);
  }
  // Everything was fenced, and the state may have another PMP or environment configuration.
  void forget() {
    past_.clear();
    fences_.clear();
    allowed_.clear();
  }

  // Whether an access at `gva` in that context may find `gpa`. In a TLB, for all of the page, or just for those bytes.
  bool may_find(const Mmu::Key& key, Access access, u64 gva, u64 gpa, u64 bytes) const {
    const std::uint8_t privilege = access == Access::kFetch ? key.fetch_privilege : key.data_privilege;
    if (!pmp_allows(gpa, bytes, access, privilege)) return false;
    if (privilege == kMachine || bits(key.satp, 63, 60) == 0) return gva == gpa;
    return any_walk(key.satp, gva, [&](unsigned level, std::span<const Step> steps) {
      const u64 leaf = steps.back().value;
      if (!is_leaf(leaf)) return false;
      const std::optional<unsigned> shift = page_shift(leaf, level);
      if (!shift || !permits(leaf, access, privilege, key)) return false;
      const u64 offset = gva & ((u64{1} << *shift) - 1);
      const u64 frame = bits(leaf, 53, 10) << kPageShift >> *shift << *shift;
      return (frame | offset) == gpa && !covered(key, steps, gva, *shift, (leaf & kG) != 0);
    });
  }
  // Whether a walk to `gva` may end at a leaf of that level and value, or, at level 0, at a table that lies at `value`.
  bool may_end(const Mmu::Key& key, u64 gva, unsigned end, u64 value) const {
    return any_walk(key.satp, gva, [&](unsigned level, std::span<const Step> steps) {
      const u64 entry = steps.back().value;
      const bool there = end == 0 ? level == 1 && !is_leaf(entry) && bits(entry, 53, 10) << kPageShift == value
                                  : level == end && is_leaf(entry) && entry == value;
      // Fences of an address are of the table that the path leads to, too.
      return there && !covered(key, steps, gva, kPageShift + 9 * level, is_leaf(entry) && (entry & kG) != 0);
    });
  }

 private:
  static constexpr std::uint8_t kUser = 0, kSupervisor = 1, kMachine = 3;
  static constexpr u64 kV = 1, kR = 2, kW = 4, kX = 8, kU = 16, kG = 32, kA = 64, kD = 128, kN = u64{1} << 63;
  static constexpr u64 kForever = ~u64{0};

  // A value of an entry, and when it was replaced.
  struct Step {
    u64 value;
    u64 until;
  };
  struct Fence {
    u64 time;
    std::optional<u64> gva, asid;
  };

  static void note(std::vector<Step>& past, const Step& step) {
    for (Step& known : past) {
      if (known.value != step.value) continue;
      known.until = step.until;
      return;
    }
    past.push_back(step);
  }

  static bool is_leaf(u64 value) { return (value & (kR | kX)) != 0; }

  // Calls visit(level, steps) with each way from the root that entries' values lead, past and present mixed, for each step;
  // until that gives true.
  template <class Visit>
  bool any_walk(u64 satp, u64 gva, const Visit& visit) const {
    const u64 mode = bits(satp, 63, 60);
    if (mode == 0) return false;
    const unsigned levels = mode == 8 ? 3 : mode == 9 ? 4 : 5;
    if (sign_extend(gva, kPageShift + 9 * levels) != gva) return false;
    std::array<Step, 5> steps;
    return any_walk_from(bits(satp, 43, 0) << kPageShift, levels, gva, steps, 0, visit);
  }
  template <class Visit>
  bool any_walk_from(u64 table, unsigned levels, u64 gva, std::array<Step, 5>& steps, std::size_t count,
                     const Visit& visit) const {
    const unsigned level = levels - 1;
    const u64 at = table + 8 * (gva >> (kPageShift + 9 * level) & 511);
    if (!pmp_allows(at, 8, Access::kRead, kSupervisor)) return false;
    const auto any_beyond = [&](const Step& step) {
      const u64 value = step.value;
      const u64 memory_type = bits(value, 62, 61);
      const bool valid = (value & kV) != 0 && (value & (kR | kW)) != kW && bits(value, 60, 54) == 0 && memory_type != 3 &&
                         (memory_type == 0 || (state_.menvcfg & envcfg::kPbmte) != 0);
      if (!valid) return false;
      steps[count] = step;
      if (!is_leaf(value)) {
        if (level == 0 || memory_type != 0 || (value & (kU | kA | kD | kN)) != 0) return false;
      }
      if (visit(level, std::span<const Step>(steps).first(count + 1))) return true;
      return !is_leaf(value) &&
             any_walk_from(bits(value, 53, 10) << kPageShift, level, gva, steps, count + 1, visit);
    };
    if (any_beyond({now_seen_[(at - tables_) / 8], kForever})) return true;
    const auto past = past_.find(at);
    if (past == past_.end()) return false;
    for (const Step& step : past->second) {
      if (any_beyond(step)) return true;
    }
    return false;
  }

  static std::optional<unsigned> page_shift(u64 leaf, unsigned level) {
    const u64 frame = bits(leaf, 53, 10);
    if ((leaf & kN) != 0) return level == 0 && frame % 16 == 8 ? std::optional(16u) : std::nullopt;
    if (frame % (u64{1} << 9 * level) != 0) return std::nullopt;
    return kPageShift + 9 * level;
  }
  static bool permits(u64 leaf, Access access, std::uint8_t privilege, const Mmu::Key& key) {
    if ((leaf & kA) == 0) return false;
    const bool user_page = (leaf & kU) != 0;
    if (user_page != (privilege == kUser) && !(user_page && key.sum && access != Access::kFetch)) return false;
    switch (access) {
      case Access::kFetch: return (leaf & kX) != 0;
      case Access::kRead: return (leaf & kR) != 0 || (key.mxr && (leaf & kX) != 0);
      default: return (leaf & kW) != 0 && (leaf & kD) != 0;
    }
  }

  // Whether a fence came after one of these values was replaced. That of an address is one of the last step, which is for
  // 2^shift bytes around gva; that of an address space is none of what is global.
  bool covered(const Mmu::Key& key, std::span<const Step> steps, u64 gva, unsigned shift, bool global) const {
    for (const Fence& fence : fences_) {
      if (fence.asid && (global || *fence.asid != bits(key.satp, 59, 44))) continue;
      if (fence.gva && *fence.gva >> shift != gva >> shift) continue;
      for (const Step& step : fence.gva ? steps.last(1) : steps) {
        if (step.until < fence.time) return true;
      }
    }
    return false;
  }

  // Physical memory protection, word by word.
  bool pmp_allows(u64 gpa, u64 bytes, Access access, std::uint8_t privilege) const {
    const auto words_allow = [&] {
      for (u64 word = gpa >> 2; word <= (gpa + bytes - 1) >> 2; ++word) {
        if (!pmp_allows_word(word, access, privilege)) return false;
      }
      return true;
    };
    if (bytes != kPageSize) return words_allow();
    const auto [known, is_new] = allowed_.try_emplace(gpa | u64{privilege} << 2 | static_cast<u64>(access));
    if (is_new) known->second = words_allow();
    return known->second;
  }
  bool pmp_allows_word(u64 word, Access access, std::uint8_t privilege) const {
    for (unsigned i = 0; i < kPmpEntries; ++i) {
      const unsigned config = state_.pmpcfg[i];
      const u64 address = state_.pmpaddr[i];
      const u64 napot_mask = address ^ (address + 1);
      const unsigned mode = config >> 3 & 3;
      const bool matches = mode == 1   ? (i == 0 ? 0 : state_.pmpaddr[i - 1]) <= word && word < address
                           : mode == 2 ? word == address
                           : mode == 3 ? (word & ~napot_mask) == (address & ~napot_mask)
                                       : false;
      if (!matches) continue;
      if (privilege == kMachine && (config & 0x80) == 0) return true;
      return (config & (access == Access::kRead ? 1 : access == Access::kWrite ? 2 : 4)) != 0;
    }
    return privilege == kMachine;
  }

  const GuestMemory& memory_;
  const HartState& state_;
  const u64 tables_;
  u64 time_ = 0;
  std::vector<u64> now_seen_;                         // of all tables
  std::unordered_map<u64, std::vector<Step>> past_;   // by the entry's address
  std::vector<Fence> fences_;
  mutable std::unordered_map<u64, bool> allowed_;     // by page, privilege and access
};

}  // namespace doppel::riscv::test
