// The user's terminal while a guest has it: raw, with Ctrl-A as the key to Doppel itself.
#pragma once

#include <cstddef>
#include <functional>
#include <vector>

namespace doppel {

// Puts the terminal on standard input into raw mode, and back on destruction, at exit() and when a signal kills
// the process. One at a time; does nothing where standard input is no terminal or the process is in the background.
class RawTerminal {
 public:
  RawTerminal();
  ~RawTerminal();
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
};

// Takes Ctrl-A and the key after it out of what is typed: X leaves, H shows help, Ctrl-A or A sends a Ctrl-A.
class EscapeKeys {
 public:
  explicit EscapeKeys(std::function<void()> leave) : leave_(std::move(leave)) {}
  void operator()(std::vector<std::byte>& typed);

 private:
  std::function<void()> leave_;
  bool escaped_ = false;
};

}  // namespace doppel
