#include "process/address_space.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/shm.h>

#include <algorithm>
#include <cerrno>
#include <iterator>

#include "base/bits.h"
#include "memory/address.h"

namespace doppel::process {
namespace {

// Around a guest that lies elsewhere: an access that runs off either end meets nothing, whatever its displacement.
constexpr std::uint64_t kGuardBytes = std::uint64_t{4} << 30;
constexpr std::uint64_t kStackGap = 256 * kPageSize;  // what Linux keeps free below a stack
constexpr std::uint64_t kMostElsewhere = std::uint64_t{64} << 20;  // of a stack that cannot grow

constexpr int kReserve = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

int host_protection(int guest) {
  int host = guest & (PROT_READ | PROT_WRITE);
  if ((guest & (PROT_EXEC | PROT_WRITE)) != 0) host |= PROT_READ;
  return host;
}

std::uint64_t pages(std::uint64_t bytes) { return align_down(bytes + kPageSize - 1, kPageSize); }

// Whether the host has nothing below kLowBytes. It never places anything there by itself.
bool low_addresses_are_free() {
  void* const wanted = reinterpret_cast<void*>(AddressSpace::kLowest);
  constexpr std::uint64_t kBytes = AddressSpace::kLowBytes - AddressSpace::kLowest;
  void* const got = ::mmap(wanted, kBytes, PROT_NONE, kReserve | MAP_FIXED_NOREPLACE, -1, 0);
  if (got == MAP_FAILED) return errno == ENOMEM;  // a limit on the size of the process: only that was in the way
  ::munmap(got, kBytes);
  return got == wanted;
}

// Whether the host would map something in the upper half of so large a space.
bool host_has(unsigned bits) {
  void* const wanted = reinterpret_cast<void*>((std::uint64_t{1} << (bits - 1)) - (std::uint64_t{1} << 40));
  void* const got = ::mmap(wanted, kPageSize, PROT_NONE, kReserve | MAP_FIXED_NOREPLACE, -1, 0);
  if (got != MAP_FAILED) ::munmap(got, kPageSize);
  return got == wanted || (got == MAP_FAILED && errno == EEXIST);
}

}  // namespace

Result<std::unique_ptr<AddressSpace>> AddressSpace::create(Place place, unsigned bits) {
  std::unique_ptr<AddressSpace> space(new AddressSpace);
  if (bits > kLeastBits && !host_has(bits)) return fail("programs of this host have less than {} bits of address", bits);
  if (place == Place::kIdentity && low_addresses_are_free()) {
    space->flat_ = {nullptr, std::uint64_t{1} << (bits - 1)};
    return space;
  }
  if (bits > kLeastBits) return fail("this host has no room for a program with {} bits of address", bits);
  void* const start = ::mmap(nullptr, kGuardBytes + kLowBytes + kGuardBytes, PROT_NONE, kReserve, -1, 0);
  if (start == MAP_FAILED) return fail_errno(errno, "cannot reserve the guest's address space");
  space->flat_ = {static_cast<std::byte*>(start) + kGuardBytes, kLowBytes};
  return space;
}

AddressSpace::~AddressSpace() {
  if (identity()) {
    for (const auto& [start, region] : regions_) ::munmap(flat_.host(start), region.end - start);
  } else {
    ::munmap(flat_.base - kGuardBytes, kGuardBytes + kLowBytes + kGuardBytes);
  }
}

void AddressSpace::grow_to(std::uint64_t gva) const {
  if (!identity()) return;
  const auto stack = regions_.upper_bound(gva);
  if (stack == regions_.end() || !stack->second.grows) return;
  if (stack != regions_.begin() && std::prev(stack)->second.end + kStackGap > gva) return;
  rlimit limit{};
  if (::getrlimit(RLIMIT_STACK, &limit) != 0 || stack->second.end - gva > limit.rlim_cur) return;
  auto grown = regions_.extract(stack);
  grown.key() = gva;
  regions_.insert(std::move(grown));
}

bool AddressSpace::allows(std::uint64_t gva, int protection) const {
  const std::lock_guard lock(mutex_);
  grow_to(align_down(gva, kPageSize));
  const Region* region = region_at(gva);
  if (region == nullptr) return false;
  int allowed = region->protection;
  if ((allowed & (PROT_WRITE | PROT_EXEC)) != 0) allowed |= PROT_READ;
  return (allowed & protection) == protection;
}

bool AddressSpace::is_of_file(std::uint64_t gva) const {
  const std::lock_guard lock(mutex_);
  const Region* region = region_at(gva);
  return region != nullptr && region->file;
}

const AddressSpace::Region* AddressSpace::region_at(std::uint64_t gva) const {
  auto after = regions_.upper_bound(gva);
  if (after == regions_.begin() || gva >= (--after)->second.end) return nullptr;
  return &after->second;
}

bool AddressSpace::is_mapped(std::uint64_t gva, std::uint64_t bytes) const {
  if (!flat_.contains(gva, bytes)) return false;
  const std::lock_guard lock(mutex_);
  grow_to(align_down(gva, kPageSize));
  return covered(gva, gva + bytes);
}

std::vector<AddressSpace::Mapping> AddressSpace::mappings() const {
  const std::lock_guard lock(mutex_);
  std::vector<Mapping> all;
  for (const auto& [start, region] : regions_) all.push_back({start, region.end, region.protection, region.grows});
  return all;
}

std::pair<std::uint64_t, std::uint64_t> AddressSpace::break_range() const {
  const std::lock_guard lock(mutex_);
  return {break_start_, pages(break_)};
}

void AddressSpace::forget(std::uint64_t start, std::uint64_t end, bool& code) {
  auto at = regions_.upper_bound(start);
  if (at != regions_.begin()) --at;
  while (at != regions_.end() && at->first < end) {
    const auto [first, region] = *at;
    if (region.end <= start) {
      ++at;
      continue;
    }
    code |= (region.protection & PROT_EXEC) != 0;
    at = regions_.erase(at);
    if (first < start) regions_[first] = {start, region.protection, region.grows, region.file};
    if (region.end > end) regions_[end] = region;
  }
}

void AddressSpace::note(std::uint64_t start, Region region, bool& code) {
  bool was_code = false;
  forget(start, region.end, was_code);
  const bool is_code = (region.protection & PROT_EXEC) != 0;
  // To the host it is no code. This flag shows it to who looks at us from outside, and is of no other use: a core of
  // Doppel would show nothing of the guest.
  if (is_code || was_code) {
    ::madvise(flat_.host(start), region.end - start, is_code ? MADV_DONTDUMP : MADV_DODUMP);
  }
  code |= was_code || is_code;
  const auto alike = [&region](const Region& other) {
    return other.protection == region.protection && other.grows == region.grows && other.file == region.file;
  };
  auto next = regions_.lower_bound(start);
  if (next != regions_.end() && next->first == region.end && alike(next->second)) {
    region.end = next->second.end;
    next = regions_.erase(next);
  }
  if (next != regions_.begin()) {
    Region& before = std::prev(next)->second;
    if (before.end == start && alike(before)) {
      before.end = region.end;
      return;
    }
  }
  regions_.emplace_hint(next, start, region);
}

bool AddressSpace::release(std::uint64_t start, std::uint64_t bytes) {
  if (start + bytes > kLowBytes) {
    // Only what is the guest's.
    bool done = true;
    auto at = regions_.upper_bound(start);
    if (at != regions_.begin()) --at;
    for (; at != regions_.end() && at->first < start + bytes; ++at) {
      const std::uint64_t from = std::max(start, at->first), to = std::min(start + bytes, at->second.end);
      if (from < to) done &= ::munmap(flat_.host(from), to - from) == 0;
    }
    return done;
  }
  if (identity()) return ::munmap(flat_.host(start), bytes) == 0;
  return ::mmap(flat_.host(start), bytes, PROT_NONE, kReserve | MAP_FIXED, -1, 0) != MAP_FAILED;
}

bool AddressSpace::covered(std::uint64_t start, std::uint64_t end) const {
  while (start < end) {
    auto region = regions_.upper_bound(start);
    if (region == regions_.begin() || (--region)->second.end <= start) return false;
    start = region->second.end;
  }
  return true;
}

bool AddressSpace::is_free(std::uint64_t start, std::uint64_t bytes) const {
  auto next = regions_.lower_bound(start);
  if (next != regions_.end() && next->first < start + bytes) return false;
  return next == regions_.begin() || (--next)->second.end <= start;
}

bool AddressSpace::claim(std::uint64_t start, std::uint64_t bytes) const {
  const std::uint64_t end = start + bytes;
  if (end <= kLowBytes) return true;
  for (Gap gap = gap_in(std::max(start, kLowBytes), end); gap.start < gap.end; gap = gap_in(gap.end, end)) {
    void* const got = ::mmap(flat_.host(gap.start), gap.end - gap.start, PROT_NONE, kReserve | MAP_FIXED_NOREPLACE, -1, 0);
    if (got == MAP_FAILED) {
      disclaim(start, gap.start);
      return false;
    }
  }
  return true;
}

void AddressSpace::disclaim(std::uint64_t start, std::uint64_t end) const {
  for (Gap gap = gap_in(std::max(start, kLowBytes), end); gap.start < gap.end; gap = gap_in(gap.end, end)) {
    ::munmap(flat_.host(gap.start), gap.end - gap.start);
  }
}

AddressSpace::Gap AddressSpace::gap_in(std::uint64_t start, std::uint64_t end) const {
  while (start < end) {
    const Region* region = region_at(start);
    if (region == nullptr) {
      const auto next = regions_.upper_bound(start);
      return {start, next == regions_.end() ? end : std::min(end, next->first)};
    }
    start = region->end;
  }
  return {end, end};
}

std::uint64_t AddressSpace::find_free(std::uint64_t bytes) const {
  if (const std::uint64_t usual = find_free_below(place_below_, bytes); usual != 0) return usual;
  if (const std::uint64_t low = find_free_below(kLowBytes, bytes); low != 0) return low;
  if (flat_.size_bytes <= kLowBytes) return 0;
  // The host places nothing low by itself.
  void* const got = ::mmap(nullptr, bytes, PROT_NONE, kReserve, -1, 0);
  return got == MAP_FAILED ? 0 : reinterpret_cast<std::uint64_t>(got);
}

std::uint64_t AddressSpace::find_free_below(std::uint64_t end, std::uint64_t bytes) const {
  for (auto at = regions_.rbegin(); at != regions_.rend(); ++at) {
    const std::uint64_t start = at->first - (at->second.grows ? std::min(at->first, kStackGap) : 0);
    if (start >= end) continue;
    if (at->second.end <= end && end - at->second.end >= bytes) return end - bytes;
    end = start;
  }
  return end > kLowest && end - kLowest >= bytes ? end - bytes : 0;
}

std::int64_t AddressSpace::tell(std::int64_t outcome, bool code, std::uint64_t gva, std::uint64_t bytes) const {
  if (code && on_code_change) on_code_change(gva, bytes);
  return outcome;
}

void AddressSpace::place_below(std::uint64_t gva) {
  const std::lock_guard lock(mutex_);
  place_below_ = std::min(align_down(gva, kPageSize), kLowBytes);
}

std::int64_t AddressSpace::map_stack(std::uint64_t end, std::uint64_t bytes, int protection) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED | MAP_STACK | MAP_GROWSDOWN;
  if (!identity()) {
    rlimit limit{};
    ::getrlimit(RLIMIT_STACK, &limit);
    bytes = std::max(bytes, pages(std::min<std::uint64_t>(limit.rlim_cur, kMostElsewhere)));
  }
  return map(end - bytes, bytes, protection, flags, -1, 0);
}

