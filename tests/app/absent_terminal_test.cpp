#include "app/absent_terminal.h"

#include <gtest/gtest.h>

#include <string>

namespace doppel::test {
namespace {

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string ask(std::string_view output) { return AbsentTerminal().answers_to(as_bytes(output)); }

TEST(AbsentTerminal, AnswersWhatSystemdAsks) {
  EXPECT_EQ(ask("\x1b[6n\x1b[32766;32766H\x1b[6n"), "\x1b[1;1R\x1b[24;80R");
}

TEST(AbsentTerminal, SaysWhatItIsAndHowLarge) {
  EXPECT_EQ(ask("\x1b[5n"), "\x1b[0n");
  EXPECT_EQ(ask("\x1b[c\x1b[0c"), "\x1b[?1;0c\x1b[?1;0c");
  EXPECT_EQ(ask("\x1b[18t"), "\x1b[8;24;80t");
}

TEST(AbsentTerminal, TheCursorIsWhereItWasSentWithinTheScreen) {
  EXPECT_EQ(ask("\x1b[7;9f\x1b[6n"), "\x1b[7;9R");
  EXPECT_EQ(ask("\x1b[;5H\x1b[6n"), "\x1b[1;5R") << "an absent parameter is 1";
  EXPECT_EQ(ask("\x1b[7H\x1b[6n"), "\x1b[7;1R");
  EXPECT_EQ(ask("\x1b[7;9H\x1b[H\x1b[6n"), "\x1b[1;1R");
  EXPECT_EQ(ask("\x1b[0;99999999999999999999H\x1b[6n"), "\x1b[1;80R");
}

TEST(AbsentTerminal, TextAndOtherSequencesAreNoQuestions) {
  EXPECT_EQ(ask("6n [6n \x1b" "6n \x1b[?6n \x1b[6 n \x1b[>c \x1b[1c \x1b[8t \x1b[0;1;31m"), "");
  EXPECT_EQ(ask("\x1b[?7;9H\x1b[6n"), "\x1b[1;1R");
}

TEST(AbsentTerminal, SequencesMayComeInPieces) {
  AbsentTerminal terminal;
  std::string answers;
  for (const char c : std::string_view("\x1b[24;80H\x1b[6n")) answers += terminal.answers_to(as_bytes({&c, 1}));
  EXPECT_EQ(answers, "\x1b[24;80R");
}

TEST(AbsentTerminal, LongSequencesAreSkipped) {
  EXPECT_EQ(ask("\x1b[" + std::string(100, '6') + "n" + "\x1b[5n"), "\x1b[0n");
  EXPECT_EQ(ask("\x1b[\x1b[\x1b\x1b[5n"), "\x1b[0n");
}

// Takes three bytes at a time, and has some input of its own.
class FarEnd final : public ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> output) override { return std::min<std::size_t>(output.size(), 3); }
  std::size_t read(std::span<std::byte> input) override {
    const std::size_t count = std::min(input.size(), typed.size());
    std::ranges::copy(as_bytes(typed).first(count), input.begin());
    typed.erase(0, count);
    return count;
  }
  void set_listener(std::function<void()> ready) override { listener = std::move(ready); }

  std::string typed = "typed";
  std::function<void()> listener;
};

struct AnsweringConsoleTest : testing::Test {
  EventLoop loop;
  FarEnd* far_end = new FarEnd;
  AnsweringConsole console{loop, std::unique_ptr<ConsoleBackend>(far_end)};

  void print(std::string_view text) {
    while (!text.empty()) text.remove_prefix(console.write(as_bytes(text)));
  }
  std::string fetch(std::size_t limit) {
    std::string text(limit, '\0');
    text.resize(console.read(std::as_writable_bytes(std::span(text))));
    return text;
  }
};

TEST_F(AnsweringConsoleTest, AnswersComeBeforeWhatIsTypedAndNothingIsLost) {
  print("\x1b[6n");
  EXPECT_EQ(fetch(4), "\x1b[1;");
  EXPECT_EQ(fetch(100), "1Rtyped");
  EXPECT_EQ(fetch(100), "");
}

TEST_F(AnsweringConsoleTest, TheDeviceIsToldOfAnswersAndOfInput) {
  int told = 0;
  console.set_listener([&] {
    ++told;
    loop.stop();
  });
  far_end->listener();
  EXPECT_EQ(told, 1);
  print("\x1b[5n");
  loop.run();
  EXPECT_EQ(told, 2);
}

TEST_F(AnsweringConsoleTest, AGuestThatOnlyAsksFillsNoMemory) {
  for (int i = 0; i < 10000; ++i) print("\x1b[5n");
  EXPECT_LE(fetch(100000).size(), 256u + 5);
  print("\x1b[5n");
  EXPECT_EQ(fetch(100), "\x1b[0n") << "and is answered again once it reads";
}

}  // namespace
}  // namespace doppel::test
