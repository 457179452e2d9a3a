#include "run/run_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>

namespace doppel {
namespace {

constexpr const char* kHelp =
    "Run a riscv64 Linux program\n"
    "Usage: doppel run [OPTIONS] PROGRAM [ARGS...]\n\n"
    "Options:\n"
    "  -h, --help                      This text\n"
    "  --root DIR                      The program's /: all its paths are inside DIR, with the host's /proc, /dev and\n"
    "                                  /sys there. Needs no privilege; the user is root to itself then\n"
    "  --bind SRC[:DST]                With --root: a path of the host inside it (repeatable)\n"
    "  -L DIR                          Without --root: look for the program's loader and libraries under DIR first\n"
    "  --env NAME=VALUE                Set a variable for the program (repeatable)\n"
    "  --unset NAME                    Take one away (repeatable)\n"
    "  --cwd DIR                       Where it starts, inside the root (default: /)\n"
    "  --argv0 NAME                    What the program sees as its name\n"
    "  --engine NAME                   What runs the program's code: translate (default) or interpret\n"
    "  --cpu NAME                      The processor it sees: rva22\n"
    "  --address-bits 39|48|57         How large its address space can be: beyond 39 bits lies what it asks to lie there\n"
    "  --code-cache DIR|off            Where translated code is kept for the next run of a program (default:\n"
    "                                  ~/.cache/doppel/code, or what DOPPEL_CODE_CACHE says)\n"
    "  --strace                        One line on stderr for each system call\n"
    "  --gdb PORT|PATH                 Wait for gdb at a port of 127.0.0.1 or a socket, and obey it\n"
    "  --stats[=FILE]                  At the end, one JSON object on stderr or in FILE\n"
    "  --log FILE                      Append to FILE: unknown system calls, registers at a fatal signal\n"
    "  --log-level LEVEL               debug (with --log), info, warning (default), error, off\n"
    "  --trace WHAT[,...]              Trace translation to the log: blocks, ir, host\n"
    "  --without-pass NAME[,...]       Leave out passes of the translator; no code is kept then (repeatable)\n"
    "  --perf-map                      Name translated code for Linux perf, in /tmp/perf-PID.map\n"
    "\n"
    "Exit status: the program's; 2 for a mistake in options, 125 when Doppel itself fails, 126 for a file\n"
    "that cannot be run, 127 for one that is not there. Death by a signal passes on.\n"
    "\n"
    "Example: doppel run --root debian-riscv64 --bind /home /bin/bash -c 'uname -m'\n";

using Apply = Result<void> (*)(RunOptions&, const std::string&);

enum class Value : std::uint8_t { kNone, kNeeded, kOptional };

struct Option {
  std::string_view name;
  Value value;
  bool passed_on;  // to programs that this one starts
  Apply apply;
};

template <auto Member>
Result<void> set_text(RunOptions& options, const std::string& value) {
  options.*Member = value;
  return {};
}

template <bool RunOptions::*Member>
Result<void> set_flag(RunOptions& options, const std::string&) {
  options.*Member = true;
  return {};
}

template <auto Member>
Result<void> set_number(RunOptions& options, const std::string& value) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size() || number < 0) return fail("'{}' is no number", value);
  options.*Member = number;
  return {};
}

Result<void> set_engine(RunOptions& options, const std::string& value) {
  if (value != "translate" && value != "interpret") return fail("--engine: '{}' is none of translate, interpret", value);
  options.engine = value == "translate" ? EngineKind::kTranslate : EngineKind::kInterpret;
  return {};
}

Result<void> set_address_bits(RunOptions& options, const std::string& value) {
  for (const unsigned bits : {39u, 48u, 57u}) {
    if (value != std::to_string(bits)) continue;
    options.address_bits = bits;
    return {};
  }
  return fail("--address-bits: '{}' is none of 39, 48, 57", value);
}

Result<void> set_level(RunOptions& options, const std::string& value) {
  constexpr std::array<std::pair<std::string_view, LogLevel>, 5> kLevels{{{"debug", LogLevel::kDebug},
                                                                          {"info", LogLevel::kInfo},
                                                                          {"warning", LogLevel::kWarning},
                                                                          {"error", LogLevel::kError},
                                                                          {"off", LogLevel::kOff}}};
  const auto known = std::ranges::find(kLevels, value, [](const auto& level) { return level.first; });
  if (known == kLevels.end()) return fail("--log-level: '{}' is none of debug, info, warning, error, off", value);
  options.log_level = known->second;
  return {};
}

Result<void> set_trace(RunOptions& options, const std::string& value) {
  for (std::size_t at = 0; at <= value.size();) {
    const std::size_t end = std::min(value.find(',', at), value.size());
    const std::string_view what = std::string_view(value).substr(at, end - at);
    if (what == "blocks") {
      options.trace_blocks = true;
    } else if (what == "ir") {
      options.trace_ir = true;
    } else if (what == "host") {
      options.trace_host = true;
    } else {
      return fail("--trace: '{}' is none of blocks, ir, host", what);
    }
    at = end + 1;
  }
  return {};
}