std::int64_t AddressSpace::map(std::uint64_t gva, std::uint64_t bytes, int protection, int flags, int fd,
                               std::uint64_t offset) {
  bool code = false;
  std::unique_lock lock(mutex_);
  const std::int64_t at = map_locked(gva, bytes, protection, flags, fd, offset, code);
  lock.unlock();
  return tell(at, code, static_cast<std::uint64_t>(at), bytes);
}

std::int64_t AddressSpace::map_locked(std::uint64_t gva, std::uint64_t bytes, int protection, int flags, int fd,
                                      std::uint64_t offset, bool& code) {
  const bool fixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0;
  if (bytes == 0 || (fixed && !is_aligned(gva, kPageSize)) || !is_aligned(offset, kPageSize)) return -EINVAL;
  if (bytes > flat_.size_bytes) return -ENOMEM;
  bytes = pages(bytes);
  gva = align_down(gva, kPageSize);
  if (!fixed && (gva < kLowest || !flat_.contains(gva, bytes) || !is_free(gva, bytes) || !claim(gva, bytes))) {
    gva = find_free(bytes);
  }
  if (gva == 0 && !fixed) return -ENOMEM;
  if (!flat_.contains(gva, bytes)) return -ENOMEM;
  if (fixed && gva < kLowest) return -EPERM;
  if ((flags & MAP_FIXED_NOREPLACE) != 0 && !is_free(gva, bytes)) return -EEXIST;
  if (fixed && !claim(gva, bytes)) return (flags & MAP_FIXED_NOREPLACE) != 0 ? -EEXIST : -ENOMEM;
  const bool grows = (flags & MAP_GROWSDOWN) != 0 && (flags & (MAP_SHARED | MAP_PRIVATE)) == MAP_PRIVATE;
  // Nothing grows into a reservation, and hardware's reasons for some places are not ours.
  const int dropped = MAP_FIXED_NOREPLACE | MAP_STACK | MAP_32BIT | (grows && identity() ? 0 : MAP_GROWSDOWN);
  void* at = ::mmap(flat_.host(gva), bytes, host_protection(protection), (flags & ~dropped) | MAP_FIXED, fd,
                    static_cast<off_t>(offset));
  if (at == MAP_FAILED) {
    const int error = errno;
    disclaim(gva, gva + bytes);
    return -error;
  }
  note(gva, {gva + bytes, protection, grows, (flags & MAP_ANONYMOUS) == 0}, code);
  return static_cast<std::int64_t>(gva);
}

