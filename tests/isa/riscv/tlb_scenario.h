// What a guest and its engines may do to a hart's MMU, at random; and whether all that its TLB then has agrees with the page
// tables.
//
// There are several address spaces, in all modes. The lower half of each is its own, and so is one GiB of its upper half;
// another is the same in all of a mode, and only there pages may be global. Few addresses are used, many of which are in each
// other's way in the TLB.
#pragma once

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "base/virtual_clock.h"
#include "isa/riscv/hart.h"
#include "page_table_history.h"

namespace doppel::riscv::test {

class TlbScenario {
 public:
  explicit TlbScenario(u64 seed) : random_(seed) {
    for (u64 page = kRam; page < kRam + kRamBytes; page += kPageSize) poke(page + kStampOffset, page);
    for (std::size_t i = 0; i < kLevels.size(); ++i) make_space(kLevels[i]);
    for (Tables& tables : tables_) {
      for (const u64 table : tables.large) fill(table, kLargeIndices, [&] { return large_entry(tables); });
      for (const u64 table : tables.small) fill(table, kSmallIndices, [&] { return small_entry(tables); });
      for (const u64 root : tables.slots) poke(root, pointer(tables.large[0]));
    }
    history_.observe();
    change_configuration();
  }

  // Does so much; gives the first thing that is wrong, or nothing.
  std::string run(unsigned actions) {
    for (unsigned i = 0; i < actions && wrong_.empty(); ++i) {
      act();
      if (i % kActionsACheck == 0 || i + 1 == actions) check();
      if (!wrong_.empty()) wrong_ = fmt::format("after {} actions: {}", i + 1, wrong_);
    }
    return wrong_;
  }

 private:
  static constexpr u64 kRam = 0x8000'0000, kRamBytes = 4 << 20;
  // Those above the entries for 1 GiB come first. PMP leaves them alone: what is global may be known from other ones.
  static constexpr u64 kTables = kRam, kTableBytes = 0x60000, kUpperTableBytes = 0x10000;
  static constexpr u64 kStampOffset = 8 * 255;  // in each page of RAM; no table's entry there is ever used
  static constexpr unsigned kActionsACheck = 16;

  // The address spaces' levels. Those of one mode share what is global.
  static constexpr std::array<unsigned, 6> kLevels{3, 3, 3, 4, 4, 5};
  static constexpr u64 kAsids = 5;
  // Of entries: for 1 GiB each; for 2 MiB, of which the last two have one place in the TLB; and for 4 KiB. Addresses in the
  // lower half are also ones of RAM.
  static constexpr u64 kOwnLow = 2, kOwnHigh = 0x1c0, kShared = 0x1c1;
  static constexpr std::array<u64, 3> kLargeIndices{0, 1, 65};
  static constexpr std::array<u64, 6> kSmallIndices{0, 1, 15, 16, 31, 500};

  static constexpr u64 kV = 1, kR = 2, kW = 4, kX = 8, kU = 16, kG = 32, kA = 64, kD = 128, kN = u64{1} << 63;

  class NoDevices final : public IoSpace {
   public:
    std::optional<u64> read(GuestPhysical, Width) const override { return std::nullopt; }
    bool write(GuestPhysical, Width, u64) const override { return false; }
  };

  // What lies behind 1 GiB of virtual addresses.
  struct Tables {
    bool shared;
    std::vector<u64> slots;      // the entries that lead there, of one value
    std::array<u64, 2> large;    // tables of entries for 2 MiB
    std::array<u64, 3> small;    // and for 4 KiB
  };

  // --- Chance.

  u64 below(u64 bound) { return random_() % bound; }
  bool chance(double probability) { return std::bernoulli_distribution(probability)(random_); }
  template <class Range>
  const auto& one_of(const Range& choices) { return choices[below(choices.size())]; }

  // --- Page tables.

