// A guest's threads as a debugger's.
//
// What a debug::Target has belongs to the server's thread, the rest to guests' threads, each for itself. All stop
// together: a thread that has something to tell stands still and has the server's thread wait for the others. A thread
// in a system call stands still, too: it is not let out of it. One that forks, or waits for its vfork() child, is waited
// for.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "debug/debug_target.h"
#include "engine/hart_debugger.h"
#include "process/address_space.h"

namespace doppel::process {

class GuestThread;
class LinuxProcess;

class DebugThreads final : public debug::Target {
 public:
  // `post` has the server's thread call a function, `kill` ends the process; both do so soon. `memory` is the process's
  // /proc/self/mem, for which pages have no protection.
  DebugThreads(LinuxProcess& process, std::function<void(std::function<void()>)> post, std::function<void()> kill,
               int memory);
  ~DebugThreads() override;

  // --- For guests' threads.

  void add(GuestThread& thread);
  void remove(GuestThread& thread);
  // Runs the thread's hart as the debugger will have it; until then it stands still here.
  void run(GuestThread& thread, Engine& engine);
  // Around system calls.
  void enter_call(GuestThread& thread);
  void leave_call(GuestThread& thread);
  // Has the debugger look at a signal. Gives the one to deliver; 0: none.
  int admit_signal(GuestThread& thread, int number);
  // A signal that the debugger made up, or 0.
  int take_signal(GuestThread& thread);
  // The process is about to end by the calling thread, with a status or, `killed`, by a signal. Returns when the
  // debugger knows.
  void ended(GuestThread& thread, int code, bool killed);

  // Around the time in which a child has the thread's hart and shares memory: there are no breakpoints then. The thread
  // may be none that was added.
  void suspend(GuestThread& thread);
  void resume_suspended(GuestThread& thread);
  // Around fork(); and in the child, which has no debugger: takes out what lies in its memory.
  std::mutex& mutex() { return mutex_; }
  void leave_child(GuestThread& thread);

  // --- A target's.

  std::string description() const override;
  unsigned general_register_count() const override;
  std::string program_path() const override;
  bool attached() const override { return false; }
  std::string auxiliary_vector() override;
  void set_attended(bool attended) override;
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
  void kill() override { kill_(); }
  std::optional<std::string> monitor(std::string_view command) override;
  std::string monitor_help() const override;

 private:
  enum class State : std::uint8_t { kStill, kInCall, kRunning };

  struct Thread {
    GuestThread* guest = nullptr;
    debug::ThreadId id = 0;
    std::unique_ptr<HartDebugger> debugger;
    State state = State::kStill;
    bool resumed = true;  // by the debugger, which expects events of no other thread
    bool may_run = true;  // it has, besides, told nothing since
    bool stepping = false;
    bool step_done = false;  // by what was under way: nothing is left to run
    // A signal that waits for what the debugger says to it.
    bool signal_waits = false, signal_told = false;
    std::optional<int> answer;
    int signal_made_up = 0;
    bool admitted = false;
  };
  struct Event {
    debug::StopEvent what;
    bool of_signal = false;  // which waits for an answer
  };
  // Half an instruction, for which C.EBREAK stands.
  using Code = std::array<char, 2>;

  Thread& entry(const GuestThread& thread);
  std::unique_ptr<HartDebugger> make_debugger(GuestThread& thread);
  void report(Thread& thread, const Event& event);
  void on_hart_event(debug::ThreadId id, const DebugEvent& what);
  void on_events();
  void forget_what_comes_again();
  std::vector<Event>::iterator next_event();
  void wait_until_resumed(std::unique_lock<std::mutex>& lock, Thread& thread);
  void stop_all(std::unique_lock<std::mutex>& lock);
  bool is_planted(std::uint64_t address);
  bool plant(std::uint64_t address);
  std::string read_pages(std::uint64_t address, std::size_t size_bytes) const;
  bool write_pages(std::uint64_t address, std::string_view bytes);

  LinuxProcess& process_;
  const std::function<void(std::function<void()>)> post_;
  const std::function<void()> kill_;
  const int memory_;
  bool running_ = false;  // as the server sees it

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  bool stopped_ = true;
  bool attended_ = false;
  bool end_told_ = false;
  std::map<debug::ThreadId, Thread> threads_;
  mutable std::vector<debug::ThreadId> listed_;  // whom threads() gave last: others have begun since
  bool all_resumed_ = true;                      // all of those were: whoever begins runs along
  std::vector<Event> events_;
  std::map<std::uint64_t, Code> planted_;  // what was there, by address
  unsigned suspended_ = 0;                 // while not 0 they are not in memory
  DebugStops stops_;  // changed only while all stand still
};

}  // namespace doppel::process
