// Reads little-endian integers out of files from strangers: every access is checked against the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

namespace doppel {

using Bytes = std::span<const std::byte>;

struct FileRange {
  std::uint64_t offset = 0;
  std::uint64_t size_bytes = 0;
};

template <class T>
std::optional<T> read_at(Bytes bytes, std::uint64_t offset) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

// [offset, offset + size) of `bytes`, where all of it exists.
inline std::optional<Bytes> slice(Bytes bytes, std::uint64_t offset, std::uint64_t size) {
  if (offset > bytes.size() || bytes.size() - offset < size) return std::nullopt;
  return bytes.subspan(offset, size);
}

inline bool has_text_at(Bytes bytes, std::uint64_t offset, std::string_view text) {
  const auto part = slice(bytes, offset, text.size());
  return part && std::memcmp(part->data(), text.data(), text.size()) == 0;
}

}  // namespace doppel
