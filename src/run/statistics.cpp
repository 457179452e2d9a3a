#include "run/statistics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>

#include <fmt/format.h>

#include "base/own_descriptor.h"

namespace doppel {
namespace {

using Clock = std::chrono::steady_clock;

// The names are ours, so nothing needs escaping.
std::string to_json(const process::ProgramStatistics& all, double seconds) {
  const EngineStatistics& engine = all.translation;
  std::string traps;
  for (std::size_t cause = 0; cause < all.exceptions.size(); ++cause) {
    if (all.exceptions[cause] == 0) continue;
    traps += fmt::format("{}\n    \"{}\": {}", traps.empty() ? "" : ",", riscv::kExceptionNames[cause],
                         all.exceptions[cause]);
  }
  return fmt::format(R"({{
  "engine": "{}",
  "seconds": {},
  "instructions": {},
  "blocks_translated": {},
  "regions_translated": {},
  "translate_seconds": {},
  "code_bytes": {},
  "code_cache": {{
    "hits": {},
    "misses": {},
    "loaded": {},
    "evicted": {},
    "invalidated": {}
  }},
  "exits": {{
    "interpreted_instruction": {},
    "link": {}
  }},
  "traps": {{{}
  }},
  "harts": [
    {{
      "instructions": {}
    }}
  ]
}}
)",
                     all.engine, seconds, all.instructions, engine.blocks_translated, engine.regions_translated,
                     engine.translate_seconds, engine.code_bytes, engine.cache_hits, engine.cache_misses,
                     engine.cache_loaded, engine.cache_evicted, engine.cache_invalidated, engine.steps, engine.links,
                     traps, all.instructions);
}

}  // namespace

Result<int> open_statistics(const std::string& path) {
  if (path.empty()) return STDERR_FILENO;
  const int fd = keep_aside(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
  if (fd < 0) return fail_errno(errno, "--stats: {} cannot be written", path);
  return fd;
}

std::function<void(const process::ProgramStatistics&)> statistics_writer(int fd, int pid) {
  return [fd, pid, start = Clock::now()](const process::ProgramStatistics& all) {
    if (::getpid() != pid) return;
    const std::string text = to_json(all, std::chrono::duration<double>(Clock::now() - start).count());
    // The program's own status matters more than that these cannot be written.
    if (::write(fd, text.data(), text.size()) < 0) return;
  };
}

}  // namespace doppel
