#include "app/console.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <array>

namespace doppel {
namespace {

constexpr std::size_t kBufferBytes = 64 << 10;
constexpr int kFarewellMilliseconds = 1000;

bool is_pollable(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return false;
  return S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode) || ::isatty(fd) == 1;
}

// A descriptor for the same terminal, pipe or file that never blocks. Setting O_NONBLOCK on `fd` itself would
// set it for every process that shares it, such as the shell.
UniqueFd unblocked_output(int fd) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return {};
  if (S_ISFIFO(status.st_mode) || ::isatty(fd) == 1) {
    const std::string path = "/proc/self/fd/" + std::to_string(fd);
    UniqueFd twin(::open(path.c_str(), O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (twin) return twin;
  }
  return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

// In the background, touching the terminal would stop us.
bool in_background(int fd) { return ::isatty(fd) == 1 && ::tcgetpgrp(fd) != ::getpgrp(); }

class NullConsole final : public ConsoleBackend {
 public:
  std::size_t write(std::span<const std::byte> output) override { return output.size(); }
  std::size_t read(std::span<std::byte>) override { return 0; }
  void set_listener(std::function<void()>) override {}
};

// Listens at a socket in the file system and serves one client at a time; the others wait.
class SocketConsole final : public ConsoleBackend {
 public:
  SocketConsole(EventLoop& loop, UniqueFd listener, std::string path)
      : loop_(loop), listener_(std::move(listener)), path_(std::move(path)), stream_(loop) {
    listen();
  }
  ~SocketConsole() override {
    if (listening_) loop_.unwatch(listener_.get());
    ::unlink(path_.c_str());
  }

  std::size_t write(std::span<const std::byte> output) override { return stream_.write(output); }
  std::size_t read(std::span<std::byte> input) override { return stream_.read(input); }
  void set_listener(std::function<void()> ready) override { stream_.set_listener(std::move(ready)); }

 private:
  void listen() {
    loop_.watch(listener_.get(), EventLoop::kReadable, [this](std::uint32_t) { accept(); });
    listening_ = true;
  }

  void accept() {
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!client) return;
    UniqueFd output(::fcntl(client.get(), F_DUPFD_CLOEXEC, 3));
    loop_.unwatch(listener_.get());
    listening_ = false;
    stream_.connect(std::move(client), std::move(output), [this] { listen(); });
  }

  EventLoop& loop_;
  UniqueFd listener_;
  const std::string path_;
  bool listening_ = false;
  StreamConsole stream_;
};

Result<std::unique_ptr<ConsoleBackend>> open_socket(const std::string& path, EventLoop& loop) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail("--console unix={}: the path is longer than the {} bytes of a socket's", path,
                sizeof address.sun_path - 1);
  }
  path.copy(address.sun_path, path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return fail_errno(errno, "--console unix={}", path);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  // A socket that nobody listens at was left behind by a process that died.
  if (::connect(fd.get(), generic, sizeof address) == 0) return fail("--console unix={}: already in use", path);
  if (errno == ECONNREFUSED) ::unlink(path.c_str());
  if (::bind(fd.get(), generic, sizeof address) != 0 || ::listen(fd.get(), 8) != 0) {
    return fail_errno(errno, "--console unix={}", path);
  }
  return std::make_unique<SocketConsole>(loop, std::move(fd), path);
}

}  // namespace

Result<ConsoleChoice> parse_console(std::string_view text) {
  using Kind = ConsoleChoice::Kind;
  const std::size_t equals = text.find('=');
  const std::string_view name = text.substr(0, equals);
  const std::string path(equals == std::string_view::npos ? "" : text.substr(equals + 1));
  if (text == "stdio") return ConsoleChoice{Kind::kStdio, {}};
  if (text == "none") return ConsoleChoice{Kind::kNone, {}};
  if (name == "file" && !path.empty()) return ConsoleChoice{Kind::kFile, path};
  if (name == "unix" && !path.empty()) return ConsoleChoice{Kind::kUnix, path};
  return fail("--console: '{}' is none of stdio, none, file=PATH, unix=PATH", text);
}

StreamConsole::StreamConsole(EventLoop& loop, Filter filter) : loop_(loop), filter_(std::move(filter)) {}

StreamConsole::~StreamConsole() {
  if (input_watched_) loop_.unwatch(input_.get());
  if (output_watched_) loop_.unwatch(output_.get());
  const std::lock_guard lock(mutex_);
  while (!send_some()) {
    pollfd writable{output_.get(), POLLOUT, 0};
    if (::poll(&writable, 1, kFarewellMilliseconds) <= 0) break;
  }
}

void StreamConsole::connect(UniqueFd input, UniqueFd output, std::function<void()> disconnected) {
  input_ = std::move(input);
  disconnected_ = std::move(disconnected);
  input_pollable_ = input_ && is_pollable(input_.get());
  {
    const std::lock_guard lock(mutex_);
    output_ = std::move(output);
    receive_wanted_ = static_cast<bool>(input_);
  }
  loop_.post([this] { receive(); });
}

