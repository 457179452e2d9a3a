// The far ends that a guest's serial line may have: the terminal, a file, a socket, nothing.
//
// A StreamConsole moves bytes between two descriptors and the guest. Its descriptors belong to the event loop's
// thread, which never blocks on them; the buffers between are locked, for devices call from hart threads.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "device/console_backend.h"

namespace doppel {

struct ConsoleChoice {
  enum class Kind { kStdio, kNone, kFile, kUnix };
  Kind kind = Kind::kStdio;
  std::string path;  // kFile, kUnix
};

// "stdio", "none", "file=PATH" (output only) or "unix=PATH" (a socket to listen at, one client at a time).
Result<ConsoleChoice> parse_console(std::string_view text);

class StreamConsole final : public ConsoleBackend {
 public:
  // Edits what arrived before the guest sees it; on the loop's thread.
  using Filter = std::function<void(std::vector<std::byte>&)>;

  // `loop` outlives the console, which is made and destroyed on its thread or while it does not run.
  explicit StreamConsole(EventLoop& loop, Filter filter = {});
  // Writes out what the guest left, unless the reader takes nothing for a while.
  ~StreamConsole() override;

  // Either may be absent: no input comes, output is dropped. `disconnected` is called at the end of input.
  void connect(UniqueFd input, UniqueFd output, std::function<void()> disconnected = {});

  std::size_t write(std::span<const std::byte> output) override;
  std::size_t read(std::span<std::byte> input) override;
  void set_listener(std::function<void()> ready) override;

 private:
  void receive();
  void end_input();
  void send();
  bool send_some();  // needs mutex_; false when the descriptor takes no more for now
  void call_listener();

  EventLoop& loop_;
  const Filter filter_;
  std::function<void()> listener_;  // the loop's thread, or before it runs
  std::function<void()> disconnected_;
  UniqueFd input_;
  bool input_pollable_ = false;
  bool input_watched_ = false;
  bool output_watched_ = false;

  std::mutex mutex_;  // guards what follows
  UniqueFd output_;
  std::deque<std::byte> received_;
  std::vector<std::byte> unsent_;
  bool receive_wanted_ = false;  // input waits until the guest has read some
  bool send_posted_ = false;
};

// Makes what `choice` says. `terminal_filter` sees what is typed, if it is a terminal that is typed at.
Result<std::unique_ptr<ConsoleBackend>> open_console(const ConsoleChoice& choice, EventLoop& loop,
                                                     StreamConsole::Filter terminal_filter);

}  // namespace doppel
