// Guest RAM: guest-physical ranges backed by host mappings, filled with zeros, populated on first touch or a little
// before. Each is an anonymous file of the host, so that pages of it can be mapped a second time (memory/shadow_space.h).
//
// The map is fixed once the machine is built, so lookups take no lock. Harts and devices access the bytes
// concurrently, as hardware does: ordering is the guest's affair, and no access is torn below its natural
// alignment. Every guest-supplied address is checked here before it becomes a host pointer.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "memory/address.h"
#include "memory/populate_ahead.h"

namespace doppel {

class GuestMemory {
 public:
  struct Region {
    GuestPhysicalRange range;
    std::byte* host = nullptr;  // page-aligned, range.size_bytes long
    int file = -1;              // whose bytes these are, from its beginning on
    std::unique_ptr<PopulateAhead> ahead{};  // may be null
  };

  GuestMemory() = default;
  GuestMemory(GuestMemory&& other) noexcept : regions_(std::exchange(other.regions_, {})) {}
  GuestMemory& operator=(GuestMemory&&) = delete;
  ~GuestMemory();

  // Adds RAM at `range` (page-aligned, overlapping no earlier region). Fails when the host has no address
  // space or memory to give.
  Result<void> add_ram(GuestPhysicalRange range);

  // From now on the host is asked for pages of the RAM there is before the guest comes to them.
  void populate_ahead();

  std::span<const Region> regions() const { return regions_; }
  std::uint64_t size_bytes() const;

  // The host bytes behind [gpa, gpa + bytes), or nullptr where that is not all one region of RAM.
  std::byte* host(GuestPhysical gpa, std::uint64_t bytes) const {
    for (const Region& region : regions_) {
      if (!region.range.contains(gpa, bytes)) continue;
      const std::uint64_t offset = gpa - region.range.start;
      if (region.ahead != nullptr) region.ahead->note(offset, bytes);
      return region.host + offset;
    }
    return nullptr;
  }

  // Maps the RAM [gpa, gpa + bytes), whole pages, at `at` as well, in place of what is there; with `populate` so that the
  // first accesses do not fault. False where that is not all one region of RAM, or the host has no room for another mapping;
  // then nothing has changed.
  [[nodiscard]] bool map_again(std::byte* at, GuestPhysical gpa, std::uint64_t bytes, bool writable, bool populate) const;

  // Copies; false (and nothing copied) when any byte is outside RAM.
  [[nodiscard]] bool read(GuestPhysical gpa, std::span<std::byte> into) const;
  [[nodiscard]] bool write(GuestPhysical gpa, std::span<const std::byte> from) const;

  // One naturally aligned little-endian value, read or written at once, with acquire or release order:
  // what a virtqueue's indices need. nullopt or false when misaligned or outside RAM.
  template <class T>
  [[nodiscard]] std::optional<T> load(GuestPhysical gpa) const {
    static_assert(std::is_unsigned_v<T>);
    std::byte* at = host(gpa, sizeof(T));
    if (at == nullptr || gpa.value % sizeof(T) != 0) return std::nullopt;
    // The pointer is inside a mapping, checked and aligned above.
    return std::atomic_ref<T>(*reinterpret_cast<T*>(at)).load(std::memory_order_acquire);
  }
  template <class T>
  [[nodiscard]] bool store(GuestPhysical gpa, T value) const {
    static_assert(std::is_unsigned_v<T>);
    std::byte* at = host(gpa, sizeof(T));
    if (at == nullptr || gpa.value % sizeof(T) != 0) return false;
    std::atomic_ref<T>(*reinterpret_cast<T*>(at)).store(value, std::memory_order_release);
    return true;
  }

 private:
  std::vector<Region> regions_;
};

}  // namespace doppel
