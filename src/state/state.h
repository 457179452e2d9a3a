// The one versioned state format: a tree of named nodes, each with a version and named values.
//
// Snapshot, fork, migration and crash dumps are uses of it. A part writes itself into a node; a part is
// restored by constructing it from a node. Single-threaded; the tree is plain data.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace doppel {

struct StateNode {
  std::uint32_t version = 1;
  std::map<std::string, std::variant<std::uint64_t, std::vector<std::byte>>, std::less<>> values;
  std::map<std::string, StateNode, std::less<>> children;
};

// Fills one node. Names are unique in a node; writing one twice is our bug and asserts.
class StateWriter {
 public:
  explicit StateWriter(StateNode& node) : node_(&node) {}

  void version(std::uint32_t number) { node_->version = number; }
  void number(std::string_view name, std::uint64_t value);
  void bytes(std::string_view name, std::span<const std::byte> value);
  void numbers(std::string_view name, std::span<const std::uint64_t> values);
  [[nodiscard]] StateWriter child(std::string_view name);

 private:
  StateNode* node_;
};

// Reads one node. A missing or mistyped value is an error that names its path ("harts/0/pc").
class StateReader {
 public:
  StateReader(const StateNode& node, std::string path) : node_(&node), path_(std::move(path)) {}

  std::uint32_t version() const { return node_->version; }
  Result<std::uint64_t> number(std::string_view name) const;
  Result<std::span<const std::byte>> bytes(std::string_view name) const;
  Result<std::vector<std::uint64_t>> numbers(std::string_view name) const;
  Result<StateReader> child(std::string_view name) const;
  const std::string& path() const { return path_; }
  std::string path_of(std::string_view name) const;  // of a value or child of this node

 private:
  const StateNode* node_;
  std::string path_;
};

// Reads the values of one node into variables, for restoring from input that nobody vouches for: a value
// must fit its variable. The first failure sticks, and what is read after it stays as it was.
//
//   StateFields fields(reader);
//   fields.read("control", control_).read("pending", pending_);
//   return fields.result();
class StateFields {
 public:
  explicit StateFields(const StateReader& reader) : reader_(reader) {}

  // One number; a bool must be 0 or 1.
  template <std::unsigned_integral T>
  StateFields& read(std::string_view name, T& into) {
    const std::uint64_t value = number(name, std::numeric_limits<T>::max());
    if (!error_) into = static_cast<T>(value);
    return *this;
  }
  // As many numbers as `into` has room for, exactly.
  StateFields& read(std::string_view name, std::span<std::uint64_t> into);
  StateFields& read(std::string_view name, std::vector<std::byte>& into, std::size_t max_bytes);

  // Fails when the condition does not hold: "saved state: <path of name> <complaint>".
  StateFields& require(bool holds, std::string_view name, std::string_view complaint = "is out of range");

  Result<void> result() const {
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  std::uint64_t number(std::string_view name, std::uint64_t max);

  StateReader reader_;
  std::optional<Error> error_;
};

// The tree as bytes (little-endian, length-prefixed, magic and format version first) and back. Decoding
// treats its input as hostile: lengths are checked, depth is bounded.
std::vector<std::byte> encode(const StateNode& root);
Result<StateNode> decode(std::span<const std::byte> bytes);

}  // namespace doppel
