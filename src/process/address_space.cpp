#include "process/address_space.h"

#include <sys/mman.h>

#include <cerrno>

#include "base/bits.h"
#include "memory/address.h"

namespace doppel::process {
namespace {

// Beyond the last guest address: a buffer that runs off the end meets nothing.
constexpr std::uint64_t kGuardBytes = std::uint64_t{4} << 30;
constexpr std::uint64_t kLowest = 0x10000;  // as vm.mmap_min_addr
constexpr std::uint64_t kHighestFree = AddressSpace::kSizeBytes - (std::uint64_t{1} << 30);  // the stack is above

int host_protection(int guest) {
  int host = guest & (PROT_READ | PROT_WRITE);
  if ((guest & (PROT_EXEC | PROT_WRITE)) != 0) host |= PROT_READ;
  return host;
}

std::uint64_t pages(std::uint64_t bytes) { return align_down(bytes + kPageSize - 1, kPageSize); }

}  // namespace

Result<std::unique_ptr<AddressSpace>> AddressSpace::create() {
  void* base = ::mmap(nullptr, kSizeBytes + kGuardBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) return fail_errno(errno, "cannot reserve the guest's address space");
  std::unique_ptr<AddressSpace> space(new AddressSpace);
  space->flat_ = {static_cast<std::byte*>(base), kSizeBytes};
  return space;
}

AddressSpace::~AddressSpace() {
  if (flat_.base != nullptr) ::munmap(flat_.base, kSizeBytes + kGuardBytes);
}

bool AddressSpace::allows(std::uint64_t gva, int protection) const {
  const std::lock_guard lock(mutex_);
  auto after = regions_.upper_bound(gva);
  if (after == regions_.begin()) return false;
  const Region& region = (--after)->second;
  int allowed = region.protection;
  if ((allowed & (PROT_WRITE | PROT_EXEC)) != 0) allowed |= PROT_READ;
  return gva < region.end && (allowed & protection) == protection;
}

void AddressSpace::forget(std::uint64_t start, std::uint64_t end) {
  auto at = regions_.upper_bound(start);
  if (at != regions_.begin()) --at;
  while (at != regions_.end() && at->first < end) {
    const auto [first, region] = *at;
    if (region.end <= start) {
      ++at;
      continue;
    }
    at = regions_.erase(at);
    if (first < start) regions_[first] = {start, region.protection};
    if (region.end > end) regions_[end] = region;
  }
}

bool AddressSpace::reserve(std::uint64_t start, std::uint64_t bytes) {
  return ::mmap(flat_.host(start), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) !=
         MAP_FAILED;
}

bool AddressSpace::is_free(std::uint64_t start, std::uint64_t bytes) const {
  auto next = regions_.lower_bound(start);
  if (next != regions_.end() && next->first < start + bytes) return false;
  return next == regions_.begin() || (--next)->second.end <= start;
}

std::uint64_t AddressSpace::find_free(std::uint64_t bytes) const {
  std::uint64_t end = kHighestFree;
  for (auto at = regions_.rbegin(); at != regions_.rend(); ++at) {
    if (at->first >= end) continue;
    if (at->second.end <= end && end - at->second.end >= bytes) return end - bytes;
    end = at->first;
  }
  return end > kLowest && end - kLowest >= bytes ? end - bytes : 0;
}

std::int64_t AddressSpace::map(std::uint64_t gva, std::uint64_t bytes, int protection, int flags, int fd,
                               std::uint64_t offset) {
  const bool fixed = (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0;
  if (bytes == 0 || (fixed && !is_aligned(gva, kPageSize)) || !is_aligned(offset, kPageSize)) return -EINVAL;
  if (bytes > kSizeBytes) return -ENOMEM;
  bytes = pages(bytes);
  const std::lock_guard lock(mutex_);
  gva = align_down(gva, kPageSize);
  if (!fixed && (gva < kLowest || !flat_.contains(gva, bytes) || !is_free(gva, bytes))) gva = find_free(bytes);
  if (gva == 0 && !fixed) return -ENOMEM;
  if (!flat_.contains(gva, bytes)) return -ENOMEM;
  if (fixed && gva < kLowest) return -EPERM;
  if ((flags & MAP_FIXED_NOREPLACE) != 0 && !is_free(gva, bytes)) return -EEXIST;
  constexpr int kDropped = MAP_FIXED_NOREPLACE | MAP_GROWSDOWN | MAP_STACK | MAP_32BIT;
  void* at = ::mmap(flat_.host(gva), bytes, host_protection(protection), (flags & ~kDropped) | MAP_FIXED, fd,
                    static_cast<off_t>(offset));
  if (at == MAP_FAILED) return -errno;
  forget(gva, gva + bytes);
  regions_[gva] = {gva + bytes, protection};
  return static_cast<std::int64_t>(gva);
}

std::int64_t AddressSpace::unmap(std::uint64_t gva, std::uint64_t bytes) {
  if (!is_aligned(gva, kPageSize) || bytes == 0 || bytes > kSizeBytes) return -EINVAL;
  bytes = pages(bytes);
  if (!flat_.contains(gva, bytes)) return -EINVAL;
  const std::lock_guard lock(mutex_);
  if (!reserve(gva, bytes)) return -errno;
  forget(gva, gva + bytes);
  return 0;
}

std::int64_t AddressSpace::protect(std::uint64_t gva, std::uint64_t bytes, int protection) {
  if (!is_aligned(gva, kPageSize)) return -EINVAL;
  if (bytes == 0) return 0;
  if (bytes > kSizeBytes || !flat_.contains(gva, pages(bytes))) return -ENOMEM;
  bytes = pages(bytes);
  const std::lock_guard lock(mutex_);
  for (std::uint64_t at = gva; at < gva + bytes;) {
    auto region = regions_.upper_bound(at);
    if (region == regions_.begin() || (--region)->second.end <= at) return -ENOMEM;
    at = region->second.end;
  }
  if (::mprotect(flat_.host(gva), bytes, host_protection(protection)) != 0) return -errno;
  forget(gva, gva + bytes);
  regions_[gva] = {gva + bytes, protection};
  return 0;
}

std::int64_t AddressSpace::remap(std::uint64_t gva, std::uint64_t old_bytes, std::uint64_t new_bytes, int flags) {
  if (!is_aligned(gva, kPageSize) || new_bytes == 0 || old_bytes == 0 || (flags & ~MREMAP_MAYMOVE) != 0) return -EINVAL;
  if (old_bytes > kSizeBytes || new_bytes > kSizeBytes) return -ENOMEM;
  old_bytes = pages(old_bytes);
  new_bytes = pages(new_bytes);
  if (!flat_.contains(gva, old_bytes)) return -EFAULT;
  if (new_bytes <= old_bytes) {
    if (new_bytes < old_bytes) unmap(gva + new_bytes, old_bytes - new_bytes);
    return static_cast<std::int64_t>(gva);
  }
  const std::lock_guard lock(mutex_);
  auto region = regions_.upper_bound(gva);
  if (region == regions_.begin() || (--region)->second.end < gva + old_bytes) return -EFAULT;
  const int protection = region->second.protection;
  if ((flags & MREMAP_MAYMOVE) == 0) return -ENOMEM;
  const std::uint64_t moved = find_free(new_bytes);
  if (moved == 0) return -ENOMEM;
  if (::mremap(flat_.host(gva), old_bytes, new_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, flat_.host(moved)) == MAP_FAILED) {
    return -errno;
  }
  if (!reserve(gva, old_bytes)) return -errno;
  forget(gva, gva + old_bytes);
  regions_[moved] = {moved + new_bytes, protection};
  return static_cast<std::int64_t>(moved);
}

void AddressSpace::start_break_at(std::uint64_t gva) { break_start_ = break_ = pages(gva); }

std::int64_t AddressSpace::set_break(std::uint64_t gva) {
  if (gva >= break_start_ && gva < kHighestFree) {
    const std::uint64_t now = pages(break_), wanted = pages(gva);
    const bool done = wanted == now ||
                      (wanted < now ? unmap(wanted, now - wanted) == 0
                                    : map(now, wanted - now, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) > 0);
    if (done) break_ = gva;
  }
  return static_cast<std::int64_t>(break_);
}

}  // namespace doppel::process
