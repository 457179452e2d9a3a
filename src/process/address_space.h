// The address space of one guest program: which parts of it are mapped, and what the program may do there.
//
// A guest mapping is a host mapping. Nothing of the host lies below kLowBytes, so a guest address is a host address
// (flat().base is null), and the host's kernel knows what is mapped, grows stacks and keeps limits as it does for its
// own programs. Where something is in the way, as a sanitizer's shadow, the guest gets a reservation elsewhere with
// guards around it; then what it has not mapped is reserved. Execution by the guest is reading to the host.
//
// Where the space is larger than that, as Sv48 and Sv57 have it, mappings lie beyond only if the program asks for a place
// there, or for more than fits below. The host has things of its own there, which no mapping replaces.
//
// Any thread, at any time: what changes mappings holds the mutex while it does.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/result.h"
#include "memory/flat_memory.h"

namespace doppel::process {

class AddressSpace {
 public:
  static constexpr std::uint64_t kLowBytes = std::uint64_t{1} << 38;  // what Linux gives programs on Sv39
  static constexpr std::uint64_t kLowest = 0x10000;                    // as vm.mmap_min_addr

  enum class Place { kIdentity, kElsewhere };  // the first falls back to the second

  static constexpr unsigned kLeastBits = 39;

  // `bits` as of the virtual addresses of Sv39, Sv48 or Sv57, of which programs have half.
  static Result<std::unique_ptr<AddressSpace>> create(Place place = Place::kIdentity, unsigned bits = kLeastBits);
  ~AddressSpace();
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  const FlatMemory& flat() const { return flat_; }
  // Whether all of `protection` (PROT_ bits) is allowed at gva.
  bool allows(std::uint64_t gva, int protection) const;
  // Whether what is mapped at gva comes from a file.
  bool is_of_file(std::uint64_t gva) const;

  // Whether something is mapped at each address of [gva, gva + bytes), whatever is allowed there.
  bool is_mapped(std::uint64_t gva, std::uint64_t bytes) const;

  struct Mapping {
    std::uint64_t start, end;
    int protection;  // the guest's
    bool grows;
  };
  std::vector<Mapping> mappings() const;  // by address; neighbours alike are one
  std::pair<std::uint64_t, std::uint64_t> break_range() const;

  // Called without the lock, on the thread that made the change, after one to pages of which some were or are now
  // executable. Set before there are threads.
  std::function<void(std::uint64_t gva, std::uint64_t bytes)> on_code_change;

  // Mappings that may lie anywhere lie below this, while there is room.
  void place_below(std::uint64_t gva);
  // A stack that ends at `end` and grows downwards as far as RLIMIT_STACK lets it.
  std::int64_t map_stack(std::uint64_t end, std::uint64_t bytes, int protection);

  // As the system calls of these names: arguments are the guest's and untrusted; -errno on failure.
  std::int64_t map(std::uint64_t gva, std::uint64_t bytes, int protection, int flags, int fd, std::uint64_t offset);
  std::int64_t unmap(std::uint64_t gva, std::uint64_t bytes);
  std::int64_t protect(std::uint64_t gva, std::uint64_t bytes, int protection);
  std::int64_t remap(std::uint64_t gva, std::uint64_t old_bytes, std::uint64_t new_bytes, int flags,
                     std::uint64_t new_gva);
  std::int64_t advise(std::uint64_t gva, std::uint64_t bytes, int advice);
  // shmat() and shmdt()
  std::int64_t attach(int segment, std::uint64_t gva, int flags);
  std::int64_t detach(std::uint64_t gva);
  std::int64_t set_break(std::uint64_t gva);
  void start_break_at(std::uint64_t gva);

  // To be held around fork(), so that the child gets no half of a change.
  std::mutex& mutex() { return mutex_; }

 private:
  struct Region {
    std::uint64_t end;
    int protection;
    bool grows = false;  // downwards, as MAP_GROWSDOWN says: its start is what it was when last looked at
    bool file = false;   // mapped from one
  };
  using Regions = std::map<std::uint64_t, Region>;  // by start; neighbours alike are one

  AddressSpace() = default;
  bool identity() const { return flat_.base == nullptr; }
  // The mapping at gva, or null. Under mutex_.
  const Region* region_at(std::uint64_t gva) const;
  // Under mutex_. `code` becomes true when a page in the range is executable before or after.
  void note(std::uint64_t start, Region region, bool& code);
  void forget(std::uint64_t start, std::uint64_t end, bool& code);
  bool release(std::uint64_t start, std::uint64_t bytes);
  std::int64_t map_locked(std::uint64_t gva, std::uint64_t bytes, int protection, int flags, int fd,
                          std::uint64_t offset, bool& code);
  std::int64_t unmap_locked(std::uint64_t gva, std::uint64_t bytes, bool& code);
  std::int64_t remap_locked(std::uint64_t gva, std::uint64_t old_bytes, std::uint64_t new_bytes, int flags,
                            std::uint64_t new_gva, bool& code);
  void grow_to(std::uint64_t gva) const;
  bool covered(std::uint64_t start, std::uint64_t end) const;
  bool is_free(std::uint64_t start, std::uint64_t bytes) const;
  // The first part of [start, end) in which nothing is mapped; empty, at its end, if there is none.
  struct Gap {
    std::uint64_t start, end;
  };
  Gap gap_in(std::uint64_t start, std::uint64_t end) const;
  // A range that ends beyond kLowBytes becomes the guest's, with nothing in it, or false. What comes of it is noted, or
  // given back by disclaim().
  bool claim(std::uint64_t start, std::uint64_t bytes) const;
  void disclaim(std::uint64_t start, std::uint64_t end) const;
  std::uint64_t find_free(std::uint64_t bytes) const;  // claimed; 0: none
  std::uint64_t find_free_below(std::uint64_t end, std::uint64_t bytes) const;
  std::int64_t tell(std::int64_t outcome, bool code, std::uint64_t gva, std::uint64_t bytes) const;

  FlatMemory flat_;
  mutable std::mutex mutex_;
  mutable Regions regions_;  // mutable for what has grown by itself
  std::uint64_t place_below_ = kLowBytes - (std::uint64_t{1} << 30);
  std::map<std::uint64_t, std::uint64_t> attached_;  // bytes by start
  std::uint64_t break_start_ = 0, break_ = 0;
};

}  // namespace doppel::process
