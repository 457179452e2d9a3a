// What a thread shows to the one that traces it, another process's: ptrace() of a guest is the host's ptrace() between
// the two processes of Doppel (tracer.h), of which this is the part that the host does not know.
//
// It lies in the tracee's memory. The tracee writes it while it runs, and the tracer reads and writes it while the host
// has the tracee stopped. Both are the same executable, so both know this layout and, relative to where the executable
// lies, every address.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "memory/flat_memory.h"
#include "process/abi/signals.h"

namespace doppel::process {

// Who may be traced stands still by a signal to itself, which our handler always has and which is never blocked. These
// are its si_code, which no kernel's is.
inline constexpr int kTraceSignal = SIGBUS;
inline constexpr int kTraceStops = -0x44700001;  // the tracee stands, as TraceArea::stop says
inline constexpr int kTraceCalls = -0x44700002;  // the tracer has put something into TraceArea::wanted
// Of any signal to itself: it was shown to the tracer before, or is none of the guest's business.
inline constexpr int kTracePasses = -0x44700003;

// Why a tracee stands.
enum class TraceStop : std::uint32_t {
  kNone,
  kSignal,     // about to deliver `info`
  kCallEntry,
  kCallExit,
  kBegins,     // before its first instruction, as a new thread or process
  kExec,       // before its first instruction, as a new program
  kJob,        // as `info` says: stopped with its process, or interrupted
};

enum class TraceCall : std::uint32_t {
  kNone,
  kEntered,  // its begin was shown
  kLeft,     // and its end, for a signal, though the host is still in it
};

struct TraceArea {
  // --- Of the tracee.
  pid_t id = 0;  // of the thread; 0: it has ended
  pid_t process = 0;
  std::uint32_t begun = 0;  // it has told of its begin, if anybody asked
  // Where the guest's registers are just now, and what else is the guest's.
  std::uint64_t* x = nullptr;  // 32
  std::uint64_t* f = nullptr;  // 32
  std::uint64_t* pc = nullptr;
  std::uint8_t* fflags = nullptr;
  std::uint8_t* frm = nullptr;
  std::uint64_t* mask = nullptr;
  const SignalAction* actions = nullptr;  // by number
  FlatMemory memory{};

  TraceStop stop = TraceStop::kNone;
  siginfo_t info{};
  std::uint64_t number = 0;
  std::array<std::uint64_t, 6> arguments{};
  std::int64_t result = 0;
  TraceCall call = TraceCall::kNone;
  std::uint32_t cloning = 0;  // PTRACE_EVENT_ of what is being made; 0: nothing that is the guest's

  // --- Of the tracer.
  std::uint32_t traced = 0;
  std::uint32_t attempts = 0;  // of TraceGlobals, as far as they are known to have come to nothing
  std::uint32_t shows_calls = 0;
  siginfo_t wanted_info{};
  TraceStop wanted = TraceStop::kNone;  // kSignal, kJob: to be shown as soon as the guest's state is whole
  int answer = 0;                       // the signal that comes of a stop
  std::uint32_t answer_has_info = 0;
  siginfo_t answer_info{};
};

// One for each process.
struct TraceGlobals {
  // How often somebody has begun to trace a thread of the process. A thread that does not know this number may be it.
  std::atomic<std::uint32_t> attempts{0};
  // The program was started by a traced thread.
  std::atomic<std::uint32_t> started_traced{0};
  // Guest memory that the tracer has written, with code in it maybe: from `first` up to `last` since the process last
  // heeded how often that was.
  std::atomic<std::uint64_t> first_written{0}, last_written{0};
  std::atomic<std::uint32_t> writes{0}, writes_heeded{0};
};

extern TraceGlobals trace_globals;
extern thread_local TraceArea* trace_area;  // the calling thread's; null if it is none of the guest's

}  // namespace doppel::process

extern "C" {
// As rt_tgsigqueueinfo(), negative on failure.
long doppel_queue_signal(pid_t process, pid_t thread, int number, const siginfo_t* info);
// The instruction after its SYSCALL. Who stands there has its guest's state whole.
extern const char doppel_signal_queued[];
}
