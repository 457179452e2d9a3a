#include "debug/gdb_protocol.h"

#include <charconv>
#include <utility>

namespace doppel::debug {
namespace {

constexpr char kEscape = '}';
constexpr std::uint8_t kEscapeFlip = 0x20;
constexpr std::uint8_t kInterruptByte = 0x03;

std::optional<unsigned> digit(std::uint8_t c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

}  // namespace

std::optional<GdbInput> GdbDecoder::next() {
  while (position_ < pending_.size()) {
    if (std::optional<GdbInput> input = take(static_cast<std::uint8_t>(pending_[position_++]))) return input;
  }
  pending_.clear();
  position_ = 0;
  return std::nullopt;
}

std::optional<GdbInput> GdbDecoder::take(std::uint8_t byte) {
  using Kind = GdbInput::Kind;
  // A packet that begins where none should: the rest of the one before it got lost.
  if (byte == '$') {
    where_ = Where::kPayload;
    payload_.clear();
    sum_ = 0;
    damaged_ = false;
    return std::nullopt;
  }
  const auto append = [&](std::uint8_t value) {
    if (payload_.size() < kMaxPayload) {
      payload_.push_back(static_cast<char>(value));
    } else {
      damaged_ = true;
    }
  };
  switch (where_) {
    case Where::kBetween:
      if (byte == '+') return GdbInput{Kind::kAcknowledge, {}};
      if (byte == '-') return GdbInput{Kind::kRepeat, {}};
      if (byte == kInterruptByte) return GdbInput{Kind::kInterrupt, {}};
      return std::nullopt;
    case Where::kPayload:
      if (byte == '#') {
        where_ = Where::kChecksumHigh;
        return std::nullopt;
      }
      sum_ = static_cast<std::uint8_t>(sum_ + byte);
      if (byte == kEscape) {
        where_ = Where::kEscape;
      } else {
        append(byte);
      }
      return std::nullopt;
    case Where::kEscape:
      if (byte == '#') {  // an escape of nothing
        damaged_ = true;
        where_ = Where::kChecksumHigh;
        return std::nullopt;
      }
      sum_ = static_cast<std::uint8_t>(sum_ + byte);
      append(byte ^ kEscapeFlip);
      where_ = Where::kPayload;
      return std::nullopt;
    case Where::kChecksumHigh:
      damaged_ = damaged_ || !digit(byte);
      claimed_ = digit(byte).value_or(0) << 4;
      where_ = Where::kChecksumLow;
      return std::nullopt;
    case Where::kChecksumLow: {
      damaged_ = damaged_ || !digit(byte) || (claimed_ | digit(byte).value_or(0)) != sum_;
      where_ = Where::kBetween;
      std::string payload = std::exchange(payload_, {});
      if (damaged_) return GdbInput{Kind::kDamaged, {}};
      return GdbInput{Kind::kPacket, std::move(payload)};
    }
  }
  return std::nullopt;
}

std::string gdb_packet(std::string_view payload) {
  std::string packet = "$";
  packet.reserve(payload.size() + 4);
  std::uint8_t sum = 0;
  const auto put = [&](char c) {
    packet.push_back(c);
    sum = static_cast<std::uint8_t>(sum + static_cast<std::uint8_t>(c));
  };
  for (const char c : payload) {
    // '*' would begin a run of repeated characters.
    if (c == '$' || c == '#' || c == kEscape || c == '*') {
      put(kEscape);
      put(static_cast<char>(c ^ kEscapeFlip));
    } else {
      put(c);
    }
  }
  const char check = static_cast<char>(sum);
  return packet.append("#").append(to_hex(std::string_view(&check, 1)));
}

std::string to_hex(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<std::uint8_t>(c);
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

std::string to_hex(std::uint64_t number) {
  char text[16];
  return {text, std::to_chars(text, text + sizeof text, number, 16).ptr};
}

std::optional<std::string> from_hex(std::string_view digits) {
  if (digits.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  bytes.reserve(digits.size() / 2);
  for (std::size_t i = 0; i < digits.size(); i += 2) {
    const auto high = digit(static_cast<std::uint8_t>(digits[i]));
    const auto low = digit(static_cast<std::uint8_t>(digits[i + 1]));
    if (!high || !low) return std::nullopt;
    bytes.push_back(static_cast<char>(*high << 4 | *low));
  }
  return bytes;
}

bool GdbFields::skip(char expected) {
  if (rest_.empty() || rest_.front() != expected) return false;
  rest_.remove_prefix(1);
  return true;
}

bool GdbFields::skip(std::string_view expected) {
  if (!rest_.starts_with(expected)) return false;
  rest_.remove_prefix(expected.size());
  return true;
}

std::optional<std::uint64_t> GdbFields::number() {
  std::size_t length = 0;
  std::uint64_t value = 0;
  while (length < rest_.size()) {
    const auto next = digit(static_cast<std::uint8_t>(rest_[length]));
    if (!next) break;
    if (length == 16) return std::nullopt;
    value = value << 4 | *next;
    ++length;
  }
  if (length == 0) return std::nullopt;
  rest_.remove_prefix(length);
  return value;
}

std::string_view GdbFields::until(char end) {
  const std::size_t length = rest_.find(end);
  const std::string_view field = rest_.substr(0, length);
  rest_.remove_prefix(length == std::string_view::npos ? rest_.size() : length + 1);
  return field;
}

}  // namespace doppel::debug