  static GuestMemory make_ram() {
    GuestMemory memory;
    if (!memory.add_ram({{kRam}, kRamBytes})) std::abort();
    return memory;
  }
  void poke(u64 gpa, u64 value) {
    if (!memory_.store<u64>({gpa}, value)) std::abort();
  }
  u64 peek(u64 gpa) const { return memory_.load<u64>({gpa}).value(); }
  u64 new_upper_table() { return kTables + kPageSize * upper_tables_used_++; }
  u64 new_table() { return kTables + kUpperTableBytes + kPageSize * tables_used_++; }
  static u64 pointer(u64 table) { return table >> kPageShift << 10 | kV; }

  void make_space(unsigned levels) {
    u64 table = new_upper_table();
    roots_.push_back({levels, table});
    // The first and the last entry of levels beyond Sv39's.
    for (unsigned level = levels - 1; level > 2; --level) {
      const u64 next = new_upper_table();
      poke(table, pointer(next));
      poke(table + 8 * 511, pointer(next));
      table = next;
    }
    for (const u64 own : {kOwnLow, kOwnHigh}) add_tables(false, table + 8 * own);
    const bool first_of_mode = roots_.size() == 1 || (roots_.end() - 2)->levels != levels;
    if (first_of_mode) {
      add_tables(true, table + 8 * kShared);
      shared_ = tables_.size() - 1;
    } else {
      tables_[shared_].slots.push_back(table + 8 * kShared);
    }
  }
  void add_tables(bool shared, u64 slot) {
    tables_.push_back({shared, {slot}, {new_table(), new_table()}, {new_table(), new_table(), new_table()}});
  }
  template <class Indices, class Make>
  void fill(u64 table, const Indices& indices, Make make) {
    for (const u64 index : indices) poke(table + 8 * index, make());
  }

  // A leaf for a page of 2^shift bytes, most often a good one.
  u64 leaf(const Tables& tables, unsigned shift) {
    constexpr std::array kRights{kR | kW, kR | kW, kR | kW | kX, kR | kW | kX, kR, kR | kX, kX};
    u64 value = kV | one_of(kRights);
    if (chance(0.4)) value |= kU;
    if (tables.shared && !chance(local_share_)) value |= kG;
    if (chance(0.85)) value |= kA;
    if (chance(0.6)) value |= kD;
    if (chance(0.02)) value ^= u64{1} << one_of(std::array{0, 1, 55, 61, 62, shift == kPageShift ? 0 : 63});
    const u64 pages = u64{1} << (shift - kPageShift);
    u64 frame = (kRam >> kPageShift) + below(std::max<u64>(1, kRamBytes / kPageSize / pages)) * pages;
    if (chance(0.05)) frame += kRamBytes / kPageSize;
    return value | frame / pages * pages << 10;
  }
  u64 small_entry(const Tables& tables) { return chance(0.1) ? 0 : leaf(tables, kPageShift); }
  u64 large_entry(const Tables& tables) {
    if (chance(0.1)) return 0;
    return chance(0.3) ? leaf(tables, 21) : pointer(one_of(tables.small));
  }
  u64 slot_entry(const Tables& tables) {
    if (chance(0.1)) return 0;
    // What is global stays the same in all roots: no A or D bit is left to be set in one of them.
    return chance(0.2) ? leaf(tables, 30) | kA | kD : pointer(one_of(tables.large));
  }

  // --- Addresses.

  // In one of those 1 GiB: of an address space's three.
  u64 some_address() {
    const u64 slot = one_of(std::array{kOwnLow, kOwnHigh, kShared, kShared});
    return address(slot, one_of(kLargeIndices), one_of(kSmallIndices)) + 8 * below(kPageSize / 8);
  }
  static u64 address(u64 slot, u64 large, u64 small) {
    return sign_extend(slot << 30 | large << 21 | small << kPageShift, 39);
  }
  u64 some_satp() {
    if (chance(0.06)) return 0;
    const auto& [levels, root] = one_of(roots_);
    return u64{levels + 5} << 60 | below(kAsids) << 44 | root >> kPageShift;
  }

  // --- What is done.

  void act() {
    switch (below(16)) {
      case 0: case 1: case 2: return change_tables();
      case 3: case 4: return fence();
      case 5: if (chance(0.1)) change_configuration(); return;
      case 6: if (chance(0.2)) mmu_.flush_fetch(chance(0.5) ? &keeps : nullptr); return;
      case 7: case 8: return use_spaces();
      default:
        if (chance(0.6)) change_mode();
        for (u64 accesses = 1 + below(12); accesses > 0; --accesses) access();
    }
  }

