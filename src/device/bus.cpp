#include "device/bus.h"

#include <algorithm>
#include <mutex>

#include "base/bits.h"

namespace doppel {

namespace {

constexpr std::uint64_t truncate(std::uint64_t value, Width width) {
  return bits(value, bytes_of(width) * 8 - 1, 0);
}

}  // namespace

Result<void> Bus::map(GuestPhysicalRange range, Device& device) {
  for (const Mapping& other : mappings_) {
    if (other.range.overlaps(range)) {
      return fail("{} at {:#x} overlaps {} at {:#x}", device.name(), range.start.value, other.device->name(),
                  other.range.start.value);
    }
  }
  const auto after = std::ranges::upper_bound(mappings_, range.start, {},
                                              [](const Mapping& mapping) { return mapping.range.start; });
  mappings_.insert(after, {range, &device});
  return {};
}

const Bus::Mapping* Bus::find(GuestPhysical gpa, unsigned bytes) const {
  if (!is_aligned(gpa.value, bytes)) return nullptr;
  const auto after = std::ranges::upper_bound(mappings_, gpa, {},
                                              [](const Mapping& mapping) { return mapping.range.start; });
  if (after == mappings_.begin()) return nullptr;
  const Mapping& mapping = *(after - 1);
  return mapping.range.contains(gpa, bytes) ? &mapping : nullptr;
}

std::optional<std::uint64_t> Bus::read(GuestPhysical gpa, Width width) const {
  const Mapping* mapping = find(gpa, bytes_of(width));
  if (mapping == nullptr) return std::nullopt;
  const std::lock_guard lock(mapping->device->monitor());
  return truncate(mapping->device->read({gpa - mapping->range.start}, width), width);
}

bool Bus::write(GuestPhysical gpa, Width width, std::uint64_t value) const {
  const Mapping* mapping = find(gpa, bytes_of(width));
  if (mapping == nullptr) return false;
  const std::lock_guard lock(mapping->device->monitor());
  mapping->device->write({gpa - mapping->range.start}, width, truncate(value, width));
  return true;
}

}  // namespace doppel
