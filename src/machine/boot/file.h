// Files that a machine boots from: opened, their size known, and read to where they are wanted.
//
// A file is never mapped: others may change it while it is read, and one that has become shorter is to be a sentence and no
// signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "machine/boot/bytes.h"

namespace doppel {

class BootFile {
 public:
  // Fails when the file at `path` is missing, unreadable, empty, a directory, or larger than `limit_bytes`. What does not
  // tell its size (a pipe) is read to its end here.
  static Result<BootFile> open(const std::string& path, std::size_t limit_bytes);

  // A file whose bytes are there already. `name` begins the sentences about it.
  BootFile(std::string name, std::vector<std::byte> bytes)
      : name_(std::move(name)), size_bytes_(bytes.size()), held_(std::move(bytes)) {}

  const std::string& name() const { return name_; }
  std::uint64_t size_bytes() const { return size_bytes_; }

  // Its first 4 KiB at least, or all of it: what tells one kind of file from another.
  Bytes head() const { return held_; }

  // The little-endian integer at `offset`, where the file has all of it.
  template <class T>
  std::optional<T> at(std::uint64_t offset) const {
    static_assert(std::is_integral_v<T>);
    T value;
    if (!has({offset, sizeof value})) return std::nullopt;
    if (!read_into(offset, std::as_writable_bytes(std::span(&value, 1)))) return std::nullopt;
    return value;
  }

  bool has(FileRange range) const {
    return range.offset <= size_bytes_ && range.size_bytes <= size_bytes_ - range.offset;
  }

  // Fills `into` with what lies at `offset`.
  Result<void> read_into(std::uint64_t offset, std::span<std::byte> into) const;

  // All of it, from now on in memory.
  Result<Bytes> bytes();

 private:
  BootFile(std::string name, std::uint64_t size_bytes, UniqueFd fd)
      : name_(std::move(name)), size_bytes_(size_bytes), fd_(std::move(fd)) {}

  Result<void> hold(std::uint64_t size_bytes);

  std::string name_;
  std::uint64_t size_bytes_ = 0;
  std::vector<std::byte> held_;  // the file's beginning, or all of it
  UniqueFd fd_;
};

}  // namespace doppel