  void change_tables() {
    const Tables& tables = one_of(tables_);
    const u64 slot = (tables.slots[0] - kTables) % kPageSize / 8;
    const u64 large = one_of(kLargeIndices), small = one_of(kSmallIndices);
    switch (below(12)) {
      case 0: {
        const u64 value = slot_entry(tables);
        for (const u64 root : tables.slots) poke(root, value);
        break;
      }
      case 1: case 2: case 3: poke(one_of(tables.large) + 8 * large, large_entry(tables)); break;
      case 4: case 5: case 6: {
        // Svnapot: 16 entries, of which each may be taken for all. So they stay the same, in A and D bits as well.
        const u64 table = one_of(tables.small);
        const u64 value = leaf(tables, 16) | kN | u64{8} << 10 | kA | kD;
        for (u64 i = 0; i < 16; ++i) poke(table + 8 * (small / 16 * 16 + i), value);
        break;
      }
      default: {
        const u64 table = one_of(tables.small);
        // They go together.
        if ((peek(table + 8 * small) & kN) != 0) {
          for (u64 i = 0; i < 16; ++i) poke(table + 8 * (small / 16 * 16 + i), 0);
        }
        poke(table + 8 * small, small_entry(tables));
      }
    }
    history_.observe();
    if (chance(0.4)) fence(address(slot, large, small));
  }

  void fence() { fence(some_address()); }
  void fence(u64 gva) {
    const u64 asid = chance(0.5) ? below(kAsids) : bits(hart_.state().satp, 59, 44);
    // A fence of all leaves nothing that could be wrong.
    const u64* address = chance(0.85) ? &gva : nullptr;
    const u64* space = chance(address != nullptr ? 0.3 : 0.8) ? &asid : nullptr;
    mmu_.fence(address, space);
    history_.fence(address, space);
  }

  void change_configuration() {
    HartState& state = hart_.state();
    state.menvcfg = 0;
    if (chance(0.5)) state.menvcfg |= envcfg::kAdue;
    if (chance(0.5)) state.menvcfg |= envcfg::kPbmte;
    state.pmpcfg = {};
    state.pmpaddr = {};
    if (chance(0.3)) {
      for (unsigned i = 0; i < 4; ++i) {
        constexpr u64 kFirst = kTables + kUpperTableBytes;
        const u64 page = kFirst + below((kRam + kRamBytes - kFirst) / kPageSize) * kPageSize;
        const u64 at = chance(0.5) ? page : page + 4 * below(kPageSize / 4);
        const u64 mode = i == 0 ? 2 + below(2) : below(4);
        // Of 64 KiB at most.
        state.pmpaddr[i] = at >> 2 | (chance(0.5) ? (u64{1} << below(14)) - 1 : 0);
        state.pmpcfg[i] = static_cast<std::uint8_t>(mode << 3 | below(8) | (chance(0.2) ? 0x80 : 0));
      }
    }
    state.pmpcfg[15] = 0x1f;
    state.pmpaddr[15] = ~u64{0} >> 10;
    mmu_.flush();
    history_.forget();
  }

  void change_mode() {
    HartState& state = hart_.state();
    if (chance(0.6)) {
      // Some are used more than others.
      u64& kept = kept_satps_[below(kept_satps_.size())];
      if (chance(0.3)) kept = some_satp();
      state.satp = kept;
    }
    constexpr std::array kPrivileges{Privilege::kUser, Privilege::kUser, Privilege::kSupervisor, Privilege::kSupervisor,
                                     Privilege::kSupervisor, Privilege::kMachine};
    if (chance(0.6)) state.privilege = one_of(kPrivileges);
    if (chance(0.3)) state.mstatus ^= mstatus::kSum;
    if (chance((state.mstatus & mstatus::kMxr) != 0 ? 0.5 : 0.1)) state.mstatus ^= mstatus::kMxr;
    if (chance(0.3)) state.mstatus ^= mstatus::kMprv;
    state.mstatus &= ~mstatus::kMpp;
    state.mstatus |= u64{one_of(std::array{0u, 1u, 1u, 3u})} << mstatus::kMppShift;
    mmu_.update();
  }

