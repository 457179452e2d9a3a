// The one versioned state format: a tree of named nodes, each with a version and named values.
//
// Snapshot, fork, migration and crash dumps are uses of it. A part writes itself into a node; a part is
// restored by constructing it from a node. Single-threaded; the tree is plain data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
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

 private:
  const StateNode* node_;
  std::string path_;
};

// The tree as bytes (little-endian, length-prefixed, magic and format version first) and back. Decoding
// treats its input as hostile: lengths are checked, depth is bounded.
std::vector<std::byte> encode(const StateNode& root);
Result<StateNode> decode(std::span<const std::byte> bytes);

}  // namespace doppel
