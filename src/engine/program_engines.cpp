#include "engine/program_engines.h"

#include "engine/kept_code.h"
#include "engine/translator_engine.h"

namespace doppel {

// A program has no timer's interrupts to take: it may run for longer at a time than a machine's hart. A signal waits for
// some 20 microseconds, and each instruction may be a call that takes 16 bytes of the host's stack (kProgramStackBytes).
static constexpr TranslatorEngine::Options kOptions{.slice = 32768, .slices_a_sample = 1, .hot_after = 8};
static_assert(kOptions.slice * 16 * 2 <= static_cast<std::int64_t>(kProgramStackBytes));

// An interpreter that is known while it lives.
class ProgramEngines::Interpreting final : public Engine {
 public:
  Interpreting(ProgramEngines& engines, riscv::Hart& hart) : engines_(engines), hart_(hart), interpreter_(hart) {
    const std::lock_guard lock(engines_.mutex_);
    engines_.harts_.push_back(&hart);
  }
  ~Interpreting() override {
    const std::lock_guard lock(engines_.mutex_);
    std::erase(engines_.harts_, &hart_);
  }
  std::string_view name() const override { return "interpret"; }
  riscv::Exit run(std::uint64_t budget) override { return interpreter_.run(budget); }
  EngineStatistics statistics() const override { return {}; }

 private:
  ProgramEngines& engines_;
  riscv::Hart& hart_;
  riscv::Interpreter interpreter_;
};

ProgramEngines::ProgramEngines(EngineKind kind, std::shared_ptr<TranslationLog> log, const PassSet& passes)
    : kind_(kind), log_(std::move(log)), passes_(passes) {}

ProgramEngines::~ProgramEngines() = default;

Result<std::unique_ptr<Engine>> ProgramEngines::make(riscv::Hart& hart) {
  if (kind_ == EngineKind::kInterpret) return std::make_unique<Interpreting>(*this, hart);
  const std::lock_guard lock(mutex_);
  const bool first = cache_ == nullptr;
  if (first) {
    TranslatorEngine::Options options = kOptions;
    options.passes = passes_;
    auto cache = TranslatorEngine::make_cache(hart, options);
    if (!cache) return std::unexpected(cache.error());
    cache_ = std::move(*cache);
    cache_->use(archive_);
  }
  auto engine = std::make_unique<TranslatorEngine>(hart, cache_, kOptions);
  if (first && log_ != nullptr) engine->trace(log_);
  return engine;
}

std::optional<std::uint64_t> ProgramEngines::keep_code(int folder, std::span<const std::byte> identity) {
  // A trace is to show the translations themselves.
  if (kind_ == EngineKind::kInterpret || log_ != nullptr || passes_ != PassSet::all()) return std::nullopt;
  archive_ = open_code_archive(folder, identity);
  if (archive_ == nullptr) return std::nullopt;
  return archive_->seed();
}

void ProgramEngines::save_code() {
  const std::lock_guard lock(mutex_);
  if (cache_ != nullptr) cache_->save();
}

void ProgramEngines::code_changed(std::uint64_t gva, std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (cache_ != nullptr) cache_->invalidate(gva, bytes);
  for (riscv::Hart* hart : harts_) hart->post_fence({.instructions = true, .asid = {}});
}

void ProgramEngines::lock() {
  mutex_.lock();
  if (cache_ != nullptr) cache_->mutex().lock();
}

void ProgramEngines::unlock() {
  if (cache_ != nullptr) cache_->mutex().unlock();
  mutex_.unlock();
}

void ProgramEngines::start_anew() {
  const std::lock_guard lock(mutex_);
  cache_.reset();
  if (archive_ != nullptr) archive_->forget_added();
  harts_.clear();
}

}  // namespace doppel