std::int64_t AddressSpace::unmap(std::uint64_t gva, std::uint64_t bytes) {
  bool code = false;
  std::unique_lock lock(mutex_);
  const std::int64_t outcome = unmap_locked(gva, bytes, code);
  lock.unlock();
  return tell(outcome, code, gva, bytes);
}

std::int64_t AddressSpace::unmap_locked(std::uint64_t gva, std::uint64_t bytes, bool& code) {
  if (!is_aligned(gva, kPageSize) || bytes == 0 || bytes > flat_.size_bytes) return -EINVAL;
  bytes = pages(bytes);
  if (!flat_.contains(gva, bytes)) return -EINVAL;
  if (!release(gva, bytes)) return -errno;
  forget(gva, gva + bytes, code);
  return 0;
}

std::int64_t AddressSpace::protect(std::uint64_t gva, std::uint64_t bytes, int protection) {
  if (!is_aligned(gva, kPageSize)) return -EINVAL;
  const bool downwards = (protection & PROT_GROWSDOWN) != 0;
  protection &= ~PROT_GROWSDOWN;
  if ((protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) != 0) return -EINVAL;
  if (bytes == 0) return 0;
  if (bytes > flat_.size_bytes || !flat_.contains(gva, pages(bytes))) return -ENOMEM;
  bytes = pages(bytes);
  bool code = false;
  std::unique_lock lock(mutex_);
  grow_to(gva);
  if (!covered(gva, gva + bytes)) return -ENOMEM;
  const Region region = std::prev(regions_.upper_bound(gva))->second;
  if (downwards) {
    if (!region.grows) return -EINVAL;
    const std::uint64_t start = std::prev(regions_.upper_bound(gva))->first;
    bytes += gva - start;
    gva = start;
  }
  const int host = host_protection(protection) | (downwards && identity() ? PROT_GROWSDOWN : 0);
  if (::mprotect(flat_.host(gva), bytes, host) != 0) return -errno;
  note(gva, {gva + bytes, protection, region.grows, region.file}, code);
  lock.unlock();
  return tell(0, code, gva, bytes);
}

