#include "debug/gdb_protocol.h"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace doppel::debug {
namespace {

using Kind = GdbInput::Kind;

std::vector<GdbInput> decode(std::string_view bytes) {
  GdbDecoder decoder;
  std::vector<GdbInput> inputs;
  // One byte at a time, as a network may bring them.
  for (const char c : bytes) {
    decoder.feed({&c, 1});
    while (auto input = decoder.next()) inputs.push_back(*input);
  }
  return inputs;
}

std::string payload_of(std::string_view bytes) {
  const auto inputs = decode(bytes);
  return inputs.size() == 1 && inputs[0].kind == Kind::kPacket ? inputs[0].payload : "(no packet)";
}

TEST(GdbPacket, HasAChecksum) {
  EXPECT_EQ(gdb_packet(""), "$#00");
  EXPECT_EQ(gdb_packet("OK"), "$OK#9a");
}

TEST(GdbPacket, EscapesWhatFramesIt) {
  EXPECT_EQ(gdb_packet("}"), "$}]#da");
  for (const std::string_view text : {"a$b", "#", "}}", "*", "}\x03$#*"}) EXPECT_EQ(payload_of(gdb_packet(text)), text);
}

TEST(GdbPacket, CarriesEveryByte) {
  std::string all;
  for (unsigned byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(payload_of(gdb_packet(all)), all);
}

TEST(GdbDecoder, SeesWhatStandsBetweenPackets) {
  const auto inputs = decode("+-\x03 x$g#67+");
  ASSERT_EQ(inputs.size(), 5u);
  EXPECT_EQ(inputs[0].kind, Kind::kAcknowledge);
  EXPECT_EQ(inputs[1].kind, Kind::kRepeat);
  EXPECT_EQ(inputs[2].kind, Kind::kInterrupt);
  EXPECT_EQ(inputs[3].payload, "g");
  EXPECT_EQ(inputs[4].kind, Kind::kAcknowledge);
}

TEST(GdbDecoder, AnInterruptByteInAPacketIsData) { EXPECT_EQ(payload_of("$\x03#03"), "\x03"); }

TEST(GdbDecoder, RefusesWrongChecksums) {
  for (const std::string_view bytes : {"$g#68", "$g#6x", "$g#zz", "$g}#e4"}) {
    const auto inputs = decode(bytes);
    ASSERT_EQ(inputs.size(), 1u) << bytes;
    EXPECT_EQ(inputs[0].kind, Kind::kDamaged) << bytes;
  }
}

TEST(GdbDecoder, APacketThatBeginsAnewReplacesTheBrokenOne) { EXPECT_EQ(payload_of("$lost$g#67"), "g"); }

TEST(GdbDecoder, BoundsPackets) {
  const auto longest = decode(gdb_packet(std::string(GdbDecoder::kMaxPayload, 'a')));
  ASSERT_EQ(longest.size(), 1u);
  EXPECT_EQ(longest[0].kind, Kind::kPacket);
  const auto longer = decode(gdb_packet(std::string(GdbDecoder::kMaxPayload + 1, 'a')));
  ASSERT_EQ(longer.size(), 1u);
  EXPECT_EQ(longer[0].kind, Kind::kDamaged);
}

TEST(Hex, GoesBothWays) {
  EXPECT_EQ(to_hex(std::string_view("\x00\x7f\xff", 3)), "007fff");
  EXPECT_EQ(from_hex("007fFF"), std::string("\x00\x7f\xff", 3));
  EXPECT_EQ(from_hex(""), "");
  EXPECT_EQ(from_hex("0"), std::nullopt);
  EXPECT_EQ(from_hex("0g"), std::nullopt);
  EXPECT_EQ(to_hex(std::uint64_t{0}), "0");
  EXPECT_EQ(to_hex(~std::uint64_t{0}), "ffffffffffffffff");
}

TEST(GdbFields, ReadsFromTheFront) {
  GdbFields fields("80000000,1f:name;rest");
  EXPECT_EQ(fields.number(), 0x8000'0000u);
  EXPECT_FALSE(fields.skip(':'));
  EXPECT_TRUE(fields.skip(','));
  EXPECT_EQ(fields.number(), 0x1fu);
  EXPECT_TRUE(fields.skip(':'));
  EXPECT_EQ(fields.until(';'), "name");
  EXPECT_EQ(fields.number(), std::nullopt);
  EXPECT_EQ(fields.until(';'), "rest");
  EXPECT_TRUE(fields.empty());
  EXPECT_EQ(fields.number(), std::nullopt);
}

TEST(GdbFields, RefusesNumbersThatAreTooLong) {
  EXPECT_EQ(GdbFields("ffffffffffffffff").number(), ~std::uint64_t{0});
  EXPECT_EQ(GdbFields("0ffffffffffffffff").number(), std::nullopt);
}

}  // namespace
}  // namespace doppel::debug