constexpr std::array kOptions{
    Option{"-h", Value::kNone, false, set_flag<&RunOptions::help>},
    Option{"--help", Value::kNone, false, set_flag<&RunOptions::help>},
    Option{"--root", Value::kNeeded, false, set_text<&RunOptions::root>},
    Option{"--bind", Value::kNeeded, false, [](RunOptions& o, const std::string& value) -> Result<void> {
             auto bind = parse_bind(value);
             if (!bind) return std::unexpected(bind.error());
             o.binds.push_back(std::move(*bind));
             return {};
           }},
    Option{"-L", Value::kNeeded, true, set_text<&RunOptions::library_prefix>},
    Option{"--env", Value::kNeeded, false, [](RunOptions& o, const std::string& value) -> Result<void> {
             const std::size_t equals = value.find('=');
             if (equals == 0 || equals == value.npos) return fail("--env: '{}' is no NAME=VALUE", value);
             o.variables.push_back(value);
             return {};
           }},
    Option{"--unset", Value::kNeeded, false, [](RunOptions& o, const std::string& value) -> Result<void> {
             if (value.empty() || value.contains('=')) return fail("--unset: '{}' is no name of a variable", value);
             o.variables.push_back(value);
             return {};
           }},
    Option{"--cwd", Value::kNeeded, false, set_text<&RunOptions::directory>},
    Option{"--argv0", Value::kNeeded, false, set_text<&RunOptions::name>},
    Option{"--engine", Value::kNeeded, true, set_engine},
    Option{"--cpu", Value::kNeeded, true, [](RunOptions&, const std::string& value) -> Result<void> {
             if (value != "rva22") return fail("--cpu: '{}' is not available; rva22 is", value);
             return {};
           }},
    Option{"--address-bits", Value::kNeeded, true, set_address_bits},
    Option{"--strace", Value::kNone, true, set_flag<&RunOptions::trace_calls>},
    Option{"--stats", Value::kOptional, false, set_text<&RunOptions::statistics_path>},
    Option{"--code-cache", Value::kNeeded, false, set_text<&RunOptions::code_cache>},
    Option{"--log", Value::kNeeded, false, set_text<&RunOptions::log_path>},
    Option{"--log-level", Value::kNeeded, true, set_level},
    Option{"--trace", Value::kNeeded, true, set_trace},
    Option{"--without-pass", Value::kNeeded, true,
           [](RunOptions& o, const std::string& value) { return leave_out_passes(o.passes, value); }},
    Option{"--perf-map", Value::kNone, true, set_flag<&RunOptions::perf_map>},
    Option{"--gdb", Value::kNeeded, false, set_text<&RunOptions::gdb>},
    // Not for users.
    Option{"--inherit-log", Value::kNeeded, false, set_number<&RunOptions::inherited_log>},
    Option{"--inherit-self", Value::kNeeded, false, set_number<&RunOptions::inherited_self>},
    Option{"--inherit-stats", Value::kNeeded, false, set_number<&RunOptions::inherited_statistics>},
    Option{"--inherit-code-cache", Value::kNeeded, false, set_number<&RunOptions::inherited_code_cache>},
    Option{"--stats-of", Value::kNeeded, false, set_number<&RunOptions::statistics_of>},
    Option{"--program-fd", Value::kNeeded, false, set_number<&RunOptions::program_fd>},
};

}  // namespace

const char* run_help() { return kHelp; }

Result<RunOptions> parse_run_options(int argc, const char* const* argv) {
  RunOptions options;
  int i = 1;
  for (; i < argc && argv[i][0] == '-'; ++i) {
    std::string_view word = argv[i];
    if (word == "--") {
      ++i;
      break;
    }
    std::optional<std::string> value;
    if (const std::size_t equals = word.find('='); word.starts_with("--") && equals != word.npos) {
      value = word.substr(equals + 1);
      word = word.substr(0, equals);
    }
    const auto option = std::ranges::find(kOptions, word, &Option::name);
    if (option == kOptions.end()) return fail("run: {}: unknown option (doppel run --help)", word);
    if (option->value == Value::kNone && value) return fail("run: {} takes no value", word);
    if (option->value == Value::kNeeded && !value) {
      if (i + 1 >= argc) return fail("run: {}: its value is missing", word);
      value = argv[++i];
    }
    if (auto applied = option->apply(options, value.value_or("")); !applied) return std::unexpected(applied.error());
    if (!option->passed_on) continue;
    options.passed_on.emplace_back(word);
    if (value) options.passed_on.push_back(*value);
  }
  if (options.help) return options;
  if (options.root && !options.library_prefix.empty()) return fail("run: -L is for programs without --root");
  if (!options.root && !options.binds.empty()) return fail("run: --bind is for programs with --root");
  if (i >= argc) return fail("run: which program? (doppel run --help)");
  options.program.assign(argv + i, argv + argc);
  return options;
}

}  // namespace doppel
