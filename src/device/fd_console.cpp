#include "device/fd_console.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include <fmt/format.h>

namespace doppel {

namespace {

constexpr std::size_t kBufferBytes = 64 << 10;    // each direction
constexpr std::size_t kPromptBytes = 4 << 10;     // so much output does not wait for the timer
constexpr std::chrono::milliseconds kGather{1};
constexpr int kLastWordsMilliseconds = 1000;

HostTime now() { return std::chrono::steady_clock::now(); }

}  // namespace

FdConsole::Channel::~Channel() {
  if (fd && restore_flags >= 0) ::fcntl(fd.get(), F_SETFL, restore_flags);
}

Result<FdConsole::Channel> FdConsole::Channel::open(int fd, int access) {
  Channel channel;
  if (fd < 0) return channel;
  struct stat info{};
  if (::fstat(fd, &info) != 0) return fail_errno(errno, "console descriptor {}", fd);
  // O_NONBLOCK belongs to the open file description, which a terminal's other programs share: so reopen it.
  if (S_ISCHR(info.st_mode) || S_ISFIFO(info.st_mode)) {
    channel.fd = UniqueFd(::open(fmt::format("/proc/self/fd/{}", fd).c_str(),
                                 access | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
    if (channel.fd) return channel;
  }
  channel.fd = UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!channel.fd) return fail_errno(errno, "console descriptor {}", fd);
  if (!S_ISREG(info.st_mode)) {
    channel.restore_flags = ::fcntl(fd, F_GETFL);
    if (::fcntl(fd, F_SETFL, channel.restore_flags | O_NONBLOCK) != 0) {
      return fail_errno(errno, "console descriptor {}", fd);
    }
  }
  return channel;
}

Result<std::unique_ptr<FdConsole>> FdConsole::open(EventLoop& loop, int input_fd, int output_fd,
                                                   InputFilter filter) {
  auto input = Channel::open(input_fd, O_RDONLY);
  if (!input) return std::unexpected(input.error());
  auto output = Channel::open(output_fd, O_WRONLY);
  if (!output) return std::unexpected(output.error());
  return std::unique_ptr<FdConsole>(
      new FdConsole(loop, std::move(*input), std::move(*output), std::move(filter)));
}

FdConsole::FdConsole(EventLoop& loop, Channel input, Channel output, InputFilter filter)
    : loop_(loop),
      filter_(std::move(filter)),
      input_(std::move(input)),
      output_(std::move(output)),
      flush_timer_(loop.make_timer([this] { flush(); })),
      input_timer_(loop.make_timer([this] { start_input(); })) {
  input_ended_ = !input_.fd;
  if (!input_ended_) input_timer_->arm(now());
}

FdConsole::~FdConsole() {
  stop_input();
  if (output_watched_) loop_.unwatch(output_.fd.get());
  pollfd writable{output_.fd.get(), POLLOUT, 0};
  while (output_.fd && !send_some() && ::poll(&writable, 1, kLastWordsMilliseconds) == 1) {
  }
}

// False for what has no readiness to wait for, a file or /dev/null: it is always ready.
bool FdConsole::watch(int fd, std::uint32_t interest, void (FdConsole::*ready)()) {
  try {
    loop_.watch(fd, interest, [this, ready](std::uint32_t) { (this->*ready)(); });
    return true;
  } catch (const std::system_error&) {
    return false;
  }
}

// Input

void FdConsole::start_input() {
  if (input_ended_ || input_watched_) return;
  input_watched_ = watch(input_.fd.get(), EventLoop::kReadable, &FdConsole::receive);
  if (!input_watched_) receive();
}

void FdConsole::stop_input() {
  if (input_watched_) loop_.unwatch(input_.fd.get());
  input_watched_ = false;
}

void FdConsole::receive() {
  std::vector<std::byte> chunk(kPromptBytes);
  const ssize_t count = ::read(input_.fd.get(), chunk.data(), chunk.size());
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {  // its end, or a terminal that hung up
    stop_input();
    input_ended_ = true;
    return;
  }
  chunk.resize(static_cast<std::size_t>(count));
  if (filter_) filter_(chunk);
  bool pause = false;
  bool call = false;
  {
    const std::lock_guard lock(mutex_);
    arrived_.insert(arrived_.end(), chunk.begin(), chunk.end());
    input_paused_ = pause = arrived_.size() - fetched_bytes_ >= kBufferBytes;
    call = std::exchange(reader_waits_, false);
  }
  if (pause) {
    stop_input();
  } else if (!input_watched_) {
    input_timer_->arm(now());
  }
  if (call) call_listener();
}

std::size_t FdConsole::read(std::span<std::byte> input) {
  const std::lock_guard lock(mutex_);
  const std::size_t count = std::min(input.size(), arrived_.size() - fetched_bytes_);
  std::copy_n(arrived_.begin() + static_cast<std::ptrdiff_t>(fetched_bytes_), count, input.begin());
  fetched_bytes_ += count;
  if (fetched_bytes_ == arrived_.size()) {
    arrived_.clear();
    fetched_bytes_ = 0;
    if (std::exchange(input_paused_, false)) input_timer_->arm(now());
  }
  if (count < input.size()) reader_waits_ = true;
  return count;
}

// Output

std::size_t FdConsole::write(std::span<const std::byte> output) {
  if (!output_.fd) return output.size();
  const std::lock_guard lock(mutex_);
  const std::size_t before = gathered_.size();
  const std::size_t count = std::min(output.size(), kBufferBytes - before);
  gathered_.insert(gathered_.end(), output.begin(), output.begin() + static_cast<std::ptrdiff_t>(count));
  const std::size_t after = gathered_.size();
  if (before == 0 && after != 0) flush_timer_->arm(now() + kGather);
  if (before < kPromptBytes && after >= kPromptBytes) flush_timer_->arm(now());
  if (count < output.size()) writer_waits_ = true;
  return count;
}

// Writes until all is out (true) or the descriptor takes no more.
bool FdConsole::send_some() {
  for (;;) {
    if (sent_bytes_ == sending_.size()) {
      sending_.clear();
      sent_bytes_ = 0;
      const std::lock_guard lock(mutex_);
      sending_.swap(gathered_);
      if (sending_.empty()) return true;
    }
    const ssize_t count = ::write(output_.fd.get(), sending_.data() + sent_bytes_, sending_.size() - sent_bytes_);
    if (count >= 0) {
      sent_bytes_ += static_cast<std::size_t>(count);
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR) {
      sent_bytes_ = sending_.size();  // nobody is left to read it
    }
  }
}

void FdConsole::flush() {
  const bool all_sent = send_some();
  if (!all_sent && !output_watched_) {
    output_watched_ = watch(output_.fd.get(), EventLoop::kWritable, &FdConsole::flush);
  } else if (all_sent && output_watched_) {
    loop_.unwatch(output_.fd.get());
    output_watched_ = false;
  }
  bool call = false;
  {
    const std::lock_guard lock(mutex_);
    call = writer_waits_ && gathered_.size() < kBufferBytes;
    if (call) writer_waits_ = false;
  }
  if (call) call_listener();
}

}  // namespace doppel
