// The far ends that a guest's serial line may have: the terminal, a file, a socket, nothing.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/event_loop.h"
#include "base/result.h"
#include "device/console_backend.h"
#include "device/fd_console.h"

namespace doppel {

struct ConsoleChoice {
  enum class Kind { kStdio, kNone, kFile, kUnix };
  Kind kind = Kind::kStdio;
  std::string path;  // kFile, kUnix
};

// "stdio", "none", "file=PATH" (output only) or "unix=PATH" (a socket to listen at, one client at a time).
Result<ConsoleChoice> parse_console(std::string_view text);

// Makes what `choice` says. Where no terminal can answer a guest's questions about it, Doppel does (absent_terminal.h).
// `terminal_filter` sees what is typed, if it is a terminal that is typed at.
// `loop` outlives the result, which is made and destroyed on its thread or while it does not run.
Result<std::unique_ptr<ConsoleBackend>> open_console(const ConsoleChoice& choice, EventLoop& loop,
                                                     FdConsole::InputFilter terminal_filter);

}  // namespace doppel
