// The command line of `doppel run`. Options end at PROGRAM: all after it is the program's.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "engine/hart_thread.h"
#include "run/root.h"

namespace doppel {

struct RunOptions {
  bool help = false;
  EngineKind engine = EngineKind::kTranslate;
  unsigned address_bits = 39;
  std::optional<std::string> root;
  std::vector<Bind> binds;
  std::string library_prefix;
  std::optional<std::string> directory;  // --cwd
  std::optional<std::string> name;       // --argv0
  std::vector<std::string> variables;    // --env and --unset, in order: NAME=VALUE, or NAME alone to go
  bool trace_calls = false;
  std::optional<std::string> gdb;  // a port or a path
  PassSet passes = PassSet::all();
  bool trace_blocks = false, trace_ir = false, trace_host = false, perf_map = false;
  std::optional<std::string> statistics_path;  // empty: stderr
  std::optional<std::string> code_cache;  // a folder, or "off"
  std::optional<std::string> log_path;
  std::optional<LogLevel> log_level;
  // From a Doppel that became this one: its descriptors for the log, the program `doppel` and so on, and the guest's
  // program where that has no name.
  std::optional<int> inherited_log, inherited_self, inherited_statistics, inherited_code_cache, program_fd;
  std::optional<int> statistics_of;  // the process that tells them, whatever program it has become
  std::vector<std::string> program;  // with its arguments
  // What of all this holds for programs that this one becomes or starts, as a command line.
  std::vector<std::string> passed_on;
};

// argv[0] is "run".
Result<RunOptions> parse_run_options(int argc, const char* const* argv);
const char* run_help();

}  // namespace doppel
