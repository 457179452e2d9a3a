// Memory for translated code: one region, mapped twice. Code runs through a mapping that is never writable and
// is written through one that is never executable (W^X).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"

namespace doppel {

class CodeMemory {
 public:
  // Fails when the host refuses executable mappings.
  static Result<CodeMemory> create(std::size_t size_bytes);
  CodeMemory(CodeMemory&& other) noexcept;
  CodeMemory& operator=(CodeMemory&&) = delete;
  ~CodeMemory();

  // Appends; gives the offset of the copy, or nullopt when there is no room.
  std::optional<std::uint32_t> append(std::span<const std::byte> code);
  // Overwrites the 32-bit displacement at `at`, so that its jump goes to `target`. Other threads may run it meanwhile if it
  // lies in 8 bytes that are aligned.
  void patch_jump(std::uint32_t at, std::uint32_t target);
  // From now on code is appended in [begin, end), over what is there.
  void fill(std::uint32_t begin, std::uint32_t end) { next_ = begin, end_ = end; }

  const std::byte* code() const { return executable_; }
  std::size_t room() const { return end_ - next_; }  // for what is appended next
  std::uint32_t used() const { return used_; }       // so far, from the beginning
  std::size_t size() const { return size_; }

 private:
  CodeMemory() = default;

  std::byte* writable_ = nullptr;
  std::byte* executable_ = nullptr;
  std::size_t size_ = 0;
  std::uint32_t next_ = 0, end_ = 0;  // of what is appended
  std::uint32_t used_ = 0;
};

}  // namespace doppel
