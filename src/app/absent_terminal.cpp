#include "app/absent_terminal.h"

#include <algorithm>
#include <charconv>
#include <chrono>

#include <fmt/format.h>

namespace doppel {
namespace {

constexpr char kEscape = '\x1b';

// A parameter of CUP: from 1, which is also what an absent one means, to `most`.
unsigned position(std::string_view parameter, unsigned most) {
  unsigned value = 1;
  const auto [end, error] = std::from_chars(parameter.data(), parameter.data() + parameter.size(), value);
  if (error == std::errc::result_out_of_range) return most;
  return std::clamp(value, 1u, most);
}

}  // namespace

std::string AbsentTerminal::answers_to(std::span<const std::byte> output) {
  std::string answers;
  for (const std::byte byte : output) {
    const auto c = static_cast<char>(byte);
    if (c == kEscape) {
      state_ = State::kEscape;
    } else if (state_ == State::kEscape) {
      state_ = c == '[' ? State::kSequence : State::kText;
      parameter_bytes_ = 0;
    } else if (state_ == State::kSequence) {
      // ECMA-48, 5.4: parameters and intermediate bytes, then a final one.
      if (c >= 0x20 && c <= 0x3f && parameter_bytes_ < kMostParameters) {
        parameters_[parameter_bytes_++] = c;
        continue;
      }
      state_ = State::kText;
      answers += finish(c);
    }
  }
  return answers;
}

std::string AbsentTerminal::finish(char final_byte) {
  const std::string_view text = parameters();
  switch (final_byte) {
    case 'H':
    case 'f': {
      if (text.find_first_not_of("0123456789;") != std::string_view::npos) return {};
      const std::size_t separator = std::min(text.find(';'), text.size());
      line_ = position(text.substr(0, separator), kLines);
      column_ = position(text.substr(std::min(separator + 1, text.size())), kColumns);
      return {};
    }
    case 'n':
      if (text == "5") return "\x1b[0n";
      if (text == "6") return fmt::format("\x1b[{};{}R", line_, column_);
      return {};
    case 'c':
      // A VT100 without options.
      return text.empty() || text == "0" ? "\x1b[?1;0c" : "";
    case 't':
      return text == "18" ? fmt::format("\x1b[8;{};{}t", kLines, kColumns) : "";
    default: return {};
  }
}

AnsweringConsole::AnsweringConsole(EventLoop& loop, std::unique_ptr<ConsoleBackend> far_end)
    : far_end_(std::move(far_end)), tell_(loop.make_timer([this] {
        if (listener_) listener_();
      })) {}

std::size_t AnsweringConsole::write(std::span<const std::byte> output) {
  const std::size_t count = far_end_->write(output);
  const std::lock_guard lock(mutex_);
  const std::string answers = terminal_.answers_to(output.first(count));
  if (answers.empty() || answers_.size() + answers.size() > kMostWaiting) return count;
  answers_ += answers;
  tell_->arm(std::chrono::steady_clock::now());
  return count;
}

std::size_t AnsweringConsole::read(std::span<std::byte> input) {
  std::size_t count = 0;
  {
    const std::lock_guard lock(mutex_);
    count = std::min(input.size(), answers_.size());
    std::ranges::copy(std::as_bytes(std::span(answers_).first(count)), input.begin());
    answers_.erase(0, count);
  }
  return count + far_end_->read(input.subspan(count));
}

void AnsweringConsole::set_listener(std::function<void()> ready) {
  listener_ = ready;
  far_end_->set_listener(std::move(ready));
}

}  // namespace doppel
