// A board's harts as a debugger's threads. Lives on the event loop's thread, beside the machine: made before the
// harts start, gone before they are destroyed.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "base/event_loop.h"
#include "base/virtual_clock.h"
#include "debug/debug_target.h"
#include "engine/hart_debugger.h"
#include "engine/hart_thread.h"

namespace doppel::riscv {

struct DebugHartsEnv {
  std::span<Hart* const> harts;  // by hart id
  std::span<const std::unique_ptr<HartThread>> threads;
  const GuestMemory& memory;
  VirtualClock& clock;
  EventLoop& loop;
  std::function<void()> kill;  // ends the machine, soon after it returns
};

class DebugHarts final : public debug::Target {
 public:
  explicit DebugHarts(DebugHartsEnv env);
  ~DebugHarts() override;

  std::string description() const override;
  unsigned general_register_count() const override;
  std::vector<debug::ThreadId> threads() const override;
  std::string thread_name(debug::ThreadId thread) const override;
  std::optional<std::string> read_register(debug::ThreadId thread, unsigned number) override;
  bool write_register(debug::ThreadId thread, unsigned number, std::string_view bytes) override;
  std::string read_memory(debug::ThreadId thread, std::uint64_t address, std::size_t size_bytes) override;
  bool write_memory(debug::ThreadId thread, std::uint64_t address, std::string_view bytes) override;
  bool insert(debug::ThreadId thread, const debug::Point& point) override;
  bool remove(const debug::Point& point) override;
  void resume(std::span<const debug::ResumeAction> actions) override;
  void halt() override;
  void kill() override { env_.kill(); }
  std::optional<std::string> monitor(std::string_view command) override;
  std::string monitor_help() const override;

 private:
  struct Event {
    debug::ThreadId thread;
    DebugEvent what;
  };
  // A breakpoint in guest memory: C.EBREAK in place of the first half of an instruction.
  struct Planted {
    std::array<std::byte, 2> original;
    unsigned count = 0;  // guest-virtual addresses that lead here
  };

  Hart* hart(debug::ThreadId thread) const;
  void report(debug::ThreadId thread, const DebugEvent& what);
  void on_events();
  debug::StopEvent stop_event(const Event& event) const;
  bool plant(debug::ThreadId thread, std::uint64_t address);
  bool is_planted(Hart& hart, std::uint64_t address) const;
  void expect_code_changes();

  DebugHartsEnv env_;
  DebugStops stops_;
  std::map<std::uint64_t, Planted> planted_;  // by guest-physical address; constant while harts run
  std::map<std::uint64_t, std::uint64_t> planted_at_;  // guest-virtual to guest-physical
  std::vector<std::unique_ptr<HartDebugger>> debuggers_;  // by hart id
  bool running_ = false;
  std::mutex mutex_;
  std::vector<Event> events_;  // guarded by mutex_
  std::vector<Event> unreported_;
  // Expires with the target: what was posted to the loop looks before it calls.
  const std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace doppel::riscv
