// A guest's address space as a range of host addresses, shadowed: what the guest's page tables map there, the host's own
// mappings map as well, so that an access is one host instruction, and a fault of the host where nothing was entered.
// (Wang et al., "HSPT: Practical Implementation and Efficient Management of Embedded Shadow Page Tables", 2015.) It is
// either half of an Sv39 address space: the lower, which programs have, or the upper, which a supervisor has.
//
// Like a TLB it may know less than the page tables, and after a fence nothing else: pages are *entered* when they are first
// used, *suspected* by fences, and *verified*, those that are suspected, before guest code runs again.
// Belongs to one thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "memory/address.h"
#include "memory/guest_memory.h"

namespace doppel {

class ShadowSpace {
 public:
  static constexpr unsigned kAddressBits = 38;
  static constexpr std::uint64_t kBytes = std::uint64_t{1} << kAddressBits;
  // The guest address that the upper half begins at; the lower one begins at 0.
  static constexpr std::uint64_t kUpperHalf = 0 - kBytes;
  // Before and behind the space nothing is mapped for so many bytes.
  static constexpr std::uint64_t kGuardBytes = std::uint64_t{128} << 20;
  static constexpr unsigned kPieceShift = 21;
  static constexpr std::uint64_t kPieceBytes = std::uint64_t{1} << kPieceShift;

  // Of guest addresses from `first` on. nullptr where the host has no such range of addresses to give.
  static std::unique_ptr<ShadowSpace> create(const GuestMemory& memory, std::uint64_t first = 0);
  ~ShadowSpace();
  ShadowSpace(const ShadowSpace&) = delete;
  ShadowSpace& operator=(const ShadowSpace&) = delete;

  // Guest address A lies there.
  std::byte* host(std::uint64_t gva) const { return reserved_ + kGuardBytes + (gva - first_); }
  // What code adds to it for that; of the upper half the sum wraps.
  std::uintptr_t base() const { return reinterpret_cast<std::uintptr_t>(reserved_) + kGuardBytes - first_; }
  bool contains(std::uint64_t gva) const { return gva - first_ < kBytes; }

  struct Page {
    GuestPhysical gpa;
    bool writable;
    friend bool operator==(const Page&, const Page&) = default;
  };
  // A page as part of one of the guest, which may be larger.
  struct GuestPage {
    Page page;
    std::uint64_t bytes;
  };
  // Enters the pages at [gva, gva + bytes), which lie in a piece of 2 MiB, one behind the other in RAM, and are of guest
  // pages of `guest_bytes`. With `populate` they get their memory now. False if the host takes no more mappings, or that is
  // not all RAM.
  bool enter(std::uint64_t gva, const Page& first, std::uint64_t bytes, std::uint64_t guest_bytes, bool populate = true);

  // The translation of `gva` may have changed, and with it that of its page, whatever its size.
  void suspect(std::uint64_t gva);
  void suspect_all() { suspect_all_ = true; }
  using Look = std::function<std::optional<GuestPage>(std::uint64_t gva)>;
  // Asks `look` for the present translation of what is suspected, of addresses of pages, and removes what is not so any more.
  void verify(const Look& look);
  bool any_suspects() const { return suspect_all_ || !suspects_.empty(); }
  // An address in each piece of 2 MiB of which something was entered.
  std::vector<std::uint64_t> pieces() const;
  // Removes everything.
  void clear();
  // How many pages of the 2 MiB around gva were removed by verify().
  std::uint64_t removals_around(std::uint64_t gva) const;

 private:
  static constexpr std::size_t kPagesAPiece = std::size_t{1} << (kPieceShift - kPageShift);
  static constexpr std::uint64_t kPresent = 1, kWritable = 2;
  // 2 MiB of the space.
  struct Piece {
    std::array<std::uint64_t, kPagesAPiece> entries{};  // guest-physical page | kPresent | kWritable, or 0
    bool of_large_page = false;                         // some entry is
    bool whole = false;                                 // entered as one page of the guest, and all there
    std::uint64_t removals = 0;
  };

  ShadowSpace(const GuestMemory& memory, std::byte* reserved, std::uint64_t first)
      : memory_(memory), reserved_(reserved), first_(first) {}
  // How many borders between the host's mappings there are before, between and behind these pages.
  int borders(std::uint64_t first_page, std::uint64_t pages) const;
  Piece* piece_of(std::uint64_t gva) const;
  static std::uint64_t& entry_in(Piece& piece, std::uint64_t gva);
  static Page page_of(std::uint64_t entry);
  // `entry` is the first page's, and the others are like it; or 0 for all.
  void set(Piece& piece, std::uint64_t gva, std::uint64_t pages, std::uint64_t entry);
  void verify_page(Piece& piece, std::uint64_t gva, const Look& look);
  void verify_piece(std::uint64_t number, Piece& piece, const Look& look);
  // Unmaps the page, together with neighbours: at the latest when unmap_removed() is called.
  void remove(Piece& piece, std::uint64_t gva);
  void unmap_removed();

  const GuestMemory& memory_;
  std::byte* const reserved_;
  const std::uint64_t first_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Piece>> pieces_;  // by address / 2 MiB
  std::vector<std::uint64_t> suspects_;
  bool suspect_all_ = false;
  std::vector<std::uint64_t> huge_;  // addresses / 1 GiB around which an entry is of a page larger than a piece
  bool crowded_ = false;   // the host had no room for a hole: something is mapped that is not entered
  std::uint64_t removal_begin_ = 0, removal_end_ = 0;  // addresses that are unmapped together
  long borders_ = 0;
};

}  // namespace doppel
