#include "state/state.h"

#include <cassert>
#include <limits>
#include <optional>

namespace doppel {

namespace {

// The byte form, all integers little-endian:
//   stream: "DOPPELST", u32 format, node
//   node:   u32 version, u32 count, count values, u32 count, count children
//   value:  u16 length, name, u8 kind, then u64 number (kind 0) or u64 length and bytes (kind 1)
//   child:  u16 length, name, node
constexpr std::string_view kMagic = "DOPPELST";
constexpr std::uint32_t kFormat = 1;
constexpr unsigned kMaxDepth = 32;  // a machine's tree is four deep
enum Kind : std::uint8_t { kNumber = 0, kBytes = 1 };

class Encoder {
 public:
  template <class T>
  void integer(T value) {
    for (unsigned shift = 0; shift < sizeof(T) * 8; shift += 8) {
      out.push_back(static_cast<std::byte>(static_cast<std::uint64_t>(value) >> shift));
    }
  }

  void raw(std::span<const std::byte> bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

  void name(std::string_view text) {
    assert(text.size() <= std::numeric_limits<std::uint16_t>::max());
    integer(static_cast<std::uint16_t>(text.size()));
    raw(std::as_bytes(std::span(text)));
  }

  void node(const StateNode& node_in) {
    integer(node_in.version);
    integer(static_cast<std::uint32_t>(node_in.values.size()));
    for (const auto& [key, value] : node_in.values) {
      name(key);
      if (const auto* number = std::get_if<std::uint64_t>(&value)) {
        integer(kNumber);
        integer(*number);
      } else {
        const auto& bytes = std::get<std::vector<std::byte>>(value);
        integer(kBytes);
        integer(std::uint64_t{bytes.size()});
        raw(bytes);
      }
    }
    integer(static_cast<std::uint32_t>(node_in.children.size()));
    for (const auto& [key, child] : node_in.children) {
      name(key);
      node(child);
    }
  }

  std::vector<std::byte> out;
};

// Every function returns nothing once the input has proved wrong, and `error` says why. Counts are never
// trusted for an allocation: memory use stays proportional to the input.
class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> input) : input_(input), rest_(input) {}

  std::optional<Error> error;

  std::size_t offset() const { return input_.size() - rest_.size(); }
  bool at_end() const { return rest_.empty(); }

  void reject(std::string_view why) {
    if (!error) error = Error{fmt::format("saved state is damaged at byte {}: {}", offset(), why)};
  }

  std::span<const std::byte> raw(std::uint64_t size) {
    if (error || size > rest_.size()) {
      reject("it ends too early");
      return {};
    }
    const auto taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }

  template <class T>
  T integer() {
    std::uint64_t value = 0;
    unsigned shift = 0;
    for (const std::byte byte : raw(sizeof(T))) {
      value |= std::to_integer<std::uint64_t>(byte) << shift;
      shift += 8;
    }
    return static_cast<T>(value);
  }

