#include "run/run_process.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <string_view>

#include "base/log.h"
#include "base/own_descriptor.h"
#include "base/report.h"
#include "engine/kept_code.h"
#include "engine/translation_log.h"
#include "isa/riscv/isa_config.h"
#include "process/abi/debug_server.h"
#include "process/abi/exec.h"
#include "process/abi/linux_process.h"
#include "run/run_options.h"
#include "run/statistics.h"

namespace doppel {
namespace {

std::vector<std::string> environment(const std::vector<std::string>& changes) {
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  for (const std::string& change : changes) {
    const std::size_t equals = change.find('=');
    const std::string prefix = change.substr(0, equals) + "=";
    const auto found = std::ranges::find_if(variables, [&](const auto& each) { return each.starts_with(prefix); });
    if (equals == change.npos) {
      if (found != variables.end()) variables.erase(found);
    } else if (found != variables.end()) {
      *found = change;
    } else {
      variables.push_back(change);
    }
  }
  return variables;
}

// A name without a slash is a file here, or else a program of the PATH.
std::string find_program(const std::string& name, const std::vector<std::string>& variables) {
  if (name.contains('/') || ::access(name.c_str(), F_OK) == 0) return name;
  constexpr std::string_view kPath = "PATH=";
  const auto path = std::ranges::find_if(variables, [&](const auto& each) { return each.starts_with(kPath); });
  const std::string folders = path != variables.end() ? path->substr(kPath.size()) : "/usr/bin:/bin";
  for (std::size_t at = 0; at <= folders.size();) {
    const std::size_t end = std::min(folders.find(':', at), folders.size());
    const std::string file = folders.substr(at, end - at) + "/" + name;
    if (end > at && ::access(file.c_str(), X_OK) == 0) return file;
    at = end + 1;
  }
  return name;
}

Result<void> open_log(const RunOptions& options) {
  const bool traced = options.trace_blocks || options.trace_ir || options.trace_host;
  // What is asked for is to be seen.
  const LogLevel usual = options.log_path || options.inherited_log ? LogLevel::kDebug : LogLevel::kWarning;
  const LogLevel lowest = std::min(options.log_level.value_or(usual), traced ? LogLevel::kInfo : LogLevel::kOff);
  if (options.inherited_log) {
    adopt_aside(*options.inherited_log);
    configure_log(lowest, *options.inherited_log);
    return {};
  }
  return configure_log(lowest, options.log_path.value_or(""));
}

Result<process::ProcessOptions> prepare(RunOptions options) {
  if (auto opened = open_log(options); !opened) return std::unexpected(opened.error());
  process::ProcessOptions process{.engine = options.engine, .address_bits = options.address_bits,
                                  .trace_calls = options.trace_calls, .passes = options.passes};
  if (options.inherited_self) {
    process::adopt_own_program(*options.inherited_self);
  } else {
    process::hold_own_program();
  }
  process.command = {"doppel", "run"};
  process.command.insert(process.command.end(), options.passed_on.begin(), options.passed_on.end());
  const TranslationLogOptions trace{.blocks = options.trace_blocks, .ir = options.trace_ir, .host = options.trace_host,
                                    .perf_map = options.perf_map};
  if (trace.any()) {
    auto log = TranslationLog::create(trace, riscv::IsaConfig::rva22());
    if (!log) return std::unexpected(log.error());
    process.translation_log = std::move(*log);
  }
  if (options.statistics_path) {
    auto fd = open_statistics(*options.statistics_path);
    if (!fd) return std::unexpected(fd.error());
    options.inherited_statistics = *fd;
    options.statistics_of = ::getpid();
  } else if (options.inherited_statistics && *options.inherited_statistics > STDERR_FILENO) {
    adopt_aside(*options.inherited_statistics);
  }
  if (options.inherited_statistics && options.statistics_of) {
    process.at_end = statistics_writer(*options.inherited_statistics, *options.statistics_of);
    process.command.insert(process.command.end(),
                           {"--inherit-stats", std::to_string(*options.inherited_statistics), "--stats-of",
                            std::to_string(*options.statistics_of)});
  }
  if (options.engine == EngineKind::kInterpret) {
    // Has no use for it.
  } else if (options.inherited_code_cache) {
    adopt_aside(*options.inherited_code_cache);
    process.code_folder = *options.inherited_code_cache;
  } else {
    auto folder = open_code_folder(options.code_cache);
    // By binfmt_misc one environment comes to programs of other users and in other roots, some of which cannot have the
    // folder that it names.
    if (!folder && !options.program_fd) return std::unexpected(folder.error());
    if (folder && *folder) process.code_folder = keep_aside(folder->release());
  }
  if (process.code_folder >= 0) {
    process.command.insert(process.command.end(), {"--inherit-code-cache", std::to_string(process.code_folder)});
  } else {
    process.command.insert(process.command.end(), {"--code-cache", kNoCodeCache});
  }
  if (!options.library_prefix.empty()) {
    // It holds wherever the program goes.
    char* whole = ::realpath(options.library_prefix.c_str(), nullptr);
    if (whole == nullptr) return fail_errno(errno, "-L {}", options.library_prefix);
    std::ranges::replace(process.command, options.library_prefix, std::string(whole));
    process.program.library_prefix = whole;
    ::free(whole);
  }
  if (options.gdb) {
    auto debugger = process::DebugServer::listen(*options.gdb, options.root.has_value());
    if (!debugger) return std::unexpected(debugger.error());
    process.debugger = std::move(*debugger);
  }
  if (options.root) {
    if (auto entered = enter_root(*options.root, options.binds); !entered) return std::unexpected(entered.error());
  }
  if (options.directory && ::chdir(options.directory->c_str()) != 0) {
    return fail_errno(errno, "--cwd {}", *options.directory);
  }
  process.program.environment = environment(options.variables);
  process.program.path = options.program_fd ? options.program[0]
                                            : find_program(options.program[0], process.program.environment);
  process.program.arguments = std::move(options.program);
  if (options.name) process.program.arguments[0] = *options.name;
  process.program.descriptor = options.program_fd.value_or(-1);
  return process;
}

int run(RunOptions options) {
  auto prepared = prepare(std::move(options));
  if (!prepared) {
    report(prepared.error());
    return kExitFailure;
  }
  auto process = process::LinuxProcess::create(std::move(*prepared));
  if (!process) {
    report(process.error().error);
    return process.error().status;
  }
  (*process)->run();
}

}  // namespace

int run_process(BinfmtStart start) {
  RunOptions options;
  options.name = std::move(start.arguments[0]);
  options.program_fd = start.program_fd;
  options.program = std::move(start.arguments);
  options.program[0] = std::move(start.path);
  // The user's folder is one inside the root that the program runs in: nothing is to appear there unasked.
  if (::secure_getenv(kCodeCacheVariable) == nullptr) options.code_cache = kNoCodeCache;
  return run(std::move(options));
}

int run_process(int argc, const char* const* argv) {
  auto options = parse_run_options(argc, argv);
  if (!options) {
    report(options.error());
    return kExitUsage;
  }
  if (options->help) {
    fmt::print("{}", run_help());
    return 0;
  }
  return run(std::move(*options));
}

}  // namespace doppel
