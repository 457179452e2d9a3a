// Address translation of one hart: page-table walks (Sv39, Sv48, Sv57), PMP, and the pool of TLB contexts.
//
// There is a context for each combination of address space, privilege and mstatus bits that the hart used
// lately. Switching between them is a pointer change, so neither a system call nor a change of process flushes
// anything, and a hit is one comparison.
//
// A program that runs for long can have its address space shadowed: its context keeps a ShadowSpace, in which an engine may
// access what it has asked the Mmu to enter there. Of the supervisor's half, which is the same in all address spaces, the
// hart has one ShadowSpace, the *window*.
// Belongs to the hart's thread.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "isa/riscv/tlb.h"
#include "isa/riscv/trap.h"
#include "memory/address.h"
#include "memory/shadow_space.h"

namespace doppel::riscv {

class Hart;

enum class Access : std::uint8_t { kFetch, kRead, kWrite };

class Mmu {
 public:
  explicit Mmu(Hart& hart);

  // What a context's translations depend on. Fetches and data accesses may differ in privilege (MPRV).
  struct Key {
    std::uint64_t satp = 0;
    std::uint8_t fetch_privilege = 0;
    std::uint8_t data_privilege = 0;
    bool mxr = false;
    bool sum = false;  // of supervisors' data accesses
    friend bool operator==(const Key&, const Key&) = default;
    // All but satp, as a small number.
    unsigned mode() const { return fetch_privilege | data_privilege << 2 | unsigned{mxr} << 4 | unsigned{sum} << 5; }
  };

  // The context in force. Valid until update() or a flush.
  TlbContext& tlb() { return *current_; }

  // To be called when satp, the privilege, or MPRV, MPP, MXR or SUM of mstatus changed.
  void update();
  // The context that is in force with SUM like that and all else as it is; nullptr if none is known. Code may go there by
  // itself, as long as update() is called before anything else is asked of the MMU.
  TlbContext* tlb_with_sum(bool sum) const { return sum == current_slot_->key.sum ? current_ : beyond_sum_; }

  // Translates `gva` for an access of the current mode, walking the tables; sets A and D bits where the hart
  // updates them itself (Svadu). `bytes` stay within the page. On success the page is entered in the TLB
  // where that is possible.
  struct Location {
    GuestPhysical gpa;
    std::byte* host;  // nullptr: not RAM
    std::uint64_t page_bytes = kPageSize;  // of the guest's page
  };
  std::expected<Location, Trap> locate(std::uint64_t gva, Access access, unsigned bytes);
  std::expected<GuestPhysical, Trap> translate(std::uint64_t gva, Access access, unsigned bytes) {
    const std::expected<Location, Trap> at = locate(gva, access, bytes);
    if (!at) return std::unexpected(at.error());
    return at->gpa;
  }

  // --- Shadowed programs.

  struct Shadow {
    std::unique_ptr<ShadowSpace> space;
    std::shared_ptr<void> engine;     // what the engine keeps with it
    // Fetches whose translations may have changed since the engine looked: of these addresses' pages, or all.
    static constexpr std::size_t kMostSuspects = 256;
    std::vector<std::uint64_t> fetch_suspects;
    bool all_fetches_suspect = false;
    std::uint64_t instructions = 0;   // of the hart, when it was made
    std::uint64_t faults = 0;         // how often something was entered
    void suspect(const std::uint64_t* gva);  // nullptr: all
  };
  // Of the context in force; nullptr if it has none.
  Shadow* shadow() { return current_slot_->shadow.get(); }
  // Counts for the engine how long the context in force has been in use without one.
  std::int64_t& unshadowed_time() { return current_slot_->unshadowed_time; }
  // Makes one for the context in force; nullptr where that cannot be: it is no program's in an Sv39 address space, or the
  // host refuses.
  Shadow* make_shadow();
  // Ends that of the context in force; gives how many that makes.
  unsigned end_shadow();
  // To be called before code runs in the shadow after a fence.
  void verify_shadow();
  // Enters the page of `gva`, and perhaps more, if the program may access it without a change to its page table. False:
  // the host refuses.
  bool enter_in_shadow(std::uint64_t gva);

  // --- The supervisor's window: what an Sv39 address space has in its upper half, as far as that is RAM and global. Unlike
  // a shadow it is always verified.

  // The window, if it is open and the context in force is the supervisor's; else nullptr.
  ShadowSpace* window() { return windowed_ ? window_.get() : nullptr; }
  // Opens it, if the context in force is one that can use it and the host gives the addresses. Until flush_fetch() is called
  // the engine has no code for it.
  bool open_window();
  bool window_is_open() const { return window_ != nullptr; }
  // Enters the page of `gva`, and perhaps more, in the window in force. False: it is none of the window's, or changes too often.
  bool enter_in_window(std::uint64_t gva);

  // Where `gva` lies for a debugger: in the current mode, whatever the permissions, and without a trace.
  std::optional<GuestPhysical> look_up(std::uint64_t gva) const;

  // The host bytes of RAM at gpa, or nullptr.
  std::byte* ram(GuestPhysical gpa, unsigned bytes) const;

  // SFENCE.VMA; nullptr stands for "all" (rs1 or rs2 = x0).
  void fence(const std::uint64_t* gva, const std::uint64_t* asid);
  void flush();        // everything: PMP or environment configuration changed
  void flush_fetch(TlbContext::KeepsCode keeps = nullptr);  // FetchEntries: the engine dropped code, or looks at it again

  struct Statistics {
    std::uint64_t walks = 0;
    std::uint64_t flushes = 0;
  };
  const Statistics& statistics() const { return statistics_; }