  std::string name() {
    const auto text = raw(integer<std::uint16_t>());
    // A char may alias any byte.
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  void value(StateNode& into) {
    const std::string key = name();
    const auto kind = integer<std::uint8_t>();
    if (error) return;
    auto [slot, is_new] = into.values.try_emplace(key);
    if (!is_new) return reject("a name occurs twice");
    if (kind == kNumber) {
      slot->second = integer<std::uint64_t>();
    } else if (kind == kBytes) {
      const auto bytes = raw(integer<std::uint64_t>());
      slot->second = std::vector(bytes.begin(), bytes.end());
    } else {
      reject("a value is of an unknown kind");
    }
  }

  void node(StateNode& into, unsigned depth) {
    if (depth == kMaxDepth) return reject("it is nested too deeply");
    into.version = integer<std::uint32_t>();
    for (auto left = integer<std::uint32_t>(); left != 0 && !error; --left) value(into);
    for (auto left = integer<std::uint32_t>(); left != 0 && !error; --left) {
      const std::string key = name();
      if (error) return;
      auto [slot, is_new] = into.children.try_emplace(key);
      if (!is_new) return reject("a name occurs twice");
      node(slot->second, depth + 1);
    }
  }

 private:
  std::span<const std::byte> input_;
  std::span<const std::byte> rest_;
};

}  // namespace

void StateWriter::number(std::string_view name, std::uint64_t value) {
  [[maybe_unused]] const bool is_new = node_->values.emplace(name, value).second;
  assert(is_new);
}

void StateWriter::bytes(std::string_view name, std::span<const std::byte> value) {
  [[maybe_unused]] const bool is_new =
      node_->values.emplace(name, std::vector(value.begin(), value.end())).second;
  assert(is_new);
}

void StateWriter::numbers(std::string_view name, std::span<const std::uint64_t> values) {
  Encoder encoder;
  for (const std::uint64_t value : values) encoder.integer(value);
  bytes(name, encoder.out);
}

StateWriter StateWriter::child(std::string_view name) {
  const auto [slot, is_new] = node_->children.try_emplace(std::string(name));
  assert(is_new);
  return StateWriter(slot->second);
}

std::string StateReader::path_of(std::string_view name) const {
  return path_.empty() ? std::string(name) : fmt::format("{}/{}", path_, name);
}

Result<std::uint64_t> StateReader::number(std::string_view name) const {
  const auto found = node_->values.find(name);
  if (found == node_->values.end()) return fail("saved state has no {}", path_of(name));
  const auto* number = std::get_if<std::uint64_t>(&found->second);
  if (number == nullptr) return fail("saved state: {} is not a number", path_of(name));
  return *number;
}

Result<std::span<const std::byte>> StateReader::bytes(std::string_view name) const {
  const auto found = node_->values.find(name);
  if (found == node_->values.end()) return fail("saved state has no {}", path_of(name));
  const auto* bytes = std::get_if<std::vector<std::byte>>(&found->second);
  if (bytes == nullptr) return fail("saved state: {} is not a run of bytes", path_of(name));
  return std::span<const std::byte>(*bytes);
}

Result<std::vector<std::uint64_t>> StateReader::numbers(std::string_view name) const {
  const auto packed = bytes(name);
  if (!packed) return std::unexpected(packed.error());
  if (packed->size() % 8 != 0) return fail("saved state: {} is not made of whole numbers", path_of(name));
  std::vector<std::uint64_t> values;
  values.reserve(packed->size() / 8);
  Decoder decoder(*packed);
  while (!decoder.at_end()) values.push_back(decoder.integer<std::uint64_t>());
  return values;
}

Result<StateReader> StateReader::child(std::string_view name) const {
  const auto found = node_->children.find(name);
  if (found == node_->children.end()) return fail("saved state has no {}", path_of(name));
  return StateReader(found->second, path_of(name));
}

std::uint64_t StateFields::number(std::string_view name, std::uint64_t max) {
  if (error_) return 0;
  const auto value = reader_.number(name);
  if (!value) {
    error_ = value.error();
    return 0;
  }
  require(*value <= max, name, "is out of range");
  return error_ ? 0 : *value;
}

StateFields& StateFields::read(std::string_view name, std::span<std::uint64_t> into) {
  if (error_) return *this;
  const auto values = reader_.numbers(name);
  if (!values) {
    error_ = values.error();
    return *this;
  }
  require(values->size() == into.size(), name, "has the wrong length");
  if (!error_) std::ranges::copy(*values, into.begin());
  return *this;
}

StateFields& StateFields::read(std::string_view name, std::vector<std::byte>& into, std::size_t max_bytes) {
  if (error_) return *this;
  const auto bytes = reader_.bytes(name);
  if (!bytes) {
    error_ = bytes.error();
    return *this;
  }
  require(bytes->size() <= max_bytes, name, "is too long");
  if (!error_) into.assign(bytes->begin(), bytes->end());
  return *this;
}

StateFields& StateFields::require(bool holds, std::string_view name, std::string_view complaint) {
  if (!error_ && !holds) error_ = Error{fmt::format("saved state: {} {}", reader_.path_of(name), complaint)};
  return *this;
}

std::vector<std::byte> encode(const StateNode& root) {
  Encoder encoder;
  encoder.raw(std::as_bytes(std::span(kMagic)));
  encoder.integer(kFormat);
  encoder.node(root);
  return std::move(encoder.out);
}

Result<StateNode> decode(std::span<const std::byte> bytes) {
  Decoder decoder(bytes);
  const auto magic = decoder.raw(kMagic.size());
  if (decoder.error || !std::ranges::equal(magic, std::as_bytes(std::span(kMagic)))) {
    return fail("this is not a saved state of Doppel");
  }
  const auto format = decoder.integer<std::uint32_t>();
  if (!decoder.error && format != kFormat) {
    return fail("saved state is in format {}, and this version reads format {}", format, kFormat);
  }
  StateNode root;
  decoder.node(root, 0);
  if (!decoder.error && !decoder.at_end()) decoder.reject("more follows its end");
  if (decoder.error) return std::unexpected(*decoder.error);
  return root;
}

}  // namespace doppel
