#include "process/abi/tracer.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <fstream>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/remote_memory.h"
#include "process/abi/trace_calls.h"

namespace doppel::process {
namespace {

constexpr int event_of(int code) { return code >> 8; }
constexpr int signal_of(int code) { return code & 0xff; }
constexpr int with_event(int event) { return SIGTRAP | event << 8; }

// What the kernel returns inwardly when a call is to be made again (include/linux/errno.h).
bool is_restart(std::int64_t value) { return (value <= -512 && value >= -514) || value == kRestartBlock; }

// The process of which a new thread or process is, or whose child it is; 0: nobody knows.
pid_t maker_of(pid_t child) {
  std::ifstream file(fmt::format("/proc/{}/status", child));
  pid_t process = 0, parent = 0;
  for (std::string word; file >> word;) {
    if (word == "Tgid:") file >> process;
    if (word == "PPid:" && file >> parent) break;
  }
  return process != child ? process : parent;
}

// As far from the thread pointer as in this thread.
std::uint64_t area_pointer_distance() {
  std::uint64_t self = 0;
  asm("mov %%fs:0, %0" : "=r"(self));
  return reinterpret_cast<std::uint64_t>(&trace_area) - self;
}

}  // namespace

// --- The tracee's memory.

std::uint64_t Tracer::there(const Record& r, const void* ours) const {
  return r.base + (reinterpret_cast<std::uint64_t>(ours) - own_executable_base());
}

std::optional<TraceArea> Tracer::area_of(Record& r, pid_t id) {
  if (r.base == 0) r.base = executable_base(id);
  if (r.base == 0) return std::nullopt;
  const auto read = [&]() -> std::optional<TraceArea> {
    auto area = r.area != 0 ? get_remote<TraceArea>(id, r.area) : std::nullopt;
    return area && area->id == id ? area : std::nullopt;
  };
  if (auto area = read()) return area;
  user_regs_struct host{};
  if (trace_host(PTRACE_GETREGS, id, 0, &host) != 0) return std::nullopt;
  r.area = get_remote<std::uint64_t>(id, host.fs_base + area_pointer_distance()).value_or(0);
  return read();
}

void Tracer::note_written(Record& r, pid_t id, std::uint64_t gva, std::uint64_t bytes) {
  if (r.base == 0) r.base = executable_base(id);
  if (r.base == 0) return;
  const auto at = [&](const void* ours) { return there(r, ours); };
  const TraceGlobals& all = trace_globals;
  const auto writes = get_remote<std::uint32_t>(id, at(&all.writes));
  const auto heeded = get_remote<std::uint32_t>(id, at(&all.writes_heeded));
  const auto first = get_remote<std::uint64_t>(id, at(&all.first_written));
  const auto last = get_remote<std::uint64_t>(id, at(&all.last_written));
  if (!writes || !heeded || !first || !last) return;
  const bool fresh = *writes == *heeded;
  put_remote(id, at(&all.first_written), fresh ? gva : std::min(*first, gva));
  put_remote(id, at(&all.last_written), fresh ? gva + bytes : std::max(*last, gva + bytes));
  put_remote(id, at(&all.writes), *writes + 1);
}

void Tracer::opened_memory(int fd, pid_t id) {
  const std::lock_guard lock(mutex_);
  memories_[fd] = id;
  knows_memory_ = true;
}

void Tracer::wrote_memory(int fd, std::uint64_t gva, std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  const auto known = memories_.find(fd);
  if (known == memories_.end()) return;
  const pid_t id = known->second;
  if (id == ::getpid()) return process_.code_changed(gva, bytes);
  if (Record* r = find(id)) note_written(*r, id, gva, bytes);
}

void Tracer::wrote_memory_of(pid_t id, std::uint64_t gva, std::uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (Record* r = find(id)) note_written(*r, id, gva, bytes);
}

void Tracer::forget_all() {
  records_.clear();
  early_.clear();
}

Tracer::Record* Tracer::find(pid_t id) {
  const auto found = records_.find(id);
  return found == records_.end() ? nullptr : &found->second;
}

// --- What the host tells.

std::optional<int> Tracer::admit_stop(pid_t id, int code) {
  const std::lock_guard lock(mutex_);
  Record* r = find(id);
  // It was left to the next one who waits.
  if (r != nullptr && r->stop != Stop::kNone && event_of(code) != PTRACE_EVENT_EXIT) return r->code;
  if (r == nullptr) {
    std::uint64_t message = 0;
    if (trace_host(PTRACE_GETEVENTMSG, id, 0, &message) != 0) return code;  // a child that nobody traces
    r = &records_[id];
    r->seized = event_of(code) == PTRACE_EVENT_STOP;
    const auto area = area_of(*r, id);
    if (r->base != 0 && !area && (signal_of(code) == SIGSTOP || r->seized)) {
      early_[id] = r->seized;
      records_.erase(id);
      return std::nullopt;
    }
  }
  if (!r->has_options) {
    r->has_options = true;
    trace_host(PTRACE_SETOPTIONS, id, 0, reinterpret_cast<void*>(host_options(r->options)));
  }
  return judge(*r, id, code);
}

void Tracer::ended(pid_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = records_.find(id);
  if (found == records_.end()) return;
  records_.erase(found);
  // Whoever was to tell of them may be gone.
  std::erase_if(early_, [this](const auto& early) {
    const auto [child, seized] = early;
    if (find(maker_of(child)) != nullptr) return false;
    if (trace_host(PTRACE_CONT, child, 0, nullptr) == 0) {
      Record& r = records_[child];
      r.automatic = true;
      r.seized = seized;
    }
    return true;
  });
}

std::optional<int> Tracer::judge(Record& r, pid_t id, int code) {
  if (r.foreign) return report(r, Stop::kHost, code);
  const int event = event_of(code);
  if (event != 0 && event != PTRACE_EVENT_STOP) return judge_event(r, id, event);

  const auto area = area_of(r, id);
  const bool begun = area && area->begun != 0;
  const bool is_new = area && !std::exchange(r.met, true);
  if (is_new) forget_wishes(r, id);
  siginfo_t info{};
  if (event == PTRACE_EVENT_STOP) {
    if (!begun) {
      r.automatic = true;
      trace_host(PTRACE_CONT, id, 0, nullptr);
      return std::nullopt;
    }
    info.si_signo = signal_of(code);
    return show_or_wish(r, id, code, TraceStop::kJob, info);
  }
  if (trace_host(PTRACE_GETSIGINFO, id, 0, &info) != 0) {
    // Stopped with its process.
    info.si_signo = signal_of(code);
    return show_or_wish(r, id, code, TraceStop::kJob, info);
  }
  const int number = signal_of(code);
  const auto pass = [&](int passed) {
    trace_host(PTRACE_CONT, id, 0, reinterpret_cast<void*>(static_cast<long>(passed)));
    return std::nullopt;
  };
  if (info.si_code == kTracePasses || (number == kTraceSignal && info.si_code == kTraceCalls)) return pass(number);
  if (number == kTraceSignal && info.si_code == kTraceStops) {
    if (!area || area->stop == TraceStop::kNone) return pass(0);
    const bool is_call = area->stop == TraceStop::kCallEntry || area->stop == TraceStop::kCallExit;
    return is_new && is_call ? pass(0) : judge_own_stop(r, id, *area);
  }
  // A fault of the host's, at an access that is the guest's: we shall hear of it if it is the guest's fault.
  if ((signal_bit(number) & kOwnSignals) != 0 && info.si_code > 0) return pass(number);
  if (!area) {
    // A new program that PTRACE_O_TRACEEXEC did not announce, or the first stop of a new thread.
    if (number == SIGTRAP && info.si_code == SI_USER) {
      note_exec(r, id);
      r.exec_from = id;
      if (r.foreign) return report(r, Stop::kHost, code);
    }
    return pass(number == SIGTRAP || number == SIGSTOP ? 0 : number);
  }
  if (!begun && number == SIGSTOP && r.automatic) return pass(0);
  // Blocked by the guest, and kept for later by the tracee.
  if ((signal_bit(number) & kOwnSignals) != 0) {
    const auto mask = get_remote<std::uint64_t>(id, reinterpret_cast<std::uint64_t>(area->mask));
    if (mask && (*mask & signal_bit(number)) != 0) return pass(number);
  }
  return show_or_wish(r, id, code, TraceStop::kSignal, info);
}

// What a tracer wanted, maybe one that ended without a word.
void Tracer::forget_wishes(const Record& r, pid_t id) {
  put_remote(id, r.area + offsetof(TraceArea, shows_calls), std::uint32_t{0});
  put_remote(id, r.area + offsetof(TraceArea, call), TraceCall::kNone);
  put_remote(id, r.area + offsetof(TraceArea, wanted), TraceStop::kNone);
}

// The guest's state is whole, or the tracee makes it so and stands by itself.
std::optional<int> Tracer::show_or_wish(Record& r, pid_t id, int code, TraceStop stop, const siginfo_t& info) {
  user_regs_struct host{};
  if (trace_host(PTRACE_GETREGS, id, 0, &host) != 0) return std::nullopt;
  r.in_call = host.rip == there(r, doppel_host_call_done) && is_restart(static_cast<std::int64_t>(host.rax));
  r.host_result = static_cast<std::int64_t>(host.rax);
  if (!r.in_call && host.rip != there(r, doppel_signal_queued)) {
    wish(r, id, {stop, info});
    trace_host(PTRACE_CONT, id, 0, nullptr);
    return std::nullopt;
  }
  if (std::exchange(r.listens, false) && stop == TraceStop::kJob && signal_of(code) != SIGTRAP) {
    trace_host(PTRACE_LISTEN, id, 0, nullptr);
    return std::nullopt;
  }
  const auto area = area_of(r, id);
  if (r.in_call && area && area->shows_calls != 0 && area->call == TraceCall::kEntered) {
    put_remote(id, r.area + offsetof(TraceArea, call), TraceCall::kLeft);
    r.code_after = code;
    return report(r, Stop::kCallExit, call_code(r));
  }
  return report(r, Stop::kHost, code);
}

void Tracer::wish(Record& r, pid_t id, const Record::Wish& wish) {
  const auto area = area_of(r, id);
  if (!area) return;
  // How it stands with its process is a matter of now.
  const bool replaces = wish.stop == TraceStop::kJob && area->wanted == TraceStop::kJob && r.later.empty();
  if (area->wanted != TraceStop::kNone && !replaces) {
    std::erase_if(r.later, [&](const auto& other) { return wish.stop == TraceStop::kJob && other.stop == wish.stop; });
    r.later.push_back(wish);
    return;
  }
  put_remote(id, r.area + offsetof(TraceArea, wanted_info), wish.info);
  put_remote(id, r.area + offsetof(TraceArea, wanted), wish.stop);
  siginfo_t info{};
  info.si_signo = kTraceSignal;
  info.si_code = kTraceCalls;
  ::syscall(SYS_rt_tgsigqueueinfo, area->process, id, kTraceSignal, &info);
}

void Tracer::wish_next(Record& r, pid_t id) {
  if (r.later.empty()) return;
  const Record::Wish next = r.later.front();
  r.later.pop_front();
  wish(r, id, next);
}

std::optional<int> Tracer::judge_own_stop(Record& r, pid_t id, const TraceArea& area) {
  const auto ignore = [&] {
    trace_host(PTRACE_CONT, id, 0, nullptr);
    return std::nullopt;
  };
  r.message = 0;
  switch (area.stop) {
    case TraceStop::kNone: return ignore();
    case TraceStop::kSignal: return report(r, Stop::kOwn, area.info.si_signo);
    case TraceStop::kCallEntry:
    case TraceStop::kCallExit:
      r.message = area.stop == TraceStop::kCallEntry ? 1 : 2;  // PTRACE_EVENTMSG_SYSCALL_
      return report(r, Stop::kOwn, call_code(r));
    case TraceStop::kBegins:
      put_remote(id, r.area + offsetof(TraceArea, traced), std::uint32_t{1});
      if (!r.automatic && r.seized) return ignore();
      return report(r, Stop::kOwn, r.seized ? with_event(PTRACE_EVENT_STOP) : SIGSTOP);
    case TraceStop::kExec:
      if ((r.options & PTRACE_O_TRACEEXEC) != 0) {
        r.message = static_cast<std::uint64_t>(r.exec_from);
        return report(r, Stop::kOwn, with_event(PTRACE_EVENT_EXEC));
      }
      return r.seized ? ignore() : report(r, Stop::kOwn, SIGTRAP);
    case TraceStop::kJob:
      return report(r, Stop::kOwn, area.info.si_signo | (r.seized ? PTRACE_EVENT_STOP << 8 : 0));
  }
  return ignore();
}

std::optional<int> Tracer::judge_event(Record& r, pid_t id, int event) {
  trace_host(PTRACE_GETEVENTMSG, id, 0, &r.message);
  r.in_call = false;
  const auto ignore = [&] {
    trace_host(PTRACE_CONT, id, 0, nullptr);
    return std::nullopt;
  };
  switch (event) {
    case PTRACE_EVENT_EXEC:
      r.exec_from = static_cast<pid_t>(r.message);
      note_exec(r, id);
      if (r.foreign && (r.options & PTRACE_O_TRACEEXEC) != 0) return report(r, Stop::kHost, with_event(event));
      return ignore();
    case PTRACE_EVENT_FORK:
    case PTRACE_EVENT_VFORK:
    case PTRACE_EVENT_CLONE: {
      const auto area = area_of(r, id);
      const bool guests = area && area->cloning == static_cast<std::uint32_t>(event);
      began_child(r, static_cast<pid_t>(r.message), !guests);
      return guests ? report(r, Stop::kHost, with_event(event)) : ignore();
    }
    default: return report(r, Stop::kHost, with_event(event));
  }
}

void Tracer::began_child(const Record& parent, pid_t child, bool helper) {
  const bool early = early_.erase(child) != 0;
  if (helper) {
    // A thread of our own, for which the guest never waits. It stops before it does anything.
    if (early || ::waitpid(child, nullptr, __WALL) == child) trace_host(PTRACE_DETACH, child, 0, nullptr);
    return;
  }
  Record& r = records_[child];
  // It may have gone ahead.
  if (!r.automatic) r = {};
  r.seized = parent.seized;
  r.options = parent.options;
  r.has_options = true;
  r.automatic = true;
  if (early) trace_host(PTRACE_CONT, child, 0, nullptr);
}

// The host is about to start a program, and nothing of it has run.
void Tracer::note_exec(Record& r, pid_t id) {
  r.area = 0;
  r.knows_tracer = r.met = false;
  r.later.clear();
  r.base = executable_base(id);
  r.foreign = r.base == 0;
  if (!r.foreign) put_remote(id, there(r, &trace_globals.started_traced), std::uint32_t{1});
}

int Tracer::call_code(const Record& r) const { return SIGTRAP | ((r.options & PTRACE_O_TRACESYSGOOD) != 0 ? 0x80 : 0); }

std::optional<int> Tracer::report(Record& r, Stop stop, int code) {
  r.stop = stop;
  r.code = code;
  r.waits = false;
  return code;
}

// --- What nobody but us knows of.

void Tracer::will_wait(Record& r, Stop stop, int code) {
  r.stop = stop;
  r.code = code;
  r.waits = true;
  ::kill(::getpid(), SIGCHLD);
}

std::optional<Tracer::Waiting> Tracer::take_waiting(pid_t pid, bool keep) {
  const std::lock_guard lock(mutex_);
  for (auto& [id, r] : records_) {
    if (!r.waits || (pid > 0 && pid != id)) continue;
    if ((pid == 0 && ::getpgid(id) != ::getpgrp()) || (pid < -1 && ::getpgid(id) != -pid)) continue;
    r.waits = keep;
    return Waiting{id, r.code};
  }
  return std::nullopt;
}

// --- Going on.

std::int64_t Tracer::go_on(Record& r, pid_t id, bool shows_calls, int signal) {
  if (r.area != 0 && (!r.knows_tracer || r.shows_calls != shows_calls)) {
    r.knows_tracer = put_remote(id, r.area + offsetof(TraceArea, shows_calls), std::uint32_t{shows_calls}) &&
                     put_remote(id, r.area + offsetof(TraceArea, traced), std::uint32_t{1});
    r.shows_calls = shows_calls;
  }
  const auto host_go_on = [&](int passed) {
    r.stop = Stop::kNone;
    return trace_host(PTRACE_CONT, id, 0, reinterpret_cast<void*>(static_cast<long>(passed)));
  };
  switch (r.stop) {
    case Stop::kNone: return -ESRCH;
    case Stop::kOwn:
      if (signal != 0) put_remote(id, r.area + offsetof(TraceArea, answer), signal);
      wish_next(r, id);
      return host_go_on(0);
    case Stop::kHost:
      if (r.in_call) return go_on_from_call(r, id, shows_calls, signal);
      wish_next(r, id);
      return host_go_on(signal);
    case Stop::kCallExit:
      if (signal != 0) ::syscall(SYS_tkill, id, signal);
      will_wait(r, Stop::kHost, r.code_after);
      return 0;
    case Stop::kCallEntry:
      if (signal != 0) ::syscall(SYS_tkill, id, signal);
      return host_go_on(r.signal_after);
  }
  return -ESRCH;
}

// Linux would have the guest make the call again, unless the signal has a handler; the host goes on with it.
std::int64_t Tracer::go_on_from_call(Record& r, pid_t id, bool shows_calls, int signal) {
  const auto area = area_of(r, id);
  if (!area) return -ESRCH;
  bool handled = false;
  if (signal != 0) {
    const auto action =
        get_remote<SignalAction>(id, reinterpret_cast<std::uint64_t>(area->actions + signal));
    handled = !action || action->is_handler();
  }
  if (shows_calls && !handled) {
    r.signal_after = signal;
    r.message = 1;  // PTRACE_EVENTMSG_SYSCALL_ENTRY
    put_remote(id, r.area + offsetof(TraceArea, call), TraceCall::kEntered);
    will_wait(r, Stop::kCallEntry, call_code(r));
    return 0;
  }
  if (!handled) put_remote(id, r.area + offsetof(TraceArea, call), TraceCall::kNone);
  r.stop = Stop::kNone;
  return trace_host(PTRACE_CONT, id, 0, reinterpret_cast<void*>(static_cast<long>(signal)));
}

std::int64_t Tracer::detach(Record& r, pid_t id, int signal) {
  const bool own = r.stop == Stop::kOwn;
  if (r.area != 0 && !r.foreign) {
    if (own) put_remote(id, r.area + offsetof(TraceArea, answer), signal);
    forget_wishes(r, id);
    if (const auto attempts = get_remote<std::uint32_t>(id, there(r, &trace_globals.attempts))) {
      put_remote(id, r.area + offsetof(TraceArea, attempts), *attempts);
    }
    put_remote(id, r.area + offsetof(TraceArea, traced), std::uint32_t{0});
  }
  // What was to be shown comes by itself.
  for (const Record::Wish& wish : r.later) {
    if (wish.stop == TraceStop::kSignal) ::syscall(SYS_tkill, id, wish.info.si_signo);
  }
  const std::int64_t done =
      trace_host(PTRACE_DETACH, id, 0, reinterpret_cast<void*>(static_cast<long>(own ? 0 : signal)));
  if (done == 0) records_.erase(id);
  return done;
}

std::int64_t Tracer::listen(Record& r, pid_t id) {
  if (!r.seized || event_of(r.code) != PTRACE_EVENT_STOP) return -EIO;
  if (r.stop == Stop::kHost) {
    const std::int64_t done = trace_host(PTRACE_LISTEN, id, 0, nullptr);
    if (done == 0) r.stop = Stop::kNone;
    return done;
  }
  // It stands by itself, and is to stand as its process does.
  r.listens = true;
  trace_host(PTRACE_INTERRUPT, id, 0, nullptr);
  r.stop = Stop::kNone;
  return trace_host(PTRACE_CONT, id, 0, nullptr);
}

// The call is to be made anew by whatever registers the guest has then.
std::int64_t Tracer::leave_host_call(Record& r, pid_t id) {
  user_regs_struct host{};
  if (const std::int64_t failed = trace_host(PTRACE_GETREGS, id, 0, &host); failed != 0) return failed;
  host.rip = there(r, doppel_host_call_restart);
  host.orig_rax = ~std::uint64_t{0};
  r.in_call = false;
  put_remote(id, r.area + offsetof(TraceArea, call), TraceCall::kNone);
  return trace_host(PTRACE_SETREGS, id, 0, &host);
}

}  // namespace doppel::process