std::int64_t AddressSpace::remap(std::uint64_t gva, std::uint64_t old_bytes, std::uint64_t new_bytes, int flags,
                                 std::uint64_t new_gva) {
  bool code = false;
  std::unique_lock lock(mutex_);
  const std::int64_t outcome = remap_locked(gva, old_bytes, new_bytes, flags, new_gva, code);
  lock.unlock();
  // Two ranges at once, and rare: all of it.
  return tell(outcome, code, 0, flat_.size_bytes);
}

std::int64_t AddressSpace::remap_locked(std::uint64_t gva, std::uint64_t old_bytes, std::uint64_t new_bytes, int flags,
                                        std::uint64_t new_gva, bool& code) {
  constexpr int kKnown = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
  const bool fixed = (flags & MREMAP_FIXED) != 0, keep = (flags & MREMAP_DONTUNMAP) != 0;
  if ((flags & ~kKnown) != 0 || !is_aligned(gva, kPageSize) || new_bytes == 0) return -EINVAL;
  if ((fixed || keep) && (flags & MREMAP_MAYMOVE) == 0) return -EINVAL;
  if (old_bytes > flat_.size_bytes || new_bytes > flat_.size_bytes) return -EINVAL;
  old_bytes = pages(old_bytes);
  new_bytes = pages(new_bytes);
  if (keep && old_bytes != new_bytes) return -EINVAL;
  if (!flat_.contains(gva, old_bytes)) return -EFAULT;
  auto region = regions_.upper_bound(gva);
  if (region == regions_.begin() || (--region)->second.end <= gva) return -EFAULT;
  const int protection = region->second.protection;
  if (fixed) {
    if (!is_aligned(new_gva, kPageSize) || !flat_.contains(new_gva, new_bytes)) return -EINVAL;
    if (new_gva < kLowest) return -EPERM;
    if (new_gva < gva + old_bytes && gva < new_gva + new_bytes) return -EINVAL;
    if (!claim(new_gva, new_bytes)) return -ENOMEM;
  } else if (!keep && new_bytes <= old_bytes) {
    if (new_bytes < old_bytes) {
      if (const std::int64_t r = unmap_locked(gva + new_bytes, old_bytes - new_bytes, code); r != 0) return r;
    }
    return static_cast<std::int64_t>(gva);
  } else {
    if (region->second.end < gva + old_bytes) return -EFAULT;
    const std::uint64_t more = new_bytes - old_bytes;
    if (!keep && old_bytes != 0 && flat_.contains(gva, new_bytes) && is_free(gva + old_bytes, more)) {
      // The kernel grows a mapping only into what is not mapped, and an occupied place is no reason to fail.
      if (!identity()) ::munmap(flat_.host(gva + old_bytes), more);
      if (::mremap(flat_.host(gva), old_bytes, new_bytes, 0) != MAP_FAILED) {
        note(gva, {gva + new_bytes, protection}, code);
        return static_cast<std::int64_t>(gva);
      }
      if (!identity()) release(gva + old_bytes, more);
    }
    if ((flags & MREMAP_MAYMOVE) == 0) return -ENOMEM;
    new_gva = find_free(new_bytes);
    if (new_gva == 0) return -ENOMEM;
  }
  if (::mremap(flat_.host(gva), old_bytes, new_bytes, flags | MREMAP_FIXED, flat_.host(new_gva)) == MAP_FAILED) {
    const int error = errno;
    disclaim(new_gva, new_gva + new_bytes);
    return -error;
  }
  if (!keep && old_bytes != 0) {
    if (!identity()) release(gva, old_bytes);
    forget(gva, gva + old_bytes, code);
  }
  note(new_gva, {new_gva + new_bytes, protection}, code);
  return static_cast<std::int64_t>(new_gva);
}