  // Calls function(key, context) for each context that may be in force again as it is, so that tests can look at what it has.
  template <class Function>
  void for_each_context(Function function) const {
    for (const Slot& slot : slots_) {
      if (slot.valid) function(slot.key, std::as_const(*slot.tlb));
    }
  }

  // Counts whatever may make an instruction come from elsewhere than a fetch found earlier.
  std::uint64_t changes() const { return changes_; }

 private:
  static constexpr unsigned kModes = 64;
  struct Discard {
    void operator()(TlbContext* context) const;
  };
  struct Slot {
    Key key;
    bool valid = false;
    std::uint64_t last_used = 0;
    std::unique_ptr<TlbContext, Discard> tlb;  // made when first needed
    std::unique_ptr<Shadow> shadow;
    std::int64_t unshadowed_time = 0;
    unsigned ended_shadows = 0;
    void forget() {
      valid = false;
      shadow.reset();
      unshadowed_time = ended_shadows = 0;
    }
  };
  struct Walk {
    GuestPhysical gpa;
    std::uint64_t page_bytes;
    // Whether the page could be read, or written, likewise without another walk.
    bool reads, writes;
    bool user;    // of user mode
    bool global;  // in every address space
  };
  static constexpr unsigned kSlots = 24;
  static constexpr unsigned kMostShadows = 4;

  Key key_now() const;
  // The slot last used for that mode; nullptr if it has become another's since.
  Slot* latest(unsigned mode) const {
    Slot* slot = latest_[mode];
    return slot != nullptr && slot->valid && slot->key.mode() == mode ? slot : nullptr;
  }
  void use(Slot& slot);
  // `may_update`: sets A and D bits if need be; otherwise a page that lacks them is a fault.
  std::expected<Walk, Trap> walk(std::uint64_t gva, Access access, std::uint8_t privilege, bool may_update = true);
  // What a shadow, of programs or of the supervisor, may have of that page.
  std::optional<ShadowSpace::GuestPage> shadow_page(std::uint64_t gva, std::uint8_t privilege);
  // False: the host refuses.
  bool enter_page(ShadowSpace& space, std::uint64_t gva, const ShadowSpace::GuestPage& here, std::uint8_t privilege);
  // Whether a context of that kind can use the window.
  static bool can_use_window(const Key& key);
  // Compares the window with the page tables, after a fence of that address, or of all.
  void verify_window(const std::uint64_t* gva);
  void clear_window();
  // Page tables that lead to what is in the window, as they were: where one has not changed, nothing that it leads to has.
  // What is in the window is what these say.
  struct KeptTable {
    GuestPhysical at;
    std::uint64_t gva;  // what its first entry is for
    unsigned level;     // 0: of pages of 4 KiB
    alignas(64) std::array<std::uint64_t, kPageSize / 8> entries;
  };
  KeptTable* kept_table(std::uint64_t gva, unsigned level);
  // Keeps the tables for that address, if they are not yet kept.
  void keep_tables(std::uint64_t gva);
  // Makes all kept tables what they are now, and suspects of the window what has changed with that.
  void refresh_tables();
  // Keeps those that lead to what is in the window now, all of which is suspect.
  void keep_tables_anew();
  // Makes one what it is now; false: what other tables are kept may have changed, too.
  bool refresh(KeptTable& kept);
  // Whether the kept tables say so, too.
  bool is_kept(std::uint64_t gva, const ShadowSpace::Page& page);
  // Whether the page-table entry `value`, a leaf, lets its page be accessed so.
  bool permits(std::uint64_t value, Access access, std::uint8_t privilege) const;
  Walk end_of_walk(std::uint64_t value, unsigned offset_bits, std::uint64_t gva, std::uint8_t privilege) const;
  // True when PMP lets all of [gpa, gpa + bytes) be accessed so. `whole` is cleared when a region's edge
  // cuts the page around gpa.
  bool pmp_allows(GuestPhysical gpa, std::uint64_t bytes, Access access, std::uint8_t privilege, bool* whole) const {
    return pmp_open_ || pmp_entries_allow(gpa, bytes, access, privilege, whole);
  }
  bool pmp_entries_allow(GuestPhysical gpa, std::uint64_t bytes, Access access, std::uint8_t privilege,
                         bool* whole) const;
  // Enters the page of gva, whose bytes are at `host`, for an access; and for loads or stores as well, if those are
  // allowed and not in the way of another page.
  void insert(std::uint64_t gva, std::byte* host, Access access, bool reads, bool writes);
  // The same of the chunk of a large page around gva, whose first bytes are at `host`.
  void insert_chunk(std::uint64_t gva, std::byte* host, bool reads, bool writes);

  Hart& hart_;
  std::array<Slot, kSlots> slots_;
  std::array<Slot*, kModes> latest_{};  // to be asked by latest()
  Slot* current_slot_ = nullptr;
  TlbContext* current_ = nullptr;
  TlbContext* beyond_sum_ = nullptr;  // what that is if SUM changes; nullptr if it is not known
  std::unique_ptr<ShadowSpace> window_;  // may be null
  std::vector<std::unique_ptr<KeptTable>> window_tables_;  // of the root only the upper half counts
  std::uint64_t window_opened_at_ = 0;   // in the hart's instructions
  bool windowed_ = false;                // the context in force uses it
  bool pmp_open_ = false;  // the first entry in use lets everyone do everything
  std::uint64_t tick_ = 0;
  std::uint64_t changes_ = 0;
  Statistics statistics_;
};

}  // namespace doppel::riscv
