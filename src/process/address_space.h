// The address space of one guest program: a reservation of host addresses, and which parts of it are mapped how.
//
// Guest mappings are host mappings at base + address; execution by the guest is reading to the host. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "base/result.h"
#include "memory/flat_memory.h"

namespace doppel::process {

class AddressSpace {
 public:
  static constexpr std::uint64_t kSizeBytes = std::uint64_t{1} << 38;  // what Linux gives programs on Sv39

  static Result<std::unique_ptr<AddressSpace>> create();
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  const FlatMemory& flat() const { return flat_; }
  // Whether all of `protection` (PROT_ bits) is allowed at gva.
  bool allows(std::uint64_t gva, int protection) const;

  // As the system calls of these names: arguments are the guest's and untrusted; -errno on failure.
  std::int64_t map(std::uint64_t gva, std::uint64_t bytes, int protection, int flags, int fd, std::uint64_t offset);
  std::int64_t unmap(std::uint64_t gva, std::uint64_t bytes);
  std::int64_t protect(std::uint64_t gva, std::uint64_t bytes, int protection);
  std::int64_t remap(std::uint64_t gva, std::uint64_t old_bytes, std::uint64_t new_bytes, int flags);
  std::int64_t set_break(std::uint64_t gva);
  void start_break_at(std::uint64_t gva);

 private:
  struct Region {
    std::uint64_t end;
    int protection;
  };

  AddressSpace() = default;
  // Under mutex_.
  void forget(std::uint64_t start, std::uint64_t end);
  bool reserve(std::uint64_t start, std::uint64_t bytes);
  bool is_free(std::uint64_t start, std::uint64_t bytes) const;
  std::uint64_t find_free(std::uint64_t bytes) const;  // 0: none

  FlatMemory flat_;
  mutable std::mutex mutex_;
  std::map<std::uint64_t, Region> regions_;  // by start
  std::uint64_t break_start_ = 0, break_ = 0;
};

}  // namespace doppel::process
