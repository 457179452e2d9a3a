#include "isa/riscv/mmu.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <utility>

#include "base/bits.h"
#include "isa/riscv/csr.h"
#include "isa/riscv/hart.h"
#include "memory/shared_words.h"

namespace doppel::riscv {
namespace {

constexpr std::uint8_t kUser = 0, kSupervisor = 1, kMachine = 3;

// Page table entries (privileged manual, "Sv39" and the chapters on Svnapot and Svpbmt).
namespace pte {
constexpr std::uint64_t kV = 1, kR = 2, kW = 4, kX = 8, kU = 16, kG = 32, kA = 64, kD = 128;
constexpr std::uint64_t kPbmt = std::uint64_t{3} << 61, kN = std::uint64_t{1} << 63;
constexpr std::uint64_t kReserved = std::uint64_t{0x7f} << 54;
}  // namespace pte
constexpr std::size_t kLineEntries = 8;  // that are compared together

// Of programs' pages, how many are looked at together.
constexpr std::uint64_t kShadowBlock = 16 * kPageSize;

// How many pages of the window's 2 MiB around a page may have been removed for it to be entered: at first, and after so many
// instructions one more. What the supervisor maps for a moment is not worth the host's mappings.
constexpr std::uint64_t kRemovalsAtFirst = 64, kInstructionsARemoval = 200'000;

// satp.MODE values.
constexpr unsigned kBare = 0, kSv39 = 8, kSv57 = 10;
// Of Sv39.
constexpr unsigned kRootLevel = 2;

Exception page_fault(Access access) {
  switch (access) {
    case Access::kFetch: return Exception::kInstructionPageFault;
    case Access::kRead: return Exception::kLoadPageFault;
    default: return Exception::kStorePageFault;
  }
}

Exception access_fault(Access access) {
  switch (access) {
    case Access::kFetch: return Exception::kInstructionAccessFault;
    case Access::kRead: return Exception::kLoadAccessFault;
    default: return Exception::kStoreAccessFault;
  }
}

}  // namespace

Mmu::Mmu(Hart& hart) : hart_(hart) { update(); }

Mmu::Key Mmu::key_now() const {
  const HartState& state = hart_.state();
  const std::uint8_t fetch = static_cast<std::uint8_t>(state.privilege);
  std::uint8_t data = fetch;
  if (fetch == kMachine && (state.mstatus & mstatus::kMprv) != 0) {
    data = static_cast<std::uint8_t>(bits(state.mstatus, 12, 11));
  }
  if (data == kMachine) return {0, fetch, data};
  const bool sum = data == kSupervisor && (state.mstatus & mstatus::kSum) != 0;
  return {state.satp, fetch, data, (state.mstatus & mstatus::kMxr) != 0, sum};
}

// The first context is part of the program's data, of which only what is used is ever touched: a process VM needs one,
// and next to nothing of it.
static constinit TlbContext first_context;
static std::atomic<bool> first_is_taken{false};

static TlbContext* make_context() { return first_is_taken.exchange(true) ? new TlbContext : &first_context; }

void Mmu::Discard::operator()(TlbContext* context) const {
  if (context != &first_context) delete context;
}

void Mmu::update() {
  const Key key = key_now();
  if (current_slot_ != nullptr && current_slot_->valid) {
    const Key& before = current_slot_->key;
    if (before == key) return use(*current_slot_);
    if (before.satp != key.satp || before.fetch_privilege != key.fetch_privilege) ++changes_;
  } else {
    ++changes_;
  }
  Slot* model = latest(key.mode());
  if (model != nullptr && model->key == key) return use(*model);
  Slot* oldest = slots_.data();
  for (Slot& slot : slots_) {
    if (slot.valid && slot.key == key) return use(slot);
    if (oldest->valid && (!slot.valid || slot.last_used < oldest->last_used)) oldest = &slot;
  }
  if (oldest->tlb == nullptr) oldest->tlb.reset(make_context());
  oldest->forget();
  oldest->tlb->clear();
  if (model != nullptr && model != oldest && bits(model->key.satp, 63, 60) == bits(key.satp, 63, 60)) {
    oldest->tlb->copy_global(*model->tlb);
  }
  oldest->key = key;
  oldest->valid = true;
  use(*oldest);
}

void Mmu::use(Slot& slot) {
  slot.last_used = ++tick_;
  latest_[slot.key.mode()] = &slot;
  current_slot_ = &slot;
  current_ = slot.tlb.get();
  const bool windowed = window_ != nullptr && can_use_window(slot.key);
  // To code that uses the window, or does not, all is different now.
  if (std::exchange(windowed_, windowed) != windowed) ++changes_;
  beyond_sum_ = current_;
  if (slot.key.data_privilege != kSupervisor) return;
  Key key = slot.key;
  key.sum = !key.sum;
  const Slot* beyond = latest(key.mode());
  beyond_sum_ = beyond != nullptr && beyond->key == key ? beyond->tlb.get() : nullptr;
}

void Mmu::flush() {
  ++changes_;
  ++statistics_.flushes;
  for (Slot& slot : slots_) slot.forget();
  // NAPOT with all address bits set, not locked, read, write, execute.
  const HartState& state = hart_.state();
  std::size_t first = 0;
  while (first + 1 < kPmpEntries && bits(state.pmpcfg[first], 4, 3) == 0) ++first;
  pmp_open_ = (state.pmpcfg[first] & 0x9f) == 0x1f &&
              (state.pmpaddr[first] | std::uint64_t{1} << 53) == ~std::uint64_t{0} >> 10;
  update();
  // What was entered as one page of the guest would be verified as one, and PMP may cut it now.
  if (window_ != nullptr) clear_window();
}

void Mmu::flush_fetch(TlbContext::KeepsCode keeps) {
  ++changes_;
  for (Slot& slot : slots_) {
    if (slot.valid) slot.tlb->clear_fetch(keeps);
  }
}

void Mmu::fence(const std::uint64_t* gva, const std::uint64_t* asid) {
  ++statistics_.flushes;
  ++changes_;
  for (Slot& slot : slots_) {
    if (!slot.valid) continue;
    if (asid != nullptr && bits(slot.key.satp, 59, 44) != (*asid & 0xffff)) continue;
    if (slot.shadow != nullptr) {
      // It stays: what it has is compared with the page tables before it is used again.
      gva != nullptr ? slot.tlb->clear_page(*gva) : slot.tlb->clear();
      slot.shadow->suspect(gva);
    } else if (gva != nullptr) {
      slot.tlb->clear_page(*gva);
    } else if (asid != nullptr && slot.key.data_privilege == kSupervisor) {
      // A fence of one address space is not one of global pages.
      slot.valid = slot.tlb->clear_local();
    } else {
      slot.forget();
    }
  }
  update();
  // A fence of one address space is not one of global pages.
  if (window_ != nullptr && asid == nullptr) verify_window(gva);
}

void Mmu::Shadow::suspect(const std::uint64_t* gva) {
  gva != nullptr ? space->suspect(*gva) : space->suspect_all();
  if (gva == nullptr || fetch_suspects.size() == kMostSuspects) {
    all_fetches_suspect = true;
    fetch_suspects.clear();
  } else if (!all_fetches_suspect) {
    fetch_suspects.push_back(*gva);
  }
}

Mmu::Shadow* Mmu::make_shadow() {
  const Key& key = current_slot_->key;
  const bool program = key.fetch_privilege == kUser && key.data_privilege == kUser && !key.mxr;
  if (!program || bits(key.satp, 63, 60) != kSv39 || hart_.env().user != nullptr) return nullptr;
  std::unique_ptr<ShadowSpace> space = ShadowSpace::create(hart_.env().memory);
  if (space == nullptr) return nullptr;
  Slot* oldest = nullptr;
  unsigned count = 0;
  for (Slot& slot : slots_) {
    if (slot.shadow == nullptr) continue;
    ++count;
    if (oldest == nullptr || slot.last_used < oldest->last_used) oldest = &slot;
  }
  if (count == kMostShadows) oldest->forget();
  current_slot_->shadow = std::make_unique<Shadow>();
  current_slot_->shadow->space = std::move(space);
  current_slot_->shadow->instructions = hart_.state().instructions;
  return current_slot_->shadow.get();
}

unsigned Mmu::end_shadow() {
  current_slot_->shadow.reset();
  return ++current_slot_->ended_shadows;
}

std::optional<ShadowSpace::GuestPage> Mmu::shadow_page(std::uint64_t gva, std::uint8_t privilege) {
  const auto found = walk(gva, Access::kRead, privilege, false);
  if (!found || (privilege == kSupervisor && (!found->global || found->user))) return std::nullopt;
  const GuestPhysical page{align_down(found->gpa.value, kPageSize)};
  bool whole = true;
  if (ram(page, kPageSize) == nullptr || !pmp_allows(page, kPageSize, Access::kRead, privilege, &whole)) return std::nullopt;
  const bool writable = found->writes && pmp_allows(page, kPageSize, Access::kWrite, privilege, &whole);
  if (!whole) return std::nullopt;
  return ShadowSpace::GuestPage{{page, writable}, found->page_bytes};
}

void Mmu::verify_shadow() {
  current_slot_->shadow->space->verify([this](std::uint64_t gva) { return shadow_page(gva, kUser); });
}

bool Mmu::enter_in_shadow(std::uint64_t gva) {
  const auto here = shadow_page(gva, kUser);
  if (!here) return true;
  ++current_slot_->shadow->faults;
  return enter_page(*current_slot_->shadow->space, gva, *here, kUser);
}

bool Mmu::enter_page(ShadowSpace& space, std::uint64_t gva, const ShadowSpace::GuestPage& here, std::uint8_t privilege) {
  // A supervisor's large pages are all of RAM, of which a guest may never use the most.
  const bool populate = privilege == kUser;
  const std::uint64_t page = align_down(gva, kPageSize);
  // All of a large page, as far as that is one piece.
  const std::uint64_t large = std::min(here.bytes, ShadowSpace::kPieceBytes);
  if (large > kPageSize && pmp_open_) {
    const std::uint64_t first = align_down(gva, large);
    const GuestPhysical gpa{here.page.gpa.value - (page - first)};
    if (space.enter(first, {gpa, here.page.writable}, large, here.bytes, populate)) return true;
  }
  // Neighbours that were in use before, and lie beside it in RAM as well, come with it.
  std::uint64_t begin = page, end = page + kPageSize;
  const std::uint64_t block = align_down(page, kShadowBlock);
  const auto joins = [&](std::uint64_t neighbour) {
    const auto there = shadow_page(neighbour, privilege);
    return there && there->page == ShadowSpace::Page{{here.page.gpa.value + neighbour - page}, here.page.writable} &&
           (privilege == kUser || is_kept(neighbour, there->page));
  };
  while (begin > block && joins(begin - kPageSize)) begin -= kPageSize;
  while (end < block + kShadowBlock && joins(end)) end += kPageSize;
  const GuestPhysical gpa{here.page.gpa.value + begin - page};
  return space.enter(begin, {gpa, here.page.writable}, end - begin, here.bytes, populate);
}

bool Mmu::can_use_window(const Key& key) {
  return key.fetch_privilege == kSupervisor && key.data_privilege == kSupervisor && !key.mxr &&
         bits(key.satp, 63, 60) == kSv39;
}

bool Mmu::open_window() {
  if (window_ != nullptr || !can_use_window(current_slot_->key)) return false;
  window_ = ShadowSpace::create(hart_.env().memory, ShadowSpace::kUpperHalf);
  windowed_ = window_ != nullptr;
  window_opened_at_ = hart_.state().instructions;
  return windowed_;
}

void Mmu::verify_window(const std::uint64_t* gva) {
  // Without page tables that say what the supervisor may read, nothing of it is sure.
  const HartState& state = hart_.state();
  if (bits(state.satp, 63, 60) != kSv39 || (state.mstatus & mstatus::kMxr) != 0) return clear_window();
  gva != nullptr ? window_->suspect(*gva) : refresh_tables();
  if (window_->any_suspects()) window_->verify([this](std::uint64_t at) { return shadow_page(at, kSupervisor); });
}

void Mmu::clear_window() {
  window_tables_.clear();
  window_->clear();
}

Mmu::KeptTable* Mmu::kept_table(std::uint64_t gva, unsigned level) {
  const std::uint64_t first = align_down(gva, std::uint64_t{1} << (21 + 9 * level));
  const auto known = std::ranges::find_if(window_tables_, [&](const auto& kept) {
    return kept->level == level && (level == kRootLevel || kept->gva == first);
  });
  return known == window_tables_.end() ? nullptr : known->get();
}

void Mmu::keep_tables(std::uint64_t gva) {
  GuestPhysical table{bits(hart_.state().satp, 43, 0) << kPageShift};
  for (unsigned level = kRootLevel + 1; level-- > 0;) {
    KeptTable* kept = kept_table(gva, level);
    if (kept == nullptr) {
      const std::uint64_t first = align_down(gva, std::uint64_t{1} << (21 + 9 * level));
      window_tables_.push_back(std::make_unique<KeptTable>(KeptTable{table, first, level, {}}));
      kept = window_tables_.back().get();
      refresh(*kept);
    }
    const std::uint64_t entry = kept->entries[bits(gva, 20 + 9 * level, 12 + 9 * level)];
    if ((entry & pte::kV) == 0 || (entry & (pte::kR | pte::kX)) != 0) return;
    table = {bits(entry, 53, 10) << kPageShift};
  }
}

bool Mmu::refresh(KeptTable& kept) {
  // Each address space has a root of its own.
  const bool is_root = kept.level == kRootLevel;
  if (is_root) kept.at = {bits(hart_.state().satp, 43, 0) << kPageShift};
  const std::byte* table = ram(kept.at, kPageSize);
  if (table == nullptr) return false;
  const auto* entries = reinterpret_cast<const std::uint64_t*>(table);
  for (std::size_t line = is_root ? kept.entries.size() / 2 : 0; line < kept.entries.size(); line += kLineEntries) {
    if (same_line(&kept.entries[line], &entries[line])) continue;
    for (std::size_t i = line; i < line + kLineEntries; ++i) {
      // Others may be changing it.
      const std::uint64_t now = __atomic_load_n(&entries[i], __ATOMIC_RELAXED);
      const std::uint64_t before = std::exchange(kept.entries[i], now);
      if (before == now || (before & pte::kV) == 0) continue;
      if (kept.level != 0) return false;
      window_->suspect(kept.gva + i * kPageSize);
    }
  }
  return true;
}

void Mmu::refresh_tables() {
  const bool same_tables = std::ranges::all_of(window_tables_, [this](const auto& kept) { return refresh(*kept); });
  if (!same_tables) keep_tables_anew();
}

void Mmu::keep_tables_anew() {
  window_tables_.clear();
  for (const std::uint64_t gva : window_->pieces()) keep_tables(gva);
  window_->suspect_all();
}

bool Mmu::is_kept(std::uint64_t gva, const ShadowSpace::Page& page) {
  for (unsigned level = kRootLevel + 1; level-- > 0;) {
    const KeptTable* kept = kept_table(gva, level);
    if (kept == nullptr) return false;
    const std::uint64_t entry = kept->entries[bits(gva, 20 + 9 * level, 12 + 9 * level)];
    if ((entry & pte::kV) == 0) return false;
    if ((entry & (pte::kR | pte::kX)) == 0) continue;
    const std::uint64_t offset = gva & ((std::uint64_t{1} << (12 + 9 * level)) - 1);
    const std::uint64_t gpa = (bits(entry, 53, 10) << kPageShift) + align_down(offset, kPageSize);
    constexpr std::uint64_t kWritable = pte::kW | pte::kD;
    return gpa == page.gpa.value && ((entry & kWritable) == kWritable) == page.writable;
  }
  return false;
}

bool Mmu::enter_in_window(std::uint64_t gva) {
  if (!window_->contains(gva)) return false;
  // Others are looked at when there is a fence.
  for (unsigned level = kRootLevel + 1; level-- > 0;) {
    KeptTable* kept = kept_table(gva, level);
    if (kept != nullptr && !refresh(*kept)) {
      keep_tables_anew();
      break;
    }
  }
  keep_tables(gva);
  if (window_->any_suspects()) window_->verify([this](std::uint64_t at) { return shadow_page(at, kSupervisor); });
  // Without what is remembered of upper levels.
  current_->path(gva) = {};
  const auto here = shadow_page(gva, kSupervisor);
  if (!here || !is_kept(gva, here->page)) return false;
  const std::uint64_t repaid = (hart_.state().instructions - window_opened_at_) / kInstructionsARemoval;
  if (window_->removals_around(gva) > kRemovalsAtFirst + repaid) return false;
  return enter_page(*window_, gva, *here, kSupervisor);
}

std::byte* Mmu::ram(GuestPhysical gpa, unsigned bytes) const {
  if (const UserSpace* user = hart_.env().user; user != nullptr) {
    return user->flat().contains(gpa.value, bytes) ? user->flat().host(gpa.value) : nullptr;
  }
  return hart_.env().memory.host(gpa, bytes);
}

bool Mmu::pmp_entries_allow(GuestPhysical gpa, std::uint64_t bytes, Access access, std::uint8_t privilege,
                            bool* whole) const {
  const HartState& state = hart_.state();
  const GuestPhysical page{align_down(gpa.value, kPageSize)};
  // The lowest-numbered entry that matches any byte decides; it must match all bytes (privileged manual,
  // "Physical Memory Protection", "Priority and Matching Logic").
  for (unsigned i = 0; i < kPmpEntries; ++i) {
    const std::uint8_t config = state.pmpcfg[i];
    std::uint64_t start = 0;
    std::uint64_t end = 0;
    switch (bits(config, 4, 3)) {
      case 0: continue;
      case 1:  // TOR
        start = i == 0 ? 0 : state.pmpaddr[i - 1] << 2;
        end = state.pmpaddr[i] << 2;
        break;
      case 2:  // NA4
        start = state.pmpaddr[i] << 2;
        end = start + 4;
        break;
      default: {  // NAPOT
        const unsigned ones = static_cast<unsigned>(std::countr_one(state.pmpaddr[i]));
        const std::uint64_t size = ones >= 54 ? std::uint64_t{1} << 57 : std::uint64_t{8} << ones;
        start = (state.pmpaddr[i] << 2) & ~(size - 1);
        end = start + size;
      }
    }
    if (start >= end) continue;
    const bool touches_page = start < page.value + kPageSize && page.value < end;
    if (!touches_page) continue;
    if (start > page.value || end < page.value + kPageSize) *whole = false;
    if (gpa.value + bytes <= start || gpa.value >= end) continue;
    if (gpa.value < start || gpa.value + bytes > end) return false;
    const bool locked = bit(config, 7);
    if (privilege == kMachine && !locked) return true;
    const unsigned needed = access == Access::kRead ? 0 : access == Access::kWrite ? 1 : 2;
    return bit(config, needed);
  }
  return privilege == kMachine;
}

bool Mmu::permits(std::uint64_t value, Access access, std::uint8_t privilege) const {
  const std::uint64_t status = hart_.state().mstatus;
  const bool user_page = (value & pte::kU) != 0;
  if (privilege == kUser && !user_page) return false;
  if (privilege == kSupervisor && user_page && (access == Access::kFetch || (status & mstatus::kSum) == 0)) return false;
  switch (access) {
    case Access::kFetch: return (value & pte::kX) != 0;
    case Access::kWrite: return (value & pte::kW) != 0;
    default: return (value & pte::kR) != 0 || ((status & mstatus::kMxr) != 0 && (value & pte::kX) != 0);
  }
}

Mmu::Walk Mmu::end_of_walk(std::uint64_t value, unsigned offset_bits, std::uint64_t gva, std::uint8_t privilege) const {
  const std::uint64_t page_bytes = std::uint64_t{1} << offset_bits;
  // Svnapot keeps its size in the low bits of the page number.
  const std::uint64_t frame = align_down(bits(value, 53, 10) << kPageShift, page_bytes);
  return {{frame | (gva & (page_bytes - 1))},
          page_bytes,
          permits(value, Access::kRead, privilege),
          (value & pte::kD) != 0 && permits(value, Access::kWrite, privilege),
          (value & pte::kU) != 0,
          (value & pte::kG) != 0};
}

std::expected<Mmu::Walk, Trap> Mmu::walk(std::uint64_t gva, Access access, std::uint8_t privilege, bool may_update) {
  HartState& state = hart_.state();
  const unsigned mode = static_cast<unsigned>(bits(state.satp, 63, 60));
  if (privilege == kMachine || mode == kBare) {
    // Physical addresses have 56 bits; beyond them nothing answers.
    return Walk{{gva}, kPageSize, true, true, false, false};
  }
  ++statistics_.walks;
  const Trap fault{page_fault(access), gva};
  const unsigned levels = 3 + (mode - kSv39);
  static_assert(kSv57 - kSv39 + 3 == 5);
  if (sign_extend(gva, 12 + 9 * levels) != gva) return std::unexpected(fault);

  const std::uint64_t wanted = pte::kA | (access == Access::kWrite ? pte::kD : 0);
  GuestPhysical table{bits(state.satp, 43, 0) << kPageShift};
  unsigned level = levels - 1;
  // A fence forgets the path, as hardware would forget what it keeps of upper levels.
  // Machine mode's context is of no address space, but the window is compared with one there, too.
  TlbContext::Path none;
  TlbContext::Path& path = current_slot_->key.satp == state.satp ? current_->path(gva) : none;
  if (path.region == TlbContext::region(gva)) {
    if (path.level == 0) {
      level = 0;
      table = {path.value};
    } else if ((path.value & wanted) == wanted && permits(path.value, access, privilege)) {
      return end_of_walk(path.value, 12 + 9 * path.level, gva, privilege);
    }
  }
  for (;;) {
    const GuestPhysical slot = table + bits(gva, 20 + 9 * level, 12 + 9 * level) * 8;
    bool whole = true;
    std::byte* host = pmp_allows(slot, 8, Access::kRead, kSupervisor, &whole) ? ram(slot, 8) : nullptr;
    if (host == nullptr) return std::unexpected(Trap{access_fault(access), gva});
    // An aligned entry inside guest RAM, checked by ram().
    std::atomic_ref<std::uint64_t> entry(*reinterpret_cast<std::uint64_t*>(host));
    std::uint64_t value = entry.load(std::memory_order_acquire);

    if ((value & pte::kV) == 0 || (value & (pte::kR | pte::kW)) == pte::kW || (value & pte::kReserved) != 0) {
      return std::unexpected(fault);
    }
    const std::uint64_t memory_type = value & pte::kPbmt;
    if (memory_type == pte::kPbmt || (memory_type != 0 && (state.menvcfg & envcfg::kPbmte) == 0)) {
      return std::unexpected(fault);
    }
    const std::uint64_t ppn = bits(value, 53, 10);
    if ((value & (pte::kR | pte::kX)) == 0) {
      // A pointer to the next level: D, A, U, N and PBMT are reserved there.
      if (level == 0 || (value & (pte::kD | pte::kA | pte::kU | pte::kN | pte::kPbmt)) != 0) {
        return std::unexpected(fault);
      }
      table = {ppn << kPageShift};
      // Where PMP has a say it is asked at each step.
      if (--level == 0 && pmp_open_) path = {TlbContext::region(gva), 0, table.value};
      continue;
    }
    if (!permits(value, access, privilege)) return std::unexpected(fault);

    unsigned offset_bits = 12 + 9 * level;
    if ((value & pte::kN) != 0) {
      // Svnapot: 64 KiB, encoded as ppn[3:0] = 1000; nothing else is defined.
      if (level != 0 || bits(ppn, 3, 0) != 8) return std::unexpected(fault);
      offset_bits = 16;
    } else if (!is_aligned(ppn << kPageShift, std::uint64_t{1} << offset_bits)) {
      return std::unexpected(fault);
    }

    if ((value & wanted) != wanted) {
      if (!may_update || (state.menvcfg & envcfg::kAdue) == 0) return std::unexpected(fault);
      if (!pmp_allows(slot, 8, Access::kWrite, kSupervisor, &whole)) {
        return std::unexpected(Trap{access_fault(access), gva});
      }
      std::uint64_t expected = value;
      // Somebody may have changed the entry: then it is read again.
      if (!entry.compare_exchange_strong(expected, value | wanted)) continue;
      value |= wanted;
    }
    if (level > 0 && pmp_open_) {
      path = {TlbContext::region(gva), level, value};
      // Other regions' paths may end at the same page, even if nothing of it is ever entered.
      if (level > 1) current_->note_large_page(gva, std::uint64_t{1} << offset_bits);
    }
    return end_of_walk(value, offset_bits, gva, privilege);
  }
}

std::expected<Mmu::Location, Trap> Mmu::locate(std::uint64_t gva, Access access, unsigned bytes) {
  if (const UserSpace* user = hart_.env().user; user != nullptr) {
    if (!user->allows(gva, access)) return std::unexpected(Trap{page_fault(access), gva});
    std::byte* page = ram({align_down(gva, kPageSize)}, kPageSize);
    if (page == nullptr) return Location{{gva}, nullptr};
    // Data are accessed without asking: the host's own mappings decide.
    if (access == Access::kFetch) insert(gva, page, access, false, false);
    return Location{{gva}, page + (gva & (kPageSize - 1))};
  }
  const std::uint8_t privilege = access == Access::kFetch ? current_slot_->key.fetch_privilege
                                                          : current_slot_->key.data_privilege;
  const std::expected<Walk, Trap> found = walk(gva, access, privilege);
  if (!found) return std::unexpected(found.error());
  bool whole = true;
  if ((found->gpa.value >> IsaConfig::kPhysicalAddressBits) != 0 ||
      !pmp_allows(found->gpa, bytes, access, privilege, &whole)) {
    return std::unexpected(Trap{access_fault(access), gva});
  }
  std::byte* page = ram({align_down(found->gpa.value, kPageSize)}, kPageSize);
  if (page == nullptr) return Location{found->gpa, nullptr};
  if (whole) {
    if (found->page_bytes > kPageSize) current_->note_large_page(gva, found->page_bytes);
    if (found->user || !found->global) current_->note_local_page(gva);
    insert(gva, page, access, pmp_open_ && found->reads, pmp_open_ && found->writes);
    if (access != Access::kFetch && pmp_open_ && found->page_bytes >= TlbContext::kChunkBytes) {
      constexpr std::uint64_t kBytes = TlbContext::kChunkBytes;
      std::byte* chunk = ram({align_down(found->gpa.value, kBytes)}, kBytes);
      if (chunk != nullptr) insert_chunk(gva, chunk, found->reads, found->writes);
    }
  }
  return Location{found->gpa, page + (found->gpa.value & (kPageSize - 1)), found->page_bytes};
}

std::optional<GuestPhysical> Mmu::look_up(std::uint64_t gva) const {
  if (hart_.env().user != nullptr) return GuestPhysical{gva};
  const HartState& state = hart_.state();
  const unsigned mode = static_cast<unsigned>(bits(state.satp, 63, 60));
  if (state.privilege == Privilege::kMachine || mode == kBare) return GuestPhysical{gva};
  const unsigned levels = 3 + (mode - kSv39);
  if (sign_extend(gva, 12 + 9 * levels) != gva) return std::nullopt;
  GuestPhysical table{bits(state.satp, 43, 0) << kPageShift};
  for (unsigned level = levels; level-- > 0;) {
    const auto value = hart_.env().memory.load<std::uint64_t>(table + bits(gva, 20 + 9 * level, 12 + 9 * level) * 8);
    if (!value || (*value & pte::kV) == 0) return std::nullopt;
    table = {bits(*value, 53, 10) << kPageShift};
    if ((*value & (pte::kR | pte::kX)) == 0) continue;
    // Svnapot's 64 KiB keep their size in the low bits of the page number.
    const unsigned offset_bits = (*value & pte::kN) != 0 ? 16 : 12 + 9 * level;
    const std::uint64_t page_bytes = std::uint64_t{1} << offset_bits;
    return GuestPhysical{align_down(table.value, page_bytes) | (gva & (page_bytes - 1))};
  }
  return std::nullopt;
}

void Mmu::insert(std::uint64_t gva, std::byte* host, Access access, bool reads, bool writes) {
  assert(current_slot_->key == key_now());
  const std::uint64_t page = align_down(gva, kPageSize);
  const unsigned i = TlbContext::index(gva);
  if (access == Access::kFetch) {
    current_->mark_fetch(i);
    current_->fetch[i] = {page, nullptr};
    return;
  }
  current_->mark(i);
  // The difference of a host and a guest address, wrapping; adding the guest address gives the host's back.
  const TlbEntry entry{page, reinterpret_cast<std::uintptr_t>(host) - page};
  const bool write = access == Access::kWrite;
  TlbEntry& wanted = write ? current_->write[i] : current_->read[i];
  TlbEntry& other = write ? current_->read[i] : current_->write[i];
  const bool in_the_way = other.tag != TlbEntry::kEmpty && other.tag != wanted.tag;
  wanted = entry;
  if ((write ? reads : writes) && !in_the_way) other = entry;
}

void Mmu::insert_chunk(std::uint64_t gva, std::byte* host, bool reads, bool writes) {
  const std::uint64_t first = align_down(gva, TlbContext::kChunkBytes);
  const unsigned i = TlbContext::chunk_index(gva);
  const TlbEntry entry{first, reinterpret_cast<std::uintptr_t>(host) - first};
  current_->any_chunks = true;
  if (reads) current_->read_chunks[i] = entry;
  if (writes) current_->write_chunks[i] = entry;
}

}  // namespace doppel::riscv
