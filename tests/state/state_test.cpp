#include "state/state.h"

#include <random>

#include <gtest/gtest.h>

namespace doppel {
namespace {

std::vector<std::byte> bytes_of_text(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

StateNode sample() {
  StateNode root;
  StateWriter writer(root);
  writer.version(7);
  writer.number("zero", 0);
  writer.number("largest", ~std::uint64_t{0});
  writer.bytes("empty", {});
  writer.bytes("text", bytes_of_text("hello"));
  StateWriter hart = writer.child("harts").child("0");
  hart.number("pc", 0x8000'0000);
  hart.numbers("x", std::vector<std::uint64_t>{1, 2, ~std::uint64_t{0}});
  return root;
}

std::string message_of(const auto& result) { return result ? "" : result.error().message; }

bool equal(const StateNode& a, const StateNode& b) {
  return a.version == b.version && a.values == b.values &&
         std::ranges::equal(a.children, b.children, [](const auto& left, const auto& right) {
           return left.first == right.first && equal(left.second, right.second);
         });
}

TEST(State, ComesBackFromBytesUnchanged) {
  const StateNode root = sample();
  const auto decoded = decode(encode(root));
  ASSERT_TRUE(decoded) << message_of(decoded);
  EXPECT_TRUE(equal(*decoded, root));

  const StateReader reader(*decoded, "");
  EXPECT_EQ(reader.version(), 7u);
  EXPECT_EQ(reader.number("zero"), 0u);
  EXPECT_EQ(reader.number("largest"), ~std::uint64_t{0});
  EXPECT_TRUE(reader.bytes("empty")->empty());
  EXPECT_EQ(reader.bytes("text")->size(), 5u);
  const auto hart = reader.child("harts")->child("0");
  ASSERT_TRUE(hart);
  EXPECT_EQ(hart->numbers("x"), (std::vector<std::uint64_t>{1, 2, ~std::uint64_t{0}}));
}

TEST(State, ErrorsNameThePath) {
  const StateNode root = sample();
  const StateReader reader(root, "");
  EXPECT_NE(message_of(reader.number("nothing")).find("nothing"), std::string::npos);
  const auto hart = *reader.child("harts")->child("0");
  EXPECT_NE(message_of(hart.number("sp")).find("harts/0/sp"), std::string::npos);
  EXPECT_NE(message_of(hart.number("x")).find("harts/0/x is not a number"), std::string::npos);
  EXPECT_NE(message_of(hart.bytes("pc")).find("harts/0/pc"), std::string::npos);
  EXPECT_NE(message_of(reader.child("harts")->child("1")).find("harts/1"), std::string::npos);
  EXPECT_NE(message_of(reader.numbers("text")).find("whole numbers"), std::string::npos);
}

TEST(StateFields, ReadsIntoVariablesOfTheirOwnSize) {
  StateNode root;
  StateWriter writer(root);
  writer.number("byte", 255);
  writer.number("flag", 1);
  writer.numbers("pair", std::vector<std::uint64_t>{3, 4});
  writer.bytes("text", bytes_of_text("abc"));
  std::uint8_t byte = 0;
  bool flag = false;
  std::array<std::uint64_t, 2> pair{};
  std::vector<std::byte> text;
  StateFields fields(StateReader(root, "uart"));
  fields.read("byte", byte).read("flag", flag).read("pair", pair).read("text", text, 3).require(byte == 255, "byte");
  EXPECT_TRUE(fields.result());
  EXPECT_EQ(byte, 255);
  EXPECT_TRUE(flag);
  EXPECT_EQ(pair[1], 4u);
  EXPECT_EQ(text, bytes_of_text("abc"));
}

TEST(StateFields, TheFirstFailureSticksAndLeavesVariablesAlone) {
  StateNode root;
  StateWriter writer(root);
  writer.number("wide", 256);
  writer.number("fine", 9);
  writer.numbers("short", std::vector<std::uint64_t>{1});
  writer.bytes("long", bytes_of_text("abcd"));
  const StateReader reader(root, "uart");

  std::uint8_t byte = 5;
  {
    StateFields fields(reader);
    fields.read("wide", byte).read("fine", byte);
    EXPECT_EQ(message_of(fields.result()), "saved state: uart/wide is out of range");
    EXPECT_EQ(byte, 5);
  }
  {
    StateFields fields(reader);
    std::array<std::uint64_t, 2> pair{};
    fields.read("short", pair);
    EXPECT_NE(message_of(fields.result()).find("uart/short has the wrong length"), std::string::npos);
  }
  {
    StateFields fields(reader);
    std::vector<std::byte> text;
    fields.read("long", text, 3);
    EXPECT_NE(message_of(fields.result()).find("uart/long is too long"), std::string::npos);
  }
  {
    StateFields fields(reader);
    bool flag = false;
    fields.read("fine", flag);
    EXPECT_FALSE(fields.result());
  }
}

TEST(StateDecode, RefusesWhatIsNotAState) {
  EXPECT_NE(message_of(decode({})).find("not a saved state"), std::string::npos);
  EXPECT_NE(message_of(decode(bytes_of_text("\x7f" "ELF and more of it"))).find("not a saved state"), std::string::npos);
}

TEST(StateDecode, RefusesOtherFormatsEveryTruncationAndTrailingBytes) {
  auto bytes = encode(sample());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode(std::span(bytes).first(size))) << "cut to " << size;
  }
  auto longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_NE(message_of(decode(longer)).find("more follows"), std::string::npos);
  bytes[8] = std::byte{99};
  EXPECT_NE(message_of(decode(bytes)).find("format 99"), std::string::npos);
}

// A root with `depth` generations below it, one child each, in bytes.
std::vector<std::byte> nested(unsigned depth) {
  StateNode parent;
  parent.children["n"];
  auto bytes = encode(StateNode{});
  const std::vector<std::byte> leaf(bytes.begin() + 12, bytes.end());  // past magic and format
  const auto with_child = encode(parent);
  bytes.resize(12);
  for (unsigned i = 0; i < depth; ++i) {
    bytes.insert(bytes.end(), with_child.begin() + 12, with_child.end() - static_cast<std::ptrdiff_t>(leaf.size()));
  }
  bytes.insert(bytes.end(), leaf.begin(), leaf.end());
  return bytes;
}

TEST(StateDecode, BoundsDepth) {
  EXPECT_TRUE(decode(nested(4)));
  EXPECT_TRUE(decode(nested(31)));
  for (const unsigned depth : {32u, 1'000'000u}) {
    EXPECT_NE(message_of(decode(nested(depth))).find("nested too deeply"), std::string::npos);
  }
}

TEST(StateDecode, RefusesDuplicateNames) {
  StateNode root;
  StateWriter writer(root);
  writer.number("aa", 1);
  writer.number("ab", 2);
  auto bytes = encode(root);
  const auto second = std::ranges::search(bytes, bytes_of_text("ab")).begin();
  second[1] = std::byte{'a'};
  EXPECT_NE(message_of(decode(bytes)).find("occurs twice"), std::string::npos);
}

TEST(StateDecode, DoesNotTrustLengths) {
  // A root whose only value claims 2^62 bytes, and one that claims 2^32 - 1 values.
  StateNode root;
  StateWriter(root).bytes("b", bytes_of_text("x"));
  auto bytes = encode(root);
  const std::size_t length_at = bytes.size() - 4 - 1 - 8;  // child count, content, length
  bytes[length_at + 7] = std::byte{0x40};
  EXPECT_NE(message_of(decode(bytes)).find("ends too early"), std::string::npos);
  bytes = encode(StateNode{});
  for (std::size_t i = 16; i < 20; ++i) bytes[i] = std::byte{0xff};
  EXPECT_FALSE(decode(bytes));
}

TEST(StateDecode, SurvivesDamage) {
  const auto original = encode(sample());
  std::mt19937 random(1);
  for (unsigned round = 0; round < 20'000; ++round) {
    auto bytes = original;
    for (unsigned i = 0; i < 1 + random() % 4; ++i) bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    const auto decoded = decode(bytes);
    // What decodes at all is a tree of the same size: no byte was overlooked.
    EXPECT_TRUE(!decoded || encode(*decoded).size() == bytes.size());
  }
}

}  // namespace
}  // namespace doppel
