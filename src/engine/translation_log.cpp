#include "engine/translation_log.h"

#include <unistd.h>

#include <cerrno>
#include <string>

#include <fmt/format.h>

#include "base/log.h"
#include "ir/text.h"

namespace doppel {

Result<std::shared_ptr<TranslationLog>> TranslationLog::create(const TranslationLogOptions& options,
                                                               const riscv::IsaConfig& isa) {
  std::shared_ptr<TranslationLog> log(new TranslationLog(options, isa));
  if (options.perf_map) {
    const std::string path = fmt::format("/tmp/perf-{}.map", ::getpid());
    log->map_.reset(std::fopen(path.c_str(), "we"));
    if (log->map_ == nullptr) return fail_errno(errno, "--perf-map: {} cannot be written", path);
  }
  return log;
}

void TranslationLog::record(const CodeCache::Translation& translation) {
  const std::lock_guard lock(mutex_);
  const std::uint64_t at = translation.address;
  const char* kind = translation.region ? "region" : "block";
  if (map_ != nullptr) {
    fmt::print(map_.get(), "{:x} {:x} {}@{:#x}\n", reinterpret_cast<std::uintptr_t>(translation.code.data()),
               translation.code.size(), kind, at);
    std::fflush(map_.get());
  }
  if (!options_.blocks && !options_.ir && !options_.host) return;
  std::string text = fmt::format("{} at {:#x}, {} instructions, {} bytes of host code\n", kind, at,
                                 translation.optimized.origins.size(), translation.code.size());
  if (options_.blocks) {
    for (const ir::Origin& origin : translation.optimized.origins) {
      text += fmt::format("  {:#x}: {}\n", at + origin.offset, riscv::disassemble(decoder_, origin.raw, at + origin.offset));
    }
  }
  if (options_.ir) {
    text += fmt::format("lifted:\n{}after the passes:\n{}", ir::print(translation.lifted), ir::print(translation.optimized));
  }
  if (options_.host) {
    for (std::size_t i = 0; i < translation.code.size(); ++i) {
      text += fmt::format("{}{:02x}", i % 32 == 0 ? "\n  " : " ", std::to_integer<unsigned>(translation.code[i]));
    }
    text += '\n';
  }
  log_info("{}", text);
}

}  // namespace doppel
