// Answers a guest's questions about its terminal where none is typed at: a pipe, a file, nothing at all.
//
// Systems ask a serial line for the terminal's size at their start, by escape sequences, and wait for an answer: systemd a
// third of a second, twice in a boot. In a CI job nobody would answer.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "device/console_backend.h"

namespace doppel {

// Speaks for a terminal of 24 lines by 80 columns, by ECMA-48 and what xterm adds to it: device status and cursor position
// (DSR 5 and 6), device attributes (DA), the size of the text area (window operation 18). Of the cursor it knows where it
// was last sent to (CUP, HVP), which at the far corner is the size, and not what text did to it since.
class AbsentTerminal {
 public:
  static constexpr unsigned kLines = 24, kColumns = 80;

  // The answers to what `output` asks, which may begin and end within a sequence.
  std::string answers_to(std::span<const std::byte> output);

 private:
  enum class State : unsigned char { kText, kEscape, kSequence };
  static constexpr std::size_t kMostParameters = 32;  // in bytes; a longer sequence is none of these

  std::string finish(char final_byte);
  std::string_view parameters() const { return {parameters_.data(), parameter_bytes_}; }

  State state_ = State::kText;
  std::array<char, kMostParameters> parameters_{};
  std::size_t parameter_bytes_ = 0;
  unsigned line_ = 1, column_ = 1;
};

// A console whose far end is no terminal, with those answers among its input. Threads as in console_backend.h; `loop` outlives
// it.
class AnsweringConsole final : public ConsoleBackend {
 public:
  AnsweringConsole(EventLoop& loop, std::unique_ptr<ConsoleBackend> far_end);

  std::size_t write(std::span<const std::byte> output) override;
  std::size_t read(std::span<std::byte> input) override;
  void set_listener(std::function<void()> ready) override;

 private:
  static constexpr std::size_t kMostWaiting = 256;  // bytes: a guest that does not read gets no more answers

  std::unique_ptr<ConsoleBackend> far_end_;
  std::function<void()> listener_;
  std::unique_ptr<EventLoop::Timer> tell_;  // the listener, on the loop's thread
  std::mutex mutex_;
  AbsentTerminal terminal_;  // guarded by mutex_
  std::string answers_;      // likewise: not read yet
};

}  // namespace doppel
