#include "engine/hart_thread.h"

#include "base/processors.h"
#include "engine/translator_engine.h"
#include "isa/riscv/interpreter.h"

namespace doppel {
namespace {

class InterpreterEngine final : public Engine {
 public:
  explicit InterpreterEngine(riscv::Hart& hart) : interpreter_(hart) {}
  std::string_view name() const override { return "interpret"; }
  riscv::Exit run(std::uint64_t budget) override { return interpreter_.run(budget); }
  EngineStatistics statistics() const override { return {}; }

 private:
  riscv::Interpreter interpreter_;
};

}  // namespace

std::unique_ptr<Background> make_background() {
  if (!has_several_processors()) return nullptr;
  return std::make_unique<BackgroundCompiler>();
}

Result<std::unique_ptr<Engine>> make_engine(EngineKind kind, riscv::Hart& hart, const TranslatorParts& parts) {
  if (kind == EngineKind::kTranslate) {
    auto engine = TranslatorEngine::create(hart, {.passes = parts.passes, .background = parts.background});
    if (engine && parts.log != nullptr) (*engine)->trace(parts.log);
    if (engine) (*engine)->keep_code(parts.kept);
    return engine;
  }
  return std::make_unique<InterpreterEngine>(hart);
}

EngineStatistics& EngineStatistics::operator+=(const EngineStatistics& other) {
  steps += other.steps;
  links += other.links;
  blocks_translated += other.blocks_translated;
  regions_translated += other.regions_translated;
  translate_seconds += other.translate_seconds;
  background_seconds += other.background_seconds;
  code_bytes += other.code_bytes;
  cache_hits += other.cache_hits;
  cache_misses += other.cache_misses;
  cache_loaded += other.cache_loaded;
  cache_evicted += other.cache_evicted;
  cache_invalidated += other.cache_invalidated;
  far_links += other.far_links;
  shadows += other.shadows;
  shadow_pages += other.shadow_pages;
  window_pages += other.window_pages;
  window_misses += other.window_misses;
  return *this;
}

HartThread::HartThread(riscv::Hart& hart, std::unique_ptr<Engine> engine)
    : hart_(hart), engine_(std::move(engine)) {}

HartThread::~HartThread() { stop(); }

void HartThread::start() {
  thread_ = std::thread([this] { main(); });
}

void HartThread::pause() {
  std::unique_lock lock(mutex_);
  pause_requested_ = true;
  hart_.request_stop();
  changed_.wait(lock, [this] { return paused_ || stopping_ || !thread_.joinable(); });
}

void HartThread::request_pause() {
  const std::lock_guard lock(mutex_);
  pause_requested_ = true;
  hart_.request_stop();
}

void HartThread::resume() {
  {
    const std::lock_guard lock(mutex_);
    pause_requested_ = false;
  }
  changed_.notify_all();
}

void HartThread::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    hart_.request_stop();
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void HartThread::main() {
  for (;;) {
    switch (drive ? drive(*engine_) : engine_->run(kUnlimited)) {
      case riscv::Exit::kBudget: break;
      case riscv::Exit::kWaitForInterrupt: hart_.wait_for_interrupt(); break;
      case riscv::Exit::kParked: hart_.wait_while_parked(); break;
      case riscv::Exit::kStop: {
        std::unique_lock lock(mutex_);
        if (stopping_) return;
        paused_ = true;
        changed_.notify_all();
        changed_.wait(lock, [this] { return !pause_requested_ || stopping_; });
        paused_ = false;
        if (stopping_) return;
        hart_.clear_stop();
        break;
      }
    }
  }
}

}  // namespace doppel