std::int64_t AddressSpace::advise(std::uint64_t gva, std::uint64_t bytes, int advice) {
  if (!is_aligned(gva, kPageSize)) return -EINVAL;
  if (bytes == 0) return 0;
  if (bytes > flat_.size_bytes || !flat_.contains(gva, pages(bytes))) return -ENOMEM;
  bytes = pages(bytes);
  std::unique_lock lock(mutex_);
  // Elsewhere the reservation would take what nothing has mapped, and the host has things of its own beyond.
  if ((!identity() || gva + bytes > kLowBytes) && !covered(gva, gva + bytes)) return -ENOMEM;
  if (advice == MADV_DONTDUMP || advice == MADV_DODUMP) return covered(gva, gva + bytes) ? 0 : -ENOMEM;
  if (::madvise(flat_.host(gva), bytes, advice) != 0) return -errno;
  bool code = false;
  for (auto at = regions_.upper_bound(gva); at != regions_.begin();) {
    --at;
    if (at->second.end <= gva) break;
    code |= (at->second.protection & PROT_EXEC) != 0;
  }
  for (auto at = regions_.lower_bound(gva); at != regions_.end() && at->first < gva + bytes; ++at) {
    code |= (at->second.protection & PROT_EXEC) != 0;
  }
  lock.unlock();
  return tell(0, code && (advice == MADV_DONTNEED || advice == MADV_REMOVE || advice == MADV_FREE), gva, bytes);
}

