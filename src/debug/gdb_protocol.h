// Packets of GDB's remote serial protocol ("Debugging with GDB", appendix "GDB Remote Serial Protocol"): framing,
// checksums, escapes, and the numbers in them.
//
// Pure functions of bytes, for whatever thread has them. A peer may send anything: what is no packet is skipped,
// and no packet grows beyond a limit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace doppel::debug {

// What the peer sent, piece by piece.
struct GdbInput {
  enum class Kind : std::uint8_t {
    kPacket,       // payload holds it, without escapes
    kDamaged,      // a packet with a wrong checksum, or one that is too long
    kAcknowledge,  // '+'
    kRepeat,       // '-': send the last packet again
    kInterrupt,    // 0x03 between packets
  };
  Kind kind;
  std::string payload;
};

class GdbDecoder {
 public:
  // Longer packets are damaged. PacketSize in our answer to qSupported says so to the peer.
  static constexpr std::size_t kMaxPayload = 0x4000;

  // Gives `bytes` to next().
  void feed(std::string_view bytes) { pending_.append(bytes); }
  std::optional<GdbInput> next();
  // Bytes fed that next() has not looked at.
  std::size_t pending() const { return pending_.size() - position_; }

 private:
  enum class Where : std::uint8_t { kBetween, kPayload, kEscape, kChecksumHigh, kChecksumLow };

  std::optional<GdbInput> take(std::uint8_t byte);

  std::string pending_;
  std::size_t position_ = 0;
  Where where_ = Where::kBetween;
  std::string payload_;
  std::uint8_t sum_ = 0;
  unsigned claimed_ = 0;  // the checksum that the packet names
  bool damaged_ = false;
};

// A packet with this payload, ready to be sent: escaped, with its checksum.
std::string gdb_packet(std::string_view payload);

// Bytes as pairs of hexadecimal digits.
std::string to_hex(std::string_view bytes);
std::string to_hex(std::uint64_t number);  // without leading zeros
// nullopt for an odd count, or anything but digits.
std::optional<std::string> from_hex(std::string_view digits);

// Reads a packet's fields from the front. What is missing or wrong shows in the returned values.
class GdbFields {
 public:
  explicit GdbFields(std::string_view text) : rest_(text) {}

  std::string_view rest() const { return rest_; }
  bool empty() const { return rest_.empty(); }
  bool skip(char expected);
  bool skip(std::string_view expected);
  // A hexadecimal number: all its digits, of which there are 1 to 16.
  std::optional<std::uint64_t> number();
  // All up to `end`, which is passed over; all that is left when it does not come.
  std::string_view until(char end);

 private:
  std::string_view rest_;
};

}  // namespace doppel::debug
