#include "run/run_process.h"

#include <unistd.h>

#include <string_view>

#include "base/log.h"
#include "base/report.h"
#include "process/abi/linux_process.h"

namespace doppel {
namespace {

constexpr std::string_view kHelp =
    "Run a riscv64 Linux program\n"
    "Usage: doppel run [OPTIONS] PROGRAM [ARGS...]\n\n"
    "Options:\n"
    "  -h, --help                      This text\n"
    "  -L DIR                          Look for the program's loader and libraries under DIR first\n"
    "  --engine NAME                   What runs the program's code: translate (default) or interpret\n"
    "  --argv0 NAME                    What the program sees as its name\n"
    "  --strace                        One line on stderr for each system call\n"
    "  --log FILE                      Append to FILE: unknown system calls, registers at a fatal signal\n"
    "\n"
    "Exit status: the program's; 2 for a mistake in options, 125 when Doppel itself fails, 126 for a file\n"
    "that cannot be run, 127 for one that is not there. Death by a signal passes on.\n";

Result<process::ProcessOptions> parse(int argc, const char* const* argv) {
  process::ProcessOptions options;
  std::string name;
  int i = 1;
  for (; i < argc && argv[i][0] == '-'; ++i) {
    std::string_view option = argv[i];
    if (option == "--") {
      ++i;
      break;
    }
    if (option == "--strace") {
      options.trace_calls = true;
      continue;
    }
    std::string_view value;
    if (const std::size_t equals = option.find('='); option.starts_with("--") && equals != option.npos) {
      value = option.substr(equals + 1);
      option = option.substr(0, equals);
    } else if (i + 1 < argc) {
      value = argv[++i];
    } else {
      return fail("run: {}: unknown option, or its value is missing", option);
    }
    if (option == "-L") {
      options.program.library_prefix = value;
    } else if (option == "--log") {
      if (auto opened = configure_log(LogLevel::kDebug, std::string(value)); !opened) {
        return std::unexpected(opened.error());
      }
    } else if (option == "--argv0") {
      name = value;
    } else if (option == "--engine" && (value == "translate" || value == "interpret")) {
      options.engine = value == "translate" ? EngineKind::kTranslate : EngineKind::kInterpret;
    } else if (option == "--engine") {
      return fail("--engine: '{}' is none of translate, interpret", value);
    } else {
      return fail("run: unknown option {}", option);
    }
  }
  if (i >= argc) return fail("run: which program? (doppel run --help)");
  options.program.path = argv[i];
  for (int k = i; k < argc; ++k) options.program.arguments.emplace_back(argv[k]);
  if (!name.empty()) options.program.arguments[0] = name;
  for (char** variable = environ; *variable != nullptr; ++variable) options.program.environment.emplace_back(*variable);
  return options;
}

}  // namespace

int run_process(int argc, const char* const* argv) {
  if (argc > 1 && (std::string_view(argv[1]) == "--help" || std::string_view(argv[1]) == "-h")) {
    fmt::print("{}", kHelp);
    return 0;
  }
  auto options = parse(argc, argv);
  if (!options) {
    report(options.error());
    return kExitUsage;
  }
  auto process = process::LinuxProcess::create(std::move(*options));
  if (!process) {
    report(process.error().error);
    return process.error().status;
  }
  (*process)->run();
}

}  // namespace doppel
