#include "isa/riscv/mmu.h"

#include <algorithm>
#include <atomic>

#include "base/bits.h"
#include "isa/riscv/csr.h"
#include "isa/riscv/hart.h"

namespace doppel::riscv {
namespace {

constexpr std::uint8_t kUser = 0, kSupervisor = 1, kMachine = 3;

// Page table entries (privileged manual, "Sv39" and the chapters on Svnapot and Svpbmt).
namespace pte {
constexpr std::uint64_t kV = 1, kR = 2, kW = 4, kX = 8, kU = 16, kA = 64, kD = 128;
constexpr std::uint64_t kPbmt = std::uint64_t{3} << 61, kN = std::uint64_t{1} << 63;
constexpr std::uint64_t kReserved = std::uint64_t{0x7f} << 54;
}  // namespace pte

// satp.MODE values.
constexpr unsigned kBare = 0, kSv39 = 8, kSv57 = 10;

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

void TlbContext::clear() {
  read.fill({});
  write.fill({});
  fetch.fill({});
  translated.fill({});
  large_page_count = 0;
}

void TlbContext::note_large_page(std::uint64_t gva, std::uint64_t size_bytes) {
  if (large_page_count > kMostLargePages || !only_small(gva)) return;
  if (large_page_count < kMostLargePages) large_pages[large_page_count] = {align_down(gva, size_bytes), size_bytes};
  ++large_page_count;
}

bool TlbContext::only_small(std::uint64_t gva) const {
  if (large_page_count > kMostLargePages) return false;
  for (unsigned i = 0; i < large_page_count; ++i) {
    if (gva - large_pages[i].gva < large_pages[i].size_bytes) return false;
  }
  return true;
}

void TlbContext::clear_page(std::uint64_t gva) {
  const unsigned i = index(gva);
  read[i] = {};
  write[i] = {};
  fetch[i] = {};
  translated[i] = {};
}

Mmu::Mmu(Hart& hart) : hart_(hart) { update(); }

Mmu::Key Mmu::key_now() const {
  const HartState& state = hart_.state();
  const std::uint8_t fetch = static_cast<std::uint8_t>(state.privilege);
  std::uint8_t data = fetch;
  if (fetch == kMachine && (state.mstatus & mstatus::kMprv) != 0) {
    data = static_cast<std::uint8_t>(bits(state.mstatus, 12, 11));
  }
  if (data == kMachine) return {0, fetch, data, false, false};
  return {state.satp, fetch, data, (state.mstatus & mstatus::kSum) != 0, (state.mstatus & mstatus::kMxr) != 0};
}

void Mmu::update() {
  const Key key = key_now();
  if (current_slot_ != nullptr && current_slot_->valid && current_slot_->key == key) return;
  ++changes_;
  Slot* oldest = nullptr;
  for (const auto& slot : slots_) {
    if (slot->valid && slot->key == key) return use(*slot);
    if (oldest == nullptr || !slot->valid || (oldest->valid && slot->last_used < oldest->last_used)) {
      if (oldest == nullptr || oldest->valid) oldest = slot.get();
    }
  }
  if ((oldest == nullptr || oldest->valid) && slots_.size() < kSlots) {
    oldest = slots_.emplace_back(std::make_unique<Slot>()).get();
  } else {
    oldest->tlb.clear();
  }
  oldest->key = key;
  oldest->valid = true;
  use(*oldest);
}

void Mmu::use(Slot& slot) {
  slot.last_used = ++tick_;
  current_slot_ = &slot;
  current_ = &slot.tlb;
}

void Mmu::flush() {
  ++changes_;
  ++statistics_.flushes;
  for (const auto& slot : slots_) slot->valid = false;
  // NAPOT with all address bits set, not locked, read, write, execute.
  const HartState& state = hart_.state();
  pmp_open_ = (state.pmpcfg[0] & 0x9f) == 0x1f && (state.pmpaddr[0] | std::uint64_t{1} << 53) == ~std::uint64_t{0} >> 10;
  update();
}

void Mmu::flush_fetch() {
  ++changes_;
  for (const auto& slot : slots_) {
    if (!slot->valid) continue;
    slot->tlb.fetch.fill({});
    slot->tlb.translated.fill({});
  }
}

void Mmu::fence(const std::uint64_t* gva, const std::uint64_t* asid) {
  ++statistics_.flushes;
  ++changes_;
  for (const auto& slot : slots_) {
    if (!slot->valid) continue;
    if (asid != nullptr && bits(slot->key.satp, 59, 44) != (*asid & 0xffff)) continue;
    // An address in a large page stands for all of its 4 KiB pieces, which share no mark.
    if (gva != nullptr && slot->tlb.only_small(*gva)) {
      slot->tlb.clear_page(*gva);
    } else {
      slot->valid = false;
    }
  }
  update();
}

std::byte* Mmu::ram(GuestPhysical gpa, unsigned bytes) const {
  if (const UserSpace* user = hart_.env().user; user != nullptr) {
    return user->flat().contains(gpa.value, bytes) ? user->flat().host(gpa.value) : nullptr;
  }
  return hart_.env().memory.host(gpa, bytes);
}

bool Mmu::pmp_allows(GuestPhysical gpa, std::uint64_t bytes, Access access, std::uint8_t privilege,
                     bool* whole) const {
  if (pmp_open_) return true;
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

std::expected<Mmu::Walk, Trap> Mmu::walk(std::uint64_t gva, Access access, std::uint8_t privilege) {
  HartState& state = hart_.state();
  const unsigned mode = static_cast<unsigned>(bits(state.satp, 63, 60));
  if (privilege == kMachine || mode == kBare) {
    // Physical addresses have 56 bits; beyond them nothing answers.
    return Walk{{gva}, kPageSize};
  }
  ++statistics_.walks;
  const Trap fault{page_fault(access), gva};
  const unsigned levels = 3 + (mode - kSv39);
  static_assert(kSv57 - kSv39 + 3 == 5);
  if (sign_extend(gva, 12 + 9 * levels) != gva) return std::unexpected(fault);

  GuestPhysical table{bits(state.satp, 43, 0) << kPageShift};
  for (unsigned level = levels; level-- > 0;) {
    const GuestPhysical slot = table + bits(gva, 20 + 9 * level, 12 + 9 * level) * 8;
    bool whole = true;
    std::byte* host = pmp_allows(slot, 8, Access::kRead, kSupervisor, &whole) ? ram(slot, 8) : nullptr;
    if (host == nullptr) return std::unexpected(Trap{access_fault(access), gva});
    // An aligned entry inside guest RAM, checked by ram().
    std::atomic_ref<std::uint64_t> entry(*reinterpret_cast<std::uint64_t*>(host));
    const std::uint64_t value = entry.load(std::memory_order_acquire);

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
      if ((value & (pte::kD | pte::kA | pte::kU | pte::kN | pte::kPbmt)) != 0) return std::unexpected(fault);
      table = {ppn << kPageShift};
      continue;
    }

    const bool user_page = (value & pte::kU) != 0;
    if (privilege == kUser && !user_page) return std::unexpected(fault);
    if (privilege == kSupervisor && user_page &&
        (access == Access::kFetch || (state.mstatus & mstatus::kSum) == 0)) {
      return std::unexpected(fault);
    }
    const bool allowed = access == Access::kFetch   ? (value & pte::kX) != 0
                         : access == Access::kWrite ? (value & pte::kW) != 0
                                                    : (value & pte::kR) != 0 ||
                                                          ((state.mstatus & mstatus::kMxr) != 0 &&
                                                           (value & pte::kX) != 0);
    if (!allowed) return std::unexpected(fault);

    std::uint64_t offset_bits = 12 + 9 * level;
    std::uint64_t frame = ppn << kPageShift;
    if ((value & pte::kN) != 0) {
      // Svnapot: 64 KiB, encoded as ppn[3:0] = 1000; nothing else is defined.
      if (level != 0 || bits(ppn, 3, 0) != 8) return std::unexpected(fault);
      offset_bits = 16;
      frame = align_down(frame, std::uint64_t{1} << 16);
    } else if (!is_aligned(frame, std::uint64_t{1} << offset_bits)) {
      return std::unexpected(fault);
    }

    const std::uint64_t wanted = pte::kA | (access == Access::kWrite ? pte::kD : 0);
    if ((value & wanted) != wanted) {
      if ((state.menvcfg & envcfg::kAdue) == 0) return std::unexpected(fault);
      if (!pmp_allows(slot, 8, Access::kWrite, kSupervisor, &whole)) {
        return std::unexpected(Trap{access_fault(access), gva});
      }
      std::uint64_t expected = value;
      if (!entry.compare_exchange_strong(expected, value | wanted)) {
        ++level;  // somebody changed the entry: read it again
        continue;
      }
    }
    const std::uint64_t page_bytes = std::uint64_t{1} << offset_bits;
    return Walk{{frame | (gva & (page_bytes - 1))}, page_bytes};
  }
  return std::unexpected(fault);
}

std::expected<GuestPhysical, Trap> Mmu::translate(std::uint64_t gva, Access access, unsigned bytes) {
  if (const UserSpace* user = hart_.env().user; user != nullptr) {
    if (!user->allows(gva, access)) return std::unexpected(Trap{page_fault(access), gva});
    // Data are accessed without asking: the host's own mappings decide.
    if (access == Access::kFetch) insert(gva, {gva}, access);
    return GuestPhysical{gva};
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
  if (whole) {
    if (found->page_bytes > kPageSize) current_->note_large_page(gva, found->page_bytes);
    insert(gva, found->gpa, access);
  }
  return found->gpa;
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

void Mmu::insert(std::uint64_t gva, GuestPhysical gpa, Access access) {
  const std::uint64_t page = align_down(gva, kPageSize);
  std::byte* host = ram({align_down(gpa.value, kPageSize)}, kPageSize);
  if (host == nullptr) return;
  const unsigned i = TlbContext::index(gva);
  // The difference of a host and a guest address, wrapping; adding the guest address gives the host's back.
  const std::uint64_t addend = reinterpret_cast<std::uintptr_t>(host) - page;
  switch (access) {
    case Access::kFetch: current_->fetch[i] = {page, nullptr}; break;
    case Access::kRead: current_->read[i] = {page, addend}; break;
    case Access::kWrite: current_->write[i] = {page, addend}; break;
  }
}

}  // namespace doppel::riscv
