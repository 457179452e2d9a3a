#include "memory/shadow_space.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstdlib>

#include "base/bits.h"

namespace doppel {
namespace {

// A process may have 65,530 mappings (vm.max_map_count), of which others need some.
constexpr long kMostBorders = 50'000;
std::atomic<long> borders_of_all{0};
// That are remembered one by one.
constexpr std::size_t kMostSuspects = 1024;
// The size of the smallest pages that are larger than a piece.
constexpr unsigned kHugeShift = 30;

bool unmap(std::byte* at, std::uint64_t bytes) {
  return ::mmap(at, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

}  // namespace

std::unique_ptr<ShadowSpace> ShadowSpace::create(const GuestMemory& memory, std::uint64_t first) {
  void* reserved = ::mmap(nullptr, kBytes + 2 * kGuardBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) return nullptr;
  return std::unique_ptr<ShadowSpace>(new ShadowSpace(memory, static_cast<std::byte*>(reserved), first));
}

ShadowSpace::~ShadowSpace() {
  ::munmap(reserved_, kBytes + 2 * kGuardBytes);
  borders_of_all.fetch_sub(borders_, std::memory_order_relaxed);
}

ShadowSpace::Piece* ShadowSpace::piece_of(std::uint64_t gva) const {
  const auto found = pieces_.find(gva >> kPieceShift);
  return found == pieces_.end() ? nullptr : found->second.get();
}

ShadowSpace::Page ShadowSpace::page_of(std::uint64_t entry) {
  return {{align_down(entry, kPageSize)}, (entry & kWritable) != 0};
}

std::uint64_t& ShadowSpace::entry_in(Piece& piece, std::uint64_t gva) {
  return piece.entries[(gva >> kPageShift) % kPagesAPiece];
}

int ShadowSpace::borders(std::uint64_t first_page, std::uint64_t pages) const {
  // The host makes one mapping of neighbours in its file with the same protection.
  const auto one = [](std::uint64_t left, std::uint64_t right) {
    return left == 0 || right == 0 ? left == right : left + kPageSize == right;
  };
  Piece* piece = nullptr;
  std::uint64_t number = ~std::uint64_t{0};  // of that piece
  const auto entry = [&](std::uint64_t page) {
    const std::uint64_t gva = page << kPageShift;
    if (gva >> kPieceShift != number) {
      number = gva >> kPieceShift;
      piece = piece_of(gva);
    }
    return piece == nullptr ? 0 : entry_in(*piece, gva);
  };
  int count = 0;
  std::uint64_t left = entry(first_page - 1);
  for (std::uint64_t page = first_page; page <= first_page + pages; ++page) {
    const std::uint64_t right = entry(page);
    if (!one(left, right)) ++count;
    left = right;
  }
  return count;
}

void ShadowSpace::set(Piece& piece, std::uint64_t gva, std::uint64_t pages, std::uint64_t entry) {
  const std::uint64_t first = gva >> kPageShift;
  const int before = borders(first, pages);
  for (std::uint64_t i = 0; i < pages; ++i) {
    piece.entries[(first + i) % kPagesAPiece] = entry == 0 ? 0 : entry + (i << kPageShift);
  }
  const int change = borders(first, pages) - before;
  borders_ += change;
  borders_of_all.fetch_add(change, std::memory_order_relaxed);
}

bool ShadowSpace::enter(std::uint64_t gva, const Page& first, std::uint64_t bytes, std::uint64_t guest_bytes,
                        bool populate) {
  if (!contains(gva) || borders_of_all.load(std::memory_order_relaxed) > kMostBorders) return false;
  const std::uint64_t at = align_down(gva, kPageSize);
  assert(bytes != 0 && at % kPieceBytes + bytes <= kPieceBytes);
  if (!memory_.map_again(host(at), first.gpa, bytes, first.writable, populate)) return false;
  std::unique_ptr<Piece>& piece = pieces_[gva >> kPieceShift];
  if (piece == nullptr) piece = std::make_unique<Piece>();
  if (guest_bytes > kPageSize) piece->of_large_page = true;
  if (guest_bytes > kPieceBytes && std::ranges::find(huge_, gva >> kHugeShift) == huge_.end()) {
    huge_.push_back(gva >> kHugeShift);
  }
  piece->whole = bytes == kPieceBytes && guest_bytes >= kPieceBytes;
  set(*piece, at, bytes >> kPageShift, first.gpa.value | kPresent | (first.writable ? kWritable : 0));
  return true;
}

void ShadowSpace::suspect(std::uint64_t gva) {
  if (suspect_all_ || !contains(gva)) return;
  if (std::ranges::find(huge_, gva >> kHugeShift) != huge_.end()) return suspect_all();
  const Piece* piece = piece_of(gva);
  if (piece == nullptr) return;
  suspects_.push_back(align_down(gva, kPageSize));
  if (suspects_.size() > kMostSuspects) suspect_all();
}

void ShadowSpace::verify(const Look& look) {
  if (suspect_all_) {
    for (auto& [number, piece] : pieces_) verify_piece(number, *piece, look);
  }
  for (const std::uint64_t gva : suspects_) {
    Piece& piece = *piece_of(gva);
    piece.of_large_page ? verify_piece(gva >> kPieceShift, piece, look) : verify_page(piece, gva, look);
  }
  unmap_removed();
  suspects_.clear();
  suspect_all_ = false;
  if (crowded_) clear();
}

std::vector<std::uint64_t> ShadowSpace::pieces() const {
  std::vector<std::uint64_t> addresses;
  for (const auto& [number, piece] : pieces_) addresses.push_back(number << kPieceShift);
  return addresses;
}

std::uint64_t ShadowSpace::removals_around(std::uint64_t gva) const {
  const Piece* piece = piece_of(gva);
  return piece == nullptr ? 0 : piece->removals;
}

void ShadowSpace::verify_piece(std::uint64_t number, Piece& piece, const Look& look) {
  if (piece.whole) {
    // What is one page is right or wrong as a whole.
    const auto now = look(number << kPieceShift);
    const std::uint64_t first = piece.entries[0];
    if (now && now->bytes >= kPieceBytes && now->page == page_of(first)) return;
  }
  for (std::size_t i = 0; i < kPagesAPiece; ++i) {
    if (piece.entries[i] != 0) verify_page(piece, (number << kPieceShift) + (i << kPageShift), look);
  }
}

void ShadowSpace::verify_page(Piece& piece, std::uint64_t gva, const Look& look) {
  const std::uint64_t entry = entry_in(piece, gva);
  if (entry == 0) return;
  const auto now = look(gva);
  if (!now || now->page != page_of(entry)) remove(piece, gva);
}

void ShadowSpace::remove(Piece& piece, std::uint64_t gva) {
  set(piece, gva, 1, 0);
  piece.whole = false;
  ++piece.removals;
  if (removal_end_ != gva) {
    unmap_removed();
    removal_begin_ = gva;
  }
  removal_end_ = gva + kPageSize;
}

void ShadowSpace::unmap_removed() {
  if (removal_begin_ == removal_end_) return;
  if (!unmap(host(removal_begin_), removal_end_ - removal_begin_)) crowded_ = true;
  removal_begin_ = removal_end_ = 0;
}

void ShadowSpace::clear() {
  // This takes no mapping more than there are.
  if (!unmap(reserved_, kBytes + 2 * kGuardBytes)) std::abort();
  pieces_.clear();
  borders_of_all.fetch_sub(borders_, std::memory_order_relaxed);
  borders_ = 0;
  huge_.clear();
  suspects_.clear();
  suspect_all_ = crowded_ = false;
}

}  // namespace doppel
