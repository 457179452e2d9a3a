// A guest's process as one that traces others: what its ptrace() and its wait() do.
//
// Both ends are processes of Doppel, and the host's ptrace() is between them: who may trace whom, to whom a tracee's stops
// are told, and what becomes of it when its tracer ends, is the host's business. It stops a thread anywhere, though, also
// in the middle of our own code. A thread that stands in a host_call() or in a stop of its own making has its guest's
// state whole, and what the host says of it is what the guest gets to know. Any other one is let go on, with a wish of
// the tracer's in its TraceArea, until it stands by itself (tracee.h).
//
// Any thread of the tracer's; the host lets only the one that began to trace do more than wait.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <mutex>
#include <optional>

#include "process/abi/trace_area.h"

struct user_regs_struct;

namespace doppel::process {

class LinuxProcess;

class Tracer {
 public:
  explicit Tracer(LinuxProcess& process) : process_(process) {}
  Tracer(const Tracer&) = delete;
  Tracer& operator=(const Tracer&) = delete;

  // As ptrace(): a value or -errno.
  std::int64_t request(std::uint64_t request, pid_t id, std::uint64_t address, std::uint64_t data);

  // What the host's wait() said of a thread: it stopped with `code`, which is a signal and, above it, an event. Gives what
  // the guest gets to know, if that is anything.
  std::optional<int> admit_stop(pid_t id, int code);
  // Likewise, it has ended.
  void ended(pid_t id);
  // A stop that the host does not know of, by a thread for which wait(`pid`) waits; `keep` leaves it to the next one.
  struct Waiting {
    pid_t id;
    int code;
  };
  std::optional<Waiting> take_waiting(pid_t pid, bool keep);

  // The guest has opened another process's memory, and written to it there.
  void opened_memory(int fd, pid_t id);
  void wrote_memory(int fd, std::uint64_t gva, std::uint64_t bytes);
  void wrote_memory_of(pid_t id, std::uint64_t gva, std::uint64_t bytes);
  bool knows_memory() const { return knows_memory_.load(std::memory_order_relaxed); }

  // In a child of fork(), which traces nobody.
  void forget_all();
  std::mutex& mutex() { return mutex_; }

 private:
  enum class Stop : std::uint8_t {
    kNone,
    kHost,      // the host's, at a place where the guest's state is whole
    kOwn,       // the tracee's: TraceArea has more
    kCallExit,  // made up, before one of the host's in the middle of a call
    kCallEntry, // made up, after one
  };
  struct Record {
    bool seized = false;
    bool automatic = false;  // attached by the host with the making of it
    bool foreign = false;    // no process of Doppel's
    bool has_options = false;
    bool listens = false;
    bool met = false;  // its TraceArea has nothing of others
    bool knows_tracer = false;  // what TraceArea has of us is as we last wanted it:
    bool shows_calls = false;
    std::uint64_t options = 0;  // the guest's
    std::uint64_t base = 0;     // of the executable, there
    std::uint64_t area = 0;     // of the TraceArea, there

    Stop stop = Stop::kNone;
    bool waits = false;  // for the guest to ask about it
    int code = 0;
    std::uint64_t message = 0;   // PTRACE_GETEVENTMSG
    bool in_call = false;        // kHost: a host_call() is to go on
    std::int64_t host_result = 0;  // what it would have returned
    int code_after = 0;          // kCallExit: the host's
    int signal_after = 0;        // kCallEntry: to go on with
    pid_t exec_from = 0;
    struct Wish {
      TraceStop stop;
      siginfo_t info;
    };
    std::deque<Wish> later;
  };

  // All under mutex_.
  Record* find(pid_t id);
  std::int64_t attach(pid_t id, bool seize, std::uint64_t options);
  std::optional<int> judge(Record& r, pid_t id, int code);
  std::optional<int> judge_event(Record& r, pid_t id, int event);
  std::optional<int> judge_own_stop(Record& r, pid_t id, const TraceArea& area);
  std::optional<int> show_or_wish(Record& r, pid_t id, int code, TraceStop stop, const siginfo_t& info);
  std::optional<int> report(Record& r, Stop stop, int code);
  void began_child(const Record& parent, pid_t child, bool helper);
  void note_exec(Record& r, pid_t id);
  void wish(Record& r, pid_t id, const Record::Wish& wish);
  void wish_next(Record& r, pid_t id);
  void forget_wishes(const Record& r, pid_t id);
  std::int64_t go_on(Record& r, pid_t id, bool shows_calls, int signal);
  std::int64_t go_on_from_call(Record& r, pid_t id, bool shows_calls, int signal);
  std::int64_t listen(Record& r, pid_t id);
  std::int64_t detach(Record& r, pid_t id, int signal);
  void will_wait(Record& r, Stop stop, int code);
  std::int64_t leave_host_call(Record& r, pid_t id);
  int call_code(const Record& r) const;

  std::int64_t at_stop(Record& r, pid_t id, std::uint64_t request, std::uint64_t address, std::uint64_t data);
  std::int64_t registers(Record& r, pid_t id, std::uint64_t type, std::uint64_t vector, bool write);
  std::int64_t signal_info(Record& r, pid_t id, std::uint64_t gva, bool write);
  std::int64_t call_info(Record& r, pid_t id, std::uint64_t bytes, std::uint64_t gva);

  // The tracee's memory.
  std::optional<TraceArea> area_of(Record& r, pid_t id);
  std::uint64_t there(const Record& r, const void* ours) const;
  void note_written(Record& r, pid_t id, std::uint64_t gva, std::uint64_t bytes);

  LinuxProcess& process_;
  std::mutex mutex_;
  std::map<pid_t, Record> records_;
  std::map<pid_t, bool> early_;  // stopped before the making of them was told; whether they are seized
  std::atomic<bool> knows_memory_{false};
  std::map<int, pid_t> memories_;  // by descriptor
};

}  // namespace doppel::process
