// A console on file descriptors: the terminal, a pipe, a file, a socket.
//
// Output gathers for at most a millisecond and leaves in few large writes; the loop's thread does all I/O
// and never waits for a descriptor, so a stopped terminal holds up nobody but the guest that prints to it.
// write() and read() may be called from any thread, the rest belongs to the loop's thread, or to anyone
// while the loop does not run. Writing to a closed pipe needs SIGPIPE ignored.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "device/console_backend.h"

namespace doppel {

class FdConsole final : public ConsoleBackend {
 public:
  // Edits what arrived before the guest sees it: where an escape key is caught.
  using InputFilter = std::function<void(std::vector<std::byte>&)>;

  // The descriptors stay the caller's; -1 is an input that never speaks or an output that swallows all.
  static Result<std::unique_ptr<FdConsole>> open(EventLoop& loop, int input_fd, int output_fd,
                                                 InputFilter filter = {});
  // Waits up to a second for the output to take what is left.
  ~FdConsole() override;

  std::size_t write(std::span<const std::byte> output) override;
  std::size_t read(std::span<std::byte> input) override;
  void set_listener(std::function<void()> ready) override { listener_ = std::move(ready); }

 private:
  // A descriptor that never blocks, without making the original's other users unblocking where avoidable.
  struct Channel {
    UniqueFd fd;
    int restore_flags = -1;  // what to give back to a description that had to be shared

    Channel() = default;
    Channel(Channel&&) = default;
    Channel& operator=(Channel&&) = default;
    ~Channel();
    static Result<Channel> open(int fd, int access);
  };

  FdConsole(EventLoop& loop, Channel input, Channel output, InputFilter filter);

  bool watch(int fd, std::uint32_t interest, void (FdConsole::*ready)());
  void start_input();
  void stop_input();
  void receive();
  void flush();
  bool send_some();
  void call_listener() {
    if (listener_) listener_();
  }

  EventLoop& loop_;
  InputFilter filter_;
  Channel input_;
  Channel output_;
  std::function<void()> listener_;
  bool input_ended_ = false;
  bool input_watched_ = false;
  bool output_watched_ = false;
  std::vector<std::byte> sending_;  // the loop's thread writes it out
  std::size_t sent_bytes_ = 0;

  std::mutex mutex_;  // guards what harts and the loop share
  std::vector<std::byte> gathered_;
  std::vector<std::byte> arrived_;
  std::size_t fetched_bytes_ = 0;  // of arrived_
  bool input_paused_ = false;
  bool reader_waits_ = true;
  bool writer_waits_ = false;

  std::unique_ptr<EventLoop::Timer> flush_timer_;
  std::unique_ptr<EventLoop::Timer> input_timer_;
};

}  // namespace doppel
