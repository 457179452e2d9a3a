#include "app/terminal.h"

#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <string_view>
#include <utility>

namespace doppel {
namespace {

// For the signal handler and atexit, which can be given nothing else.
termios g_saved;
volatile sig_atomic_t g_is_raw = 0;

constexpr std::array kFatalSignals = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

void restore() {
  if (g_is_raw == 0) return;
  g_is_raw = 0;
  ::tcsetattr(STDIN_FILENO, TCSADRAIN, &g_saved);
}

// tcsetattr and raise are async-signal-safe (POSIX.1-2017, 2.4.3).
void restore_and_die(int signal) {
  restore();
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

constexpr std::byte kCtrlA{1};

constexpr std::string_view kKeys =
    "\r\n"
    "  Ctrl-A X   leave: ends the virtual machine\r\n"
    "  Ctrl-A A   send Ctrl-A to the guest\r\n"
    "  Ctrl-A H   this list\r\n";

void show_keys() {
  [[maybe_unused]] const auto ignored = ::write(STDERR_FILENO, kKeys.data(), kKeys.size());
}

}  // namespace

RawTerminal::RawTerminal() {
  if (::isatty(STDIN_FILENO) != 1 || ::tcgetpgrp(STDIN_FILENO) != ::getpgrp()) return;
  if (::tcgetattr(STDIN_FILENO, &g_saved) != 0) return;
  [[maybe_unused]] static const int registered = std::atexit(restore);
  for (const int signal : kFatalSignals) ::signal(signal, restore_and_die);
  termios raw = g_saved;
  ::cfmakeraw(&raw);
  raw.c_oflag |= OPOST;  // our own lines, and those of early kernels, end without a carriage return
  g_is_raw = 1;
  ::tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

RawTerminal::~RawTerminal() { restore(); }

void EscapeKeys::operator()(std::vector<std::byte>& typed) {
  std::vector<std::byte> kept;
  for (const std::byte key : typed) {
    if (!std::exchange(escaped_, false)) {
      if (key == kCtrlA) {
        escaped_ = true;
      } else {
        kept.push_back(key);
      }
      continue;
    }
    switch (static_cast<char>(key)) {
      case 'x':
      case 'X': leave_(); break;
      case 'h':
      case 'H':
      case '?': show_keys(); break;
      case 'a':
      case 'A':
      case '\x01': kept.push_back(kCtrlA); break;
      default: break;
    }
  }
  typed = std::move(kept);
}

}  // namespace doppel
