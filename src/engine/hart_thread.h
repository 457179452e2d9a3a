// The thread of one hart: runs the engine, sleeps in WFI, obeys pause and stop.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "engine/engine.h"
#include "engine/kept_code.h"
#include "engine/pass_option.h"
#include "engine/translation_log.h"
#include "isa/riscv/hart.h"

namespace doppel {

// What a translator is given beside its hart.
struct TranslatorParts {
  std::shared_ptr<TranslationLog> log{};  // reports there what it does; may be null
  MachineCode kept{};                     // and keeps its code here
  PassSet passes = PassSet::all();        // that run
  Background* background = nullptr;       // compiles what is hot; it outlives the engine
};

// A thread for what harts would wait for otherwise. Null where there is one processor, for which they would wait all
// the same.
std::unique_ptr<Background> make_background();

// Makes the engine of that kind for `hart`, which must outlive it. Fails where the host refuses executable
// memory. Before the hart runs.
Result<std::unique_ptr<Engine>> make_engine(EngineKind kind, riscv::Hart& hart, const TranslatorParts& parts = {});

// A budget that no hart uses up.
inline constexpr std::uint64_t kUnlimited = ~std::uint64_t{0} >> 2;

class HartThread {
 public:
  HartThread(riscv::Hart& hart, std::unique_ptr<Engine> engine);
  ~HartThread();  // stops and joins

  void start();   // begins running guest code; call once
  void pause();   // returns when the hart runs no guest code any more
  void resume();
  void request_pause();  // as pause(), without waiting; also for the hart's own thread
  void stop();    // for good; returns when the thread has ended

  const Engine& engine() const { return *engine_; }

  // Runs the engine in place of the thread, which goes by the returned reason: a debugger's. Changed only while the
  // hart is paused, or not started yet.
  std::function<riscv::Exit(Engine&)> drive;

 private:
  void main();

  riscv::Hart& hart_;
  std::unique_ptr<Engine> engine_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool pause_requested_ = false;
  bool paused_ = false;
  bool stopping_ = false;
};

}  // namespace doppel
