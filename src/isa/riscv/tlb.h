// The software TLB of one hart for one combination of address space, privilege and mstatus bits.
//
// Arrays, direct-mapped by virtual page number, that the engines look into by themselves; and what makes misses
// cheap: where page walks ended of late. Entries exist only for RAM pages whose permissions hold for the whole
// page; all else takes the slow path each time.
// Belongs to the hart's thread.
#pragma once

#include <array>
#include <bit>
#include <bitset>
#include <cstdint>

#include "memory/address.h"

namespace doppel::riscv {

struct TlbEntry {
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // no page-aligned address

  std::uint64_t tag = kEmpty;  // the virtual address of the page
  std::uint64_t addend = 1;    // host address minus virtual address; odd in an empty entry
};

// Where instructions of a page come from, and what the engine made of them.
struct FetchEntry {
  std::uint64_t tag = TlbEntry::kEmpty;
  void* code = nullptr;  // the engine's object for the physical page
};

struct TlbContext {
  static constexpr unsigned kEntries = 4096;  // of each kind
  static unsigned index(std::uint64_t gva) { return (gva >> kPageShift) & (kEntries - 1); }

  std::array<TlbEntry, kEntries> read;
  std::array<TlbEntry, kEntries> write;
  std::array<FetchEntry, kEntries> fetch;       // the interpreter's
  std::array<FetchEntry, kEntries> translated;  // the translator's; a tag stands here only with its page

  // What is true of all of a chunk of addresses, since it is part of a large page: translated code that misses an entry
  // fills it from here by itself.
  static constexpr unsigned kChunkShift = 16, kChunks = 512;
  static constexpr std::uint64_t kChunkBytes = std::uint64_t{1} << kChunkShift;
  static unsigned chunk_index(std::uint64_t gva) { return (gva >> kChunkShift) & (kChunks - 1); }
  std::array<TlbEntry, kChunks> read_chunks, write_chunks;  // tags are chunks' addresses

  // Copies of entries that translated code keeps for its base registers: the page that accesses were in last. One that
  // leaves its page too often has no more refills left, and then none for some rounds.
  static constexpr unsigned kSlots = 64;
  static constexpr std::uint8_t kRefills = 128, kLongestPause = 63;
  std::array<TlbEntry, kSlots> slots;
  std::array<std::uint8_t, kSlots> slot_refills = [] {
    std::array<std::uint8_t, kSlots> all;
    all.fill(kRefills);
    return all;
  }();
  std::array<std::uint8_t, kSlots> slot_pauses{}, next_pauses{};  // in rounds: what is left of one, and the next one's length
  std::uint64_t unfit_slots = 0;  // bits: which had none left at the end of the last round
  void begin_round();             // to be called now and then

  // To be called before entries at `index` are filled.
  void mark(unsigned index) { filled.set(index / kGroup); }
  void mark_fetch(unsigned index) { filled_fetch.set(index / kGroup); }

  // Where the walk for 2 MiB of addresses ends: in a table of 4 KiB pages, or at a large page.
  struct Path {
    std::uint64_t region = TlbEntry::kEmpty;  // address / 2 MiB
    unsigned level = 0;                       // of the large page; 0: there is a table
    std::uint64_t value = 0;                  // the large page's entry, or the table's guest-physical address
  };
  Path& path(std::uint64_t gva) { return paths[gva >> kRegionShift & (kPaths - 1)]; }
  static std::uint64_t region(std::uint64_t gva) { return gva >> kRegionShift; }

  // An entry for gva is about to be filled of a page that is not the same in all address spaces.
  void note_local_page(std::uint64_t gva) { upper_half_is_global = upper_half_is_global && !in_upper_half(gva); }
  // Takes over what another context, of another address space and the same mode, has of the upper half, where that is
  // all global: an operating system lies there. For one that was just cleared.
  void copy_global(const TlbContext& other);
  // Forgets all but that; false if there is nothing to be kept.
  bool clear_local();

  // Some entries are about to be pieces of the page of `size_bytes` around gva. A fence of one address must
  // forget all pieces of a page.
  void note_large_page(std::uint64_t gva, std::uint64_t size_bytes);

  void clear();
  // But for those of the translator's entries whose objects are to be kept.
  using KeepsCode = bool (*)(const void* code);
  void clear_fetch(KeepsCode keeps = nullptr);
  // Forgets the translation of gva, and with it that of all of its page, whatever its size.
  void clear_page(std::uint64_t gva);

  // --- What these functions keep. Public, since offsets of the arrays are needed.

  // Entries are cleared in groups, those only that may be filled.
  static constexpr unsigned kGroup = 16;
  class Groups {
   public:
    void set(unsigned group) { words_[group / 64] |= std::uint64_t{1} << group % 64; }
    void clear() { words_ = {}; }
    bool any() const { return *this != Groups{}; }
    friend bool operator==(const Groups&, const Groups&) = default;
    static constexpr unsigned kBits = kEntries / kGroup;  // where the object begins, lowest first
    // With the index of the first entry of each.
    template <class Function>
    void for_each(Function function) const {
      for (unsigned word = 0; word < words_.size(); ++word) {
        for (std::uint64_t rest = words_[word]; rest != 0; rest &= rest - 1) {
          function((64 * word + static_cast<unsigned>(std::countr_zero(rest))) * kGroup);
        }
      }
    }

   private:
    std::array<std::uint64_t, kEntries / kGroup / 64> words_{};
  };
  static constexpr unsigned kRegionShift = 21;
  static constexpr std::size_t kPaths = 64;
  // Sizes of large pages: 64 KiB (Svnapot), then each level's. Of each a set of hashes: a page may be taken for
  // large that is not, never the other way round.
  static constexpr std::array<unsigned, 5> kLargeShifts{16, 21, 30, 39, 48};
  static constexpr std::size_t kHashes = 1024;
  static std::size_t hash(std::uint64_t number) { return number * 0x9e37'79b9'7f4a'7c15 >> 54; }

  static bool in_upper_half(std::uint64_t gva) { return gva >> 63 != 0; }
  void clear_entry(unsigned index);
  void clear_data();
  void clear_slots() { slots.fill({}); }
  void clear_chunks();
  void clear_paths() { paths.fill({}); }
  void clear_range(std::uint64_t start, std::uint64_t size_bytes);

  bool upper_half_is_global = true;
  Groups filled, filled_fetch;  // with entries for data, and for fetches
  std::array<Path, kPaths> paths;
  std::array<std::bitset<kHashes>, kLargeShifts.size()> large;
  std::array<bool, kLargeShifts.size()> any_large{};
  bool any_chunks = false;
};

}  // namespace doppel::riscv
