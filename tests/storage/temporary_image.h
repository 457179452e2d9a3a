// A file that lives as long as the test.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "base/unique_fd.h"

namespace doppel::test {

class TemporaryImage {
 public:
  // `size_bytes` zeros.
  explicit TemporaryImage(std::uint64_t size_bytes)
      : path_((std::filesystem::temp_directory_path() / "doppel-image-XXXXXX").string()) {
    fd_ = UniqueFd(::mkstemp(path_.data()));
    truncate(size_bytes);
  }
  ~TemporaryImage() { ::unlink(path_.c_str()); }
  TemporaryImage(const TemporaryImage&) = delete;
  TemporaryImage& operator=(const TemporaryImage&) = delete;

  const std::string& path() const { return path_; }

  void truncate(std::uint64_t size_bytes) const {
    if (::ftruncate(fd_.get(), static_cast<off_t>(size_bytes)) != 0) std::abort();
  }
  std::vector<std::byte> bytes(std::uint64_t offset, std::size_t size) const {
    std::vector<std::byte> content(size);
    const ssize_t got = ::pread(fd_.get(), content.data(), size, static_cast<off_t>(offset));
    content.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
    return content;
  }
  void fill(std::uint64_t offset, const std::vector<std::byte>& content) const {
    if (::pwrite(fd_.get(), content.data(), content.size(), static_cast<off_t>(offset)) !=
        static_cast<ssize_t>(content.size())) {
      std::abort();
    }
  }

 private:
  std::string path_;
  UniqueFd fd_;
};

}  // namespace doppel::test
