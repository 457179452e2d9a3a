#include "device/fd_console.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <thread>

#include "device/test_env.h"

namespace doppel::test {
namespace {

struct Pipe {
  UniqueFd reader;
  UniqueFd writer;

  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    reader = UniqueFd(ends[0]);
    writer = UniqueFd(ends[1]);
  }
  void put(std::string_view text) const {
    EXPECT_EQ(::write(writer.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // Everything up to the end, which comes when every writing end is closed.
  std::string drain() const {
    std::string text;
    std::array<char, 4096> buffer{};
    for (ssize_t count = 0; (count = ::read(reader.get(), buffer.data(), buffer.size())) > 0;) {
      text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    return text;
  }
};

std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string fetch(ConsoleBackend& console, std::size_t limit = 1 << 20) {
  std::string text(limit, '\0');
  text.resize(console.read(std::as_writable_bytes(std::span(text))));
  return text;
}

struct FdConsoleTest : testing::Test {
  EventLoop loop;
  Pipe in;
  Pipe out;

  FdConsoleTest() { ::signal(SIGPIPE, SIG_IGN); }

  std::unique_ptr<FdConsole> open(FdConsole::InputFilter filter = {}) {
    return std::move(*FdConsole::open(loop, in.reader.get(), out.writer.get(), std::move(filter)));
  }
};

TEST_F(FdConsoleTest, OutputArrivesInOrderAndGathered) {
  auto console = open();
  for (const char c : std::string_view("hello")) EXPECT_EQ(console->write(as_bytes({&c, 1})), 1u);
  const auto once_readable = [&](std::uint32_t) { loop.stop(); };
  loop.watch(out.reader.get(), EventLoop::kReadable, once_readable);
  loop.run();
  std::array<char, 64> buffer{};
  EXPECT_EQ(::read(out.reader.get(), buffer.data(), buffer.size()), 5) << "in one write";
  EXPECT_STREQ(buffer.data(), "hello");
}

TEST_F(FdConsoleTest, LastWordsArriveWithoutTheLoop) {
  auto console = open();
  EXPECT_EQ(console->write(as_bytes("Power down\n")), 11u);
  console.reset();
  out.writer = UniqueFd();
  EXPECT_EQ(out.drain(), "Power down\n");
}

TEST_F(FdConsoleTest, StoppedOutputPushesBackAndThenTakesEverything) {
  auto console = open();
  const std::string text(1 << 20, 'x');
  std::size_t accepted = 0;
  bool refused = false;
  const auto push = [&] {
    while (accepted < text.size()) {
      const std::size_t taken = console->write(as_bytes(std::string_view(text).substr(accepted)));
      accepted += taken;
      if (accepted < text.size()) refused = true;
      if (taken == 0) return;
    }
    loop.stop();
  };
  console->set_listener(push);
  push();
  EXPECT_TRUE(refused);
  std::string received;
  std::thread reader([&] { received = out.drain(); });
  loop.run();
  console.reset();
  out.writer = UniqueFd();
  reader.join();
  EXPECT_EQ(received, text);
}

TEST_F(FdConsoleTest, InputIsAnnouncedAndFetched) {
  auto console = open();
  std::string seen;
  console->set_listener([&] {
    seen += fetch(*console, 3);
    if (seen.size() < 3) return;
    seen += fetch(*console);
    loop.stop();
  });
  EXPECT_EQ(fetch(*console), "");
  in.put("abcdef");
  loop.run();
  EXPECT_EQ(seen, "abcdef");
}

TEST_F(FdConsoleTest, InputLargerThanAnyBufferIsNeverDropped) {
  auto console = open();
  std::string text;
  for (int i = 0; i < 300'000; ++i) text += static_cast<char>('a' + i % 26);
  std::string seen;
  console->set_listener([&] {
    for (std::string some; !(some = fetch(*console, 16)).empty();) seen += some;
    if (seen.size() == text.size()) loop.stop();
  });
  std::thread typist([&] { in.put(text); });
  loop.run();
  typist.join();
  EXPECT_EQ(seen, text);
}

TEST_F(FdConsoleTest, FilterSeesInputFirst) {
  auto console = open([](std::vector<std::byte>& bytes) { std::erase(bytes, std::byte{1}); });
  std::string seen;
  console->set_listener([&] {
    seen += fetch(*console);
    if (seen.size() == 2) loop.stop();
  });
  in.put("a\1b");
  loop.run();
  EXPECT_EQ(seen, "ab");
}

TEST_F(FdConsoleTest, EndOfInputIsQuiet) {
  auto console = open();
  std::string seen;
  console->set_listener([&] { seen += fetch(*console); });
  in.put("last");
  in.writer = UniqueFd();
  const auto later = loop.make_timer([&] { loop.stop(); });
  later->arm(std::chrono::steady_clock::now() + std::chrono::milliseconds(5));
  loop.run();
  EXPECT_EQ(seen, "last");
}

TEST_F(FdConsoleTest, ReadsFilesAndDevNullWhichHaveNoReadiness) {
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  auto from_file = std::move(*FdConsole::open(loop, file.get(), -1));
  auto from_null = std::move(*FdConsole::open(loop, null.get(), -1));
  std::size_t seen = 0;
  std::string first;
  from_file->set_listener([&] {
    const std::string some = fetch(*from_file);
    if (first.empty()) first = some;
    seen += some.size();
    if (seen > 200'000) loop.stop();
  });
  from_null->set_listener([] { FAIL() << "/dev/null says nothing"; });
  loop.run();
  EXPECT_EQ(first.substr(1, 3), "ELF");
}

TEST_F(FdConsoleTest, ClosedOutputSwallows) {
  auto console = open();
  out.reader = UniqueFd();
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(console->write(as_bytes(std::string(10'000, 'x'))), 10'000u);
    const auto later = loop.make_timer([&] { loop.stop(); });
    later->arm(std::chrono::steady_clock::now() + std::chrono::milliseconds(3));
    loop.run();
  }
}

TEST_F(FdConsoleTest, LeavesTheCallersDescriptorsBlocking) {
  const auto console = open();
  EXPECT_EQ(::fcntl(in.reader.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(out.writer.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(FdConsoleTest, RefusesClosedDescriptors) {
  const int closed = in.reader.get();
  in.reader = UniqueFd();
  EXPECT_FALSE(FdConsole::open(loop, closed, -1));
}

TEST_F(FdConsoleTest, HartsPrintAndReadWhileTheLoopRuns) {
  auto console = open();
  std::thread host([&] { loop.run(); });
  std::thread typist([&] {
    for (int i = 0; i < 100; ++i) in.put(std::string(100, 'i'));
  });
  std::string received;
  std::thread reader([&] { received = out.drain(); });
  std::size_t seen = 0;
  for (std::size_t printed = 0; printed < 10'000 || seen < 10'000;) {
    if (printed < 10'000) printed += console->write(as_bytes("x"));
    seen += fetch(*console, 16).size();
  }
  typist.join();
  loop.stop();
  host.join();
  console.reset();
  out.writer = UniqueFd();
  reader.join();
  EXPECT_EQ(received, std::string(10'000, 'x'));
}

}  // namespace
}  // namespace doppel::test
