#include "app/console.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <mutex>

#include "app/absent_terminal.h"

namespace doppel {
namespace {

class FileConsole final : public ConsoleBackend {
 public:
  FileConsole(UniqueFd file, std::unique_ptr<ConsoleBackend> stream) : file_(std::move(file)), stream_(std::move(stream)) {}

  std::size_t write(std::span<const std::byte> output) override { return stream_->write(output); }
  std::size_t read(std::span<std::byte> input) override { return stream_->read(input); }
  void set_listener(std::function<void()> ready) override { stream_->set_listener(std::move(ready)); }

 private:
  UniqueFd file_;
  std::unique_ptr<ConsoleBackend> stream_;
};

// Listens at a socket in the file system and serves one client at a time; the others wait. Without a client
// output is dropped. The stream changes on the loop's thread, so harts lock it for each use.
class SocketConsole final : public ConsoleBackend {
 public:
  SocketConsole(EventLoop& loop, UniqueFd socket, std::string path)
      : loop_(loop), socket_(std::move(socket)), path_(std::move(path)) {
    listen();
  }
  ~SocketConsole() override {
    loop_.unwatch(client_ ? client_.get() : socket_.get());
    stream_.reset();
    ::unlink(path_.c_str());
  }

  std::size_t write(std::span<const std::byte> output) override {
    const std::lock_guard lock(mutex_);
    return stream_ ? stream_->write(output) : output.size();
  }
  std::size_t read(std::span<std::byte> input) override {
    const std::lock_guard lock(mutex_);
    return stream_ ? stream_->read(input) : 0;
  }
  void set_listener(std::function<void()> ready) override { listener_ = std::move(ready); }

 private:
  void listen() {
    loop_.watch(socket_.get(), EventLoop::kReadable, [this](std::uint32_t) { accept(); });
  }

  void accept() {
    UniqueFd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) return;
    auto stream = FdConsole::open(loop_, client.get(), client.get());
    if (!stream) return;
    (*stream)->set_listener([this] { call_listener(); });
    replace_stream(std::move(*stream));
    client_ = std::move(client);
    loop_.unwatch(socket_.get());
    // No interest of its own: a hang-up is always reported.
    loop_.watch(client_.get(), 0, [this](std::uint32_t) { hang_up(); });
  }

  void hang_up() {
    loop_.unwatch(client_.get());
    replace_stream(nullptr);
    client_ = UniqueFd();
    listen();
  }

  void replace_stream(std::unique_ptr<FdConsole> stream) {
    {
      const std::lock_guard lock(mutex_);
      stream_.swap(stream);
    }
    stream.reset();
    call_listener();
  }

  void call_listener() {
    if (listener_) listener_();
  }

  EventLoop& loop_;
  UniqueFd socket_;
  const std::string path_;
  UniqueFd client_;
  std::function<void()> listener_;
  std::mutex mutex_;
  std::unique_ptr<FdConsole> stream_;  // guarded by mutex_
};

// On descriptors of which the input is no terminal, or -1.
Result<std::unique_ptr<ConsoleBackend>> open_answering(EventLoop& loop, int input_fd, int output_fd) {
  auto stream = FdConsole::open(loop, input_fd, output_fd);
  if (!stream) return std::unexpected(stream.error());
  return std::make_unique<AnsweringConsole>(loop, std::move(*stream));
}

Result<std::unique_ptr<ConsoleBackend>> open_file(const std::string& path, EventLoop& loop) {
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (!file) return fail_errno(errno, "--console file={}", path);
  auto stream = open_answering(loop, -1, file.get());
  if (!stream) return std::unexpected(stream.error());
  return std::make_unique<FileConsole>(std::move(file), std::move(*stream));
}

Result<std::unique_ptr<ConsoleBackend>> open_socket(const std::string& path, EventLoop& loop) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return fail("--console unix={}: the path is longer than the {} bytes that a socket's may have", path,
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

Result<std::unique_ptr<ConsoleBackend>> open_console(const ConsoleChoice& choice, EventLoop& loop,
                                                     FdConsole::InputFilter terminal_filter) {
  switch (choice.kind) {
    case ConsoleChoice::Kind::kNone: return open_answering(loop, -1, -1);
    case ConsoleChoice::Kind::kFile: return open_file(choice.path, loop);
    case ConsoleChoice::Kind::kUnix: return open_socket(choice.path, loop);
    case ConsoleChoice::Kind::kStdio: break;
  }
  if (::isatty(STDIN_FILENO) != 1) return open_answering(loop, STDIN_FILENO, STDOUT_FILENO);
  // A process in the background that reads from its terminal is stopped.
  const bool background = ::tcgetpgrp(STDIN_FILENO) != ::getpgrp();
  return FdConsole::open(loop, background ? -1 : STDIN_FILENO, STDOUT_FILENO, std::move(terminal_filter));
}

}  // namespace doppel