std::size_t StreamConsole::write(std::span<const std::byte> output) {
  const std::lock_guard lock(mutex_);
  if (!output_) return output.size();
  const std::size_t taken = std::min(output.size(), kBufferBytes - unsent_.size());
  unsent_.insert(unsent_.end(), output.begin(), output.begin() + static_cast<std::ptrdiff_t>(taken));
  if (!std::exchange(send_posted_, true)) loop_.post([this] { send(); });
  return taken;
}

std::size_t StreamConsole::read(std::span<std::byte> input) {
  const std::lock_guard lock(mutex_);
  const std::size_t count = std::min(input.size(), received_.size());
  const auto end = received_.begin() + static_cast<std::ptrdiff_t>(count);
  std::copy(received_.begin(), end, input.begin());
  received_.erase(received_.begin(), end);
  if (count != 0 && receive_wanted_ && received_.empty()) loop_.post([this] { receive(); });
  return count;
}

void StreamConsole::set_listener(std::function<void()> ready) {
  listener_ = std::move(ready);
  loop_.post([this] { call_listener(); });
}

void StreamConsole::call_listener() {
  if (listener_) listener_();
}

// Takes one piece of input, if the guest has read the last one, and waits for more.
void StreamConsole::receive() {
  if (!input_) return;
  if (input_pollable_ && !input_watched_) {
    loop_.watch(input_.get(), EventLoop::kReadable, [this](std::uint32_t) { receive(); });
    input_watched_ = true;
    return;
  }
  std::vector<std::byte> piece(4096);
  const ssize_t got = ::read(input_.get(), piece.data(), piece.size());
  if (got < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (got <= 0) return end_input();
  piece.resize(static_cast<std::size_t>(got));
  if (filter_) filter_(piece);
  {
    const std::lock_guard lock(mutex_);
    received_.insert(received_.end(), piece.begin(), piece.end());
    receive_wanted_ = !input_pollable_ || received_.size() >= kBufferBytes;
    // Unwatched, not uninterested: a hang-up would be reported all the same.
    if (receive_wanted_ && input_watched_) {
      loop_.unwatch(input_.get());
      input_watched_ = false;
    }
  }
  call_listener();
}

void StreamConsole::end_input() {
  if (input_watched_) loop_.unwatch(input_.get());
  input_watched_ = false;
  input_ = UniqueFd();
  if (!disconnected_) return;
  if (output_watched_) loop_.unwatch(output_.get());
  output_watched_ = false;
  {
    const std::lock_guard lock(mutex_);
    output_ = UniqueFd();
    unsent_.clear();
  }
  // The callback may connect anew, and so replace itself.
  const auto disconnected = std::exchange(disconnected_, {});
  disconnected();
}

void StreamConsole::send() {
  bool finished = false;
  bool was_full = false;
  {
    const std::lock_guard lock(mutex_);
    was_full = unsent_.size() == kBufferBytes;
    finished = send_some();
    if (finished) send_posted_ = false;
  }
  if (finished == output_watched_) {
    if (finished) {
      loop_.unwatch(output_.get());
    } else {
      loop_.watch(output_.get(), EventLoop::kWritable, [this](std::uint32_t) { send(); });
    }
    output_watched_ = !finished;
  }
  if (was_full) call_listener();
}

bool StreamConsole::send_some() {
  while (!unsent_.empty() && output_) {
    const ssize_t sent = ::write(output_.get(), unsent_.data(), unsent_.size());
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return false;
    if (sent < 0) {  // nobody reads any more, or a full disk: the guest is not to blame
      unsent_.clear();
      return true;
    }
    unsent_.erase(unsent_.begin(), unsent_.begin() + sent);
  }
  return true;
}

Result<std::unique_ptr<ConsoleBackend>> open_console(const ConsoleChoice& choice, EventLoop& loop,
                                                     StreamConsole::Filter terminal_filter) {
  switch (choice.kind) {
    case ConsoleChoice::Kind::kNone: return std::make_unique<NullConsole>();
    case ConsoleChoice::Kind::kUnix: return open_socket(choice.path, loop);
    case ConsoleChoice::Kind::kFile: {
      UniqueFd file(::open(choice.path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
      if (!file) return fail_errno(errno, "--console file={}", choice.path);
      auto console = std::make_unique<StreamConsole>(loop);
      console->connect({}, std::move(file));
      return console;
    }
    case ConsoleChoice::Kind::kStdio: break;
  }
  const bool typed = ::isatty(STDIN_FILENO) == 1;
  auto console = std::make_unique<StreamConsole>(loop, typed ? std::move(terminal_filter) : StreamConsole::Filter{});
  UniqueFd input;
  if (!in_background(STDIN_FILENO)) input = UniqueFd(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3));
  console->connect(std::move(input), unblocked_output(STDOUT_FILENO));
  return console;
}

}  // namespace doppel