  // Like an engine: what the TLB has is not asked for again.
  void access() {
    const u64 gva = some_address();
    if (chance(0.4)) return fetch(gva);
    const Access access = chance(0.6) ? Access::kRead : Access::kWrite;
    TlbContext& tlb = mmu_.tlb();
    const TlbEntry& entry = (access == Access::kRead ? tlb.read : tlb.write)[TlbContext::index(gva)];
    if (entry.tag != align_down(gva, kPageSize)) locate(gva, access, 8);
    if (entry.tag != align_down(gva, kPageSize) || chance(0.5)) return;
    // Of some base register, as translated code numbers them.
    tlb.slots[2 * below(32) + (access == Access::kWrite ? 1 : 0)] = entry;
  }
  void fetch(u64 gva) {
    TlbContext& tlb = mmu_.tlb();
    const unsigned index = TlbContext::index(gva);
    FetchEntry& entry = chance(0.5) ? tlb.fetch[index] : tlb.translated[index];
    if (entry.tag == align_down(gva, kPageSize)) return;
    std::byte* host = locate(gva, Access::kFetch, 2);
    const u64 page = align_down(gva, kPageSize);
    if (host == nullptr || tlb.fetch[index].tag != page) return;
    // In place of what an engine would have made of the code.
    void* code = host - gva % kPageSize;
    tlb.fetch[index].code = code;
    entry = {page, code};
  }
  std::byte* locate(u64 gva, Access access, unsigned bytes) {
    const auto at = mmu_.locate(gva, access, bytes);
    history_.observe();  // of A and D bits
    if (!at) return nullptr;
    if (!history_.may_find(key_now(), access, gva, at->gpa.value, bytes)) {
      complain(key_now(), "locate", gva, fmt::format("gpa {:#x}", at->gpa.value));
    }
    return at->host;
  }
  static bool keeps(const void* code) { return (reinterpret_cast<std::uintptr_t>(code) >> kPageShift & 1) != 0; }

  // Shadows and the supervisor's window.
  void use_spaces() {
    if (chance(0.1)) mmu_.open_window();
    if (mmu_.shadow() != nullptr ? chance(0.1) : chance(0.3)) {
      mmu_.shadow() != nullptr ? void(mmu_.end_shadow()) : void(mmu_.make_shadow());
    }
    for (unsigned i = 0; i < 4; ++i) {
      if (mmu_.window() != nullptr) (void)mmu_.enter_in_window(some_address());
      if (mmu_.shadow() == nullptr) continue;
      mmu_.verify_shadow();
      if (const u64 gva = some_address(); mmu_.shadow()->space->contains(gva)) (void)mmu_.enter_in_shadow(gva);
    }
  }

  // --- What is checked.

  Mmu::Key key_now() const {
    Mmu::Key found;
    mmu_.for_each_context([&](const Mmu::Key& key, const TlbContext& tlb) {
      if (&tlb == &mmu_.tlb()) found = key;
    });
    return found;
  }