std::int64_t AddressSpace::attach(int segment, std::uint64_t gva, int flags) {
  shmid_ds status{};
  if (::shmctl(segment, IPC_STAT, &status) < 0) return -errno;
  const std::uint64_t bytes = pages(status.shm_segsz);
  if (bytes > flat_.size_bytes) return -ENOMEM;
  const bool anywhere = gva == 0;
  if ((flags & SHM_RND) != 0) gva = align_down(gva, kPageSize);
  if (!is_aligned(gva, kPageSize) || (anywhere && (flags & SHM_REMAP) != 0)) return -EINVAL;
  bool code = false;
  std::unique_lock lock(mutex_);
  if (anywhere) gva = find_free(bytes);
  if (gva < kLowest || !flat_.contains(gva, bytes)) return anywhere ? -ENOMEM : -EINVAL;
  if ((flags & SHM_REMAP) == 0 && !is_free(gva, bytes)) return -EINVAL;
  if (!anywhere && !claim(gva, bytes)) return -EINVAL;
  const bool replaces = !identity() || gva + bytes > kLowBytes;
  const int host = (flags & ~(SHM_EXEC | SHM_RND)) | (replaces ? SHM_REMAP : 0);
  if (::shmat(segment, flat_.host(gva), host) == reinterpret_cast<void*>(-1)) {
    const int error = errno;
    disclaim(gva, gva + bytes);
    return -error;
  }
  note(gva, {gva + bytes, PROT_READ | ((flags & SHM_RDONLY) == 0 ? PROT_WRITE : 0) |
                              ((flags & SHM_EXEC) != 0 ? PROT_EXEC : 0)}, code);
  attached_[gva] = bytes;
  lock.unlock();
  return tell(static_cast<std::int64_t>(gva), code, gva, bytes);
}

std::int64_t AddressSpace::detach(std::uint64_t gva) {
  bool code = false;
  std::unique_lock lock(mutex_);
  const auto found = attached_.find(gva);
  if (found == attached_.end()) return -EINVAL;
  const std::uint64_t bytes = found->second;
  if (::shmdt(flat_.host(gva)) != 0) return -errno;
  if (!identity()) release(gva, bytes);
  forget(gva, gva + bytes, code);
  attached_.erase(found);
  lock.unlock();
  return tell(0, code, gva, bytes);
}

void AddressSpace::start_break_at(std::uint64_t gva) {
  const std::lock_guard lock(mutex_);
  break_start_ = break_ = pages(gva);
}

std::int64_t AddressSpace::set_break(std::uint64_t gva) {
  bool code = false;
  std::unique_lock lock(mutex_);
  const std::uint64_t now = pages(break_), wanted = pages(gva);
  if (gva >= break_start_ && gva < kLowBytes) {
    const bool done = wanted == now ||
                      (wanted < now ? unmap_locked(wanted, now - wanted, code) == 0
                                    : map_locked(now, wanted - now, PROT_READ | PROT_WRITE,
                                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0, code) > 0);
    if (done) break_ = gva;
  }
  const auto answer = static_cast<std::int64_t>(break_);
  lock.unlock();
  return tell(answer, code, wanted, now - wanted);
}

}  // namespace doppel::process
