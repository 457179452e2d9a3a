// What the user asked for: the command line of `doppel`, and VM.toml, which says the same under the same names.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "app/console.h"
#include "base/log.h"
#include "base/result.h"
#include "machine/machine.h"

namespace doppel {

struct BootOptions {
  std::string name;
  MachineConfig machine;
  ConsoleChoice console;
  std::optional<ConsoleChoice> virtio_console;  // none: the machine has no such device
  bool uses_stdio() const {
    return console.kind == ConsoleChoice::Kind::kStdio ||
           (virtio_console && virtio_console->kind == ConsoleChoice::Kind::kStdio);
  }
  std::optional<std::string> code_cache;  // a folder, or "off"
  std::string gdb;  // where to wait for it; empty: nowhere
  std::optional<std::chrono::duration<double>> timeout;
  bool statistics = false;
  std::string statistics_path;  // empty: stderr
  LogLevel log_level = LogLevel::kWarning;
  std::string log_path;  // empty: stderr
};

struct PrintText {
  std::string text;  // help or version, for stdout
};

using Command = std::variant<PrintText, BootOptions>;

// An error is the user's: its sentence goes to stderr, and the exit status is 2.
Result<Command> parse_command_line(int argc, const char* const* argv);

// The parts that tests look at on their own.
Result<std::uint64_t> parse_size(std::string_view text);
Result<BootOptions> parse_boot_file(const std::string& path);

// The names of all options of `doppel boot`, without dashes.
std::vector<std::string_view> boot_option_names();

}  // namespace doppel
