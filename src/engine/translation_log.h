// What users can see of translation: --trace=blocks, ir, host, and --perf-map.
#pragma once

#include <cstdio>
#include <memory>
#include <mutex>

#include "base/result.h"
#include "isa/riscv/decode.h"
#include "translator/code_cache.h"

namespace doppel {

struct TranslationLogOptions {
  bool blocks = false;    // the guest instructions of each block, disassembled
  bool ir = false;        // as lifted and after the passes
  bool host = false;      // the host code, as bytes
  bool perf_map = false;  // names for Linux perf, in /tmp/perf-PID.map as it expects

  bool any() const { return blocks || ir || host || perf_map; }
};

// One for all harts of a machine: any thread may call record().
class TranslationLog {
 public:
  // Fails when the map's file cannot be written.
  static Result<std::shared_ptr<TranslationLog>> create(const TranslationLogOptions& options,
                                                        const riscv::IsaConfig& isa);
  void record(const CodeCache::Translation& translation);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  TranslationLog(const TranslationLogOptions& options, const riscv::IsaConfig& isa)
      : options_(options), decoder_(isa) {}

  const TranslationLogOptions options_;
  const riscv::Decoder decoder_;
  std::mutex mutex_;
  std::unique_ptr<std::FILE, Close> map_;
};

}  // namespace doppel
