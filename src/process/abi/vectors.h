// The iovec arrays of a guest as the host gets them: copies, whose pointers lead into the guest's memory or nowhere.
#pragma once

#include <sys/uio.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <span>
#include <vector>

#include "process/abi/linux_process.h"

namespace doppel::process {

inline constexpr std::size_t kFewVectors = 16;

class HostVectors {
 public:
  // Of `count` at gva; `few` holds them if they fit.
  HostVectors(const LinuxProcess& process, std::uint64_t gva, std::uint64_t count, std::span<iovec> few) {
    if (count > IOV_MAX) {
      failed_ = -EINVAL;
      return;
    }
    if (count > few.size()) {
      many_.resize(count);
      few = many_;
    }
    parts_ = few.first(count);
    if (!process.read(gva, parts_.data(), count * sizeof(iovec))) {
      failed_ = -EFAULT;
      return;
    }
    for (iovec& part : parts_) part.iov_base = process.pointer(reinterpret_cast<std::uint64_t>(part.iov_base));
  }
  HostVectors(const HostVectors&) = delete;
  HostVectors& operator=(const HostVectors&) = delete;

  std::int64_t failed() const { return failed_; }  // -errno, or 0
  iovec* data() const { return parts_.data(); }
  std::uint64_t address() const { return reinterpret_cast<std::uint64_t>(parts_.data()); }

 private:
  std::int64_t failed_ = 0;
  std::vector<iovec> many_;
  std::span<iovec> parts_;
};

}  // namespace doppel::process
