#include "memory/guest_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/unique_fd.h"

namespace doppel {

GuestMemory::~GuestMemory() {
  for (Region& region : regions_) {
    region.ahead.reset();
    ::munmap(region.host, region.range.size_bytes);
    ::close(region.file);
  }
}

Result<void> GuestMemory::add_ram(GuestPhysicalRange range) {
  if (range.size_bytes == 0 || !is_aligned(range.start.value, kPageSize) ||
      !is_aligned(range.size_bytes, kPageSize)) {
    return fail("guest memory of {} bytes at {:#x} is not made of whole pages", range.size_bytes,
                range.start.value);
  }
  for (const Region& region : regions_) {
    if (region.range.overlaps(range)) {
      return fail("guest memory at {:#x} overlaps that at {:#x}", range.start.value,
                  region.range.start.value);
    }
  }
  UniqueFd file(::memfd_create("guest-memory", MFD_CLOEXEC));
  void* host = MAP_FAILED;
  if (file && ::ftruncate(file.get(), static_cast<off_t>(range.size_bytes)) == 0) {
    host = ::mmap(nullptr, range.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file.get(), 0);
  }
  if (host == MAP_FAILED) {
    return fail_errno(errno, "the host cannot provide {} MiB of guest memory", range.size_bytes >> 20);
  }
  ::madvise(host, range.size_bytes, MADV_HUGEPAGE);
  regions_.push_back({range, static_cast<std::byte*>(host), file.release()});
  return {};
}

void GuestMemory::populate_ahead() {
  for (Region& region : regions_) region.ahead = std::make_unique<PopulateAhead>(region.host, region.range.size_bytes);
}

std::uint64_t GuestMemory::size_bytes() const {
  std::uint64_t total = 0;
  for (const Region& region : regions_) total += region.range.size_bytes;
  return total;
}

bool GuestMemory::map_again(std::byte* at, GuestPhysical gpa, std::uint64_t bytes, bool writable,
                            bool populate) const {
  for (const Region& region : regions_) {
    if (!region.range.contains(gpa, bytes)) continue;
    const int protection = PROT_READ | (writable ? PROT_WRITE : 0);
    const auto offset = static_cast<off_t>(gpa - region.range.start);
    return ::mmap(at, bytes, protection, MAP_SHARED | MAP_FIXED | (populate ? MAP_POPULATE : 0), region.file, offset) != MAP_FAILED;
  }
  return false;
}

bool GuestMemory::read(GuestPhysical gpa, std::span<std::byte> into) const {
  const std::byte* at = host(gpa, into.size());
  if (at == nullptr) return false;
  std::memcpy(into.data(), at, into.size());
  return true;
}

bool GuestMemory::write(GuestPhysical gpa, std::span<const std::byte> from) const {
  std::byte* at = host(gpa, from.size());
  if (at == nullptr) return false;
  std::memcpy(at, from.data(), from.size());
  return true;
}

}  // namespace doppel