  void check() {
    mmu_.for_each_context([this](const Mmu::Key& key, const TlbContext& tlb) {
      for (const TlbEntry& entry : tlb.read) check(key, "read", Access::kRead, entry);
      for (const TlbEntry& entry : tlb.write) check(key, "write", Access::kWrite, entry);
      for (unsigned i = 0; i < TlbContext::kSlots; ++i) {
        check(key, "slot", i % 2 == 0 ? Access::kRead : Access::kWrite, tlb.slots[i]);
      }
      for (const TlbEntry& chunk : tlb.read_chunks) check_chunk(key, "read chunk", Access::kRead, chunk);
      for (const TlbEntry& chunk : tlb.write_chunks) check_chunk(key, "write chunk", Access::kWrite, chunk);
      for (const FetchEntry& entry : tlb.fetch) check(key, "fetch", entry);
      for (const FetchEntry& entry : tlb.translated) check(key, "translated", entry);
      for (const TlbContext::Path& path : tlb.paths) check(key, path);
    });
    if (const ShadowSpace* window = mmu_.window(); window != nullptr) check("window", *window);
    if (mmu_.shadow() == nullptr) return;
    mmu_.verify_shadow();
    check("shadow", *mmu_.shadow()->space);
  }
  void check(const Mmu::Key& key, const char* kind, Access access, const TlbEntry& entry) {
    if (entry.tag != TlbEntry::kEmpty) check(key, kind, access, entry.tag, entry.tag + entry.addend);
  }
  void check_chunk(const Mmu::Key& key, const char* kind, Access access, const TlbEntry& chunk) {
    if (chunk.tag == TlbEntry::kEmpty) return;
    for (u64 page = chunk.tag; page < chunk.tag + TlbContext::kChunkBytes; page += kPageSize) {
      check(key, kind, access, page, page + chunk.addend);
    }
  }
  void check(const Mmu::Key& key, const char* kind, const FetchEntry& entry) {
    if (entry.tag == TlbEntry::kEmpty) return;
    check(key, kind, Access::kFetch, entry.tag, reinterpret_cast<std::uintptr_t>(entry.code));
  }
  void check(const Mmu::Key& key, const char* kind, Access access, u64 tag, std::uintptr_t host) {
    const u64 gpa = kRam + host - reinterpret_cast<std::uintptr_t>(memory_.host({kRam}, kRamBytes));
    const bool possible = gpa - kRam < kRamBytes && history_.may_find(key, access, tag, gpa, kPageSize);
    if (!possible) complain(key, kind, tag, fmt::format("gpa {:#x}", gpa));
  }
  void check(const Mmu::Key& key, const TlbContext::Path& path) {
    if (path.region == TlbEntry::kEmpty) return;
    const u64 gva = path.region << TlbContext::kRegionShift;
    if (history_.may_end(key, gva, path.level, path.value)) return;
    complain(key, "path", gva, fmt::format("level {}, value {:#x}", path.level, path.value));
  }
  // Of the context in force.
  void check(const char* kind, const ShadowSpace& space) {
    for (const u64 slot : {kOwnLow, kOwnHigh, kShared}) {
      for (const u64 large : kLargeIndices) {
        for (const u64 small : kSmallIndices) {
          const u64 gva = address(slot, large, small);
          if (!space.contains(gva)) continue;
          u64 stamp = 0;
          const iovec into{&stamp, sizeof stamp}, from{space.host(gva) + kStampOffset, sizeof stamp};
          if (::process_vm_readv(::getpid(), &into, 1, &from, 1, 0) != sizeof stamp) continue;
          if (history_.may_find(key_now(), Access::kRead, gva, stamp, kPageSize)) continue;
          complain(key_now(), kind, gva, fmt::format("gpa {:#x}", stamp));
        }
      }
    }
  }
  void complain(const Mmu::Key& key, const char* kind, u64 gva, const std::string& what) {
    if (!wrong_.empty()) return;
    wrong_ = fmt::format("{} of {:#x} has {}; satp {:#x}, privilege {} and {} for data{}{}\n", kind, gva, what, key.satp,
                         key.fetch_privilege, key.data_privilege, key.mxr ? ", MXR" : "", key.sum ? ", SUM" : "");
  }

  struct Root {
    unsigned levels;
    u64 table;
  };

  std::mt19937_64 random_;
  const double local_share_ = std::array{0.0, 0.0, 0.1, 0.4}[below(4)];  // of pages that could be global
  GuestMemory memory_ = make_ram();
  u64 upper_tables_used_ = 0, tables_used_ = 0;
  std::vector<Root> roots_;
  std::vector<Tables> tables_;
  std::size_t shared_ = 0;  // index of the last mode's shared ones
  std::array<u64, 4> kept_satps_{};
  NoDevices io_;
  VirtualClock clock_{0};
  Hart hart_{0, IsaConfig::rva22(), {memory_, io_, clock_, [](u64) {}}};
  Mmu& mmu_ = hart_.mmu();
  PageTableHistory history_{memory_, hart_.state(), kTables, kTableBytes};
  std::string wrong_;
};

}  // namespace doppel::riscv::test
