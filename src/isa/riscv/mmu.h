// Address translation of one hart: page-table walks (Sv39, Sv48, Sv57), PMP, and the software TLB.
//
// The TLB is a small pool of contexts, one for each combination of address space, privilege and mstatus bits
// that the hart used lately. Switching between them is a pointer change, so neither a system call nor a
// change of process flushes anything, and a hit is one comparison. Entries exist only for RAM pages whose
// permissions hold for the whole page; all else takes the slow path each time.
// Belongs to the hart's thread.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <memory>
#include <vector>
#include <optional>

#include "isa/riscv/trap.h"
#include "memory/address.h"

namespace doppel::riscv {

class Hart;

enum class Access : std::uint8_t { kFetch, kRead, kWrite };

struct TlbEntry {
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // no page-aligned address

  std::uint64_t tag = kEmpty;  // the virtual address of the page
  std::uint64_t addend = 0;    // host address minus virtual address
};

// Where instructions of a page come from, and what the engine made of them.
struct FetchEntry {
  std::uint64_t tag = TlbEntry::kEmpty;
  void* code = nullptr;  // the engine's object for the physical page
};

struct TlbContext {
  static constexpr unsigned kEntries = 1024;  // of each kind, direct-mapped by virtual page number
  static unsigned index(std::uint64_t gva) { return (gva >> kPageShift) & (kEntries - 1); }

  std::array<TlbEntry, kEntries> read;
  std::array<TlbEntry, kEntries> write;
  std::array<FetchEntry, kEntries> fetch;       // the interpreter's
  std::array<FetchEntry, kEntries> translated;  // the translator's; a tag stands here only with its page
  // The large pages that some entries are pieces of. When they are too many, a fence of one address clears
  // the whole context.
  struct LargePage {
    std::uint64_t gva;
    std::uint64_t size_bytes;
  };
  static constexpr unsigned kMostLargePages = 32;
  std::array<LargePage, kMostLargePages> large_pages;
  unsigned large_page_count = 0;

  void note_large_page(std::uint64_t gva, std::uint64_t size_bytes);
  // True when clear_page() alone forgets the translation of gva.
  bool only_small(std::uint64_t gva) const;

  void clear();
  void clear_page(std::uint64_t gva);
};

class Mmu {
 public:
  explicit Mmu(Hart& hart);

  // The context in force. Valid until update() or a flush.
  TlbContext& tlb() { return *current_; }

  // To be called when satp, the privilege, or MPRV, MPP, SUM or MXR of mstatus changed.
  void update();

  // Translates `gva` for an access of the current mode, walking the tables; sets A and D bits where the hart
  // updates them itself (Svadu). `bytes` stay within the page. On success the page is entered in the TLB
  // where that is possible.
  std::expected<GuestPhysical, Trap> translate(std::uint64_t gva, Access access, unsigned bytes);

  // Where `gva` lies for a debugger: in the current mode, whatever the permissions, and without a trace.
  std::optional<GuestPhysical> look_up(std::uint64_t gva) const;

  // The host bytes of RAM at gpa, or nullptr.
  std::byte* ram(GuestPhysical gpa, unsigned bytes) const;

  // SFENCE.VMA; nullptr stands for "all" (rs1 or rs2 = x0).
  void fence(const std::uint64_t* gva, const std::uint64_t* asid);
  void flush();        // everything: PMP or environment configuration changed
  void flush_fetch();  // every FetchEntry: the engine dropped code

  struct Statistics {
    std::uint64_t walks = 0;
    std::uint64_t flushes = 0;
  };
  const Statistics& statistics() const { return statistics_; }

  // Counts whatever may make translations found earlier wrong for what runs next.
  std::uint64_t changes() const { return changes_; }

 private:
  // What a context's translations depend on. Fetches and data accesses may differ in privilege (MPRV).
  struct Key {
    std::uint64_t satp = 0;
    std::uint8_t fetch_privilege = 0;
    std::uint8_t data_privilege = 0;
    bool sum = false;
    bool mxr = false;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Slot {
    Key key;
    bool valid = false;
    std::uint64_t last_used = 0;
    TlbContext tlb;
  };
  struct Walk {
    GuestPhysical gpa;
    std::uint64_t page_bytes;
  };
  static constexpr unsigned kSlots = 16;

  Key key_now() const;
  void use(Slot& slot);
  std::expected<Walk, Trap> walk(std::uint64_t gva, Access access, std::uint8_t privilege);
  // True when PMP lets all of [gpa, gpa + bytes) be accessed so. `whole` is cleared when a region's edge
  // cuts the page around gpa.
  bool pmp_allows(GuestPhysical gpa, std::uint64_t bytes, Access access, std::uint8_t privilege, bool* whole) const;
  void insert(std::uint64_t gva, GuestPhysical gpa, Access access);

  Hart& hart_;
  std::vector<std::unique_ptr<Slot>> slots_;  // at most kSlots, made when first needed
  Slot* current_slot_ = nullptr;
  TlbContext* current_ = nullptr;
  bool pmp_open_ = false;  // entry 0 lets everyone do everything, as most firmware sets it up
  std::uint64_t tick_ = 0;
  std::uint64_t changes_ = 0;
  Statistics statistics_;
};

}  // namespace doppel::riscv
