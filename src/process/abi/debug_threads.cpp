#include "process/abi/debug_threads.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/bits.h"
#include "isa/riscv/debug_registers.h"
#include "process/abi/debug_signals.h"
#include "process/abi/linux_process.h"
#include "process/abi/thread.h"

namespace doppel::process {
namespace {

using debug::Point;
using debug::PointKind;
using debug::StopEvent;
using debug::ThreadId;

constexpr std::array<char, 2> kBreakpoint{'\x02', '\x90'};  // c.ebreak

DebugStops::Watch watch_of(const Point& point) {
  return {point.address, point.size_bytes, point.kind != PointKind::kWrite, point.kind != PointKind::kRead};
}

StopEvent stop_event(ThreadId thread, const DebugEvent& what) {
  using Kind = StopEvent::Kind;
  switch (what.kind) {
    case DebugEvent::Kind::kStep: return {Kind::kSignal, thread, debug::kSignalTrap, {}, 0};
    case DebugEvent::Kind::kBreakpoint:
      return {Kind::kBreakpoint, thread, 0, {PointKind::kSoftware, what.address, 0}, 0};
    case DebugEvent::Kind::kInstruction:
      return {Kind::kBreakpoint, thread, 0, {PointKind::kHardware, what.address, 0}, 0};
    case DebugEvent::Kind::kWatch: break;
  }
  const DebugStops::Watch& watch = what.watch;
  const PointKind kind = watch.reads && watch.writes ? PointKind::kAccess
                         : watch.reads               ? PointKind::kRead
                                                     : PointKind::kWrite;
  return {Kind::kWatch, thread, 0, {kind, watch.start, watch.size_bytes}, what.address};
}

}  // namespace

DebugThreads::DebugThreads(LinuxProcess& process, std::function<void(std::function<void()>)> post,
                           std::function<void()> kill, int memory)
    : process_(process), post_(std::move(post)), kill_(std::move(kill)), memory_(memory) {}

DebugThreads::~DebugThreads() = default;

DebugThreads::Thread& DebugThreads::entry(const GuestThread& thread) {
  const auto found = threads_.find(static_cast<ThreadId>(thread.id()));
  assert(found != threads_.end());
  return found->second;
}

// --- Guests' threads.

std::unique_ptr<HartDebugger> DebugThreads::make_debugger(GuestThread& thread) {
  const auto id = static_cast<ThreadId>(thread.id());
  return std::make_unique<HartDebugger>(
      thread.hart(), stops_, [this](std::uint64_t address) { return is_planted(address); },
      [this, id](const DebugEvent& what) { on_hart_event(id, what); });
}

void DebugThreads::add(GuestThread& thread) {
  const std::lock_guard lock(mutex_);
  const auto id = static_cast<ThreadId>(thread.id());
  Thread& added = threads_[id];
  added.guest = &thread;
  added.id = id;
  added.debugger = make_debugger(thread);
  // Where the debugger has some threads run and not others, as to step over a breakpoint, it expects no new one's events.
  added.resumed = added.may_run = all_resumed_;
}

void DebugThreads::remove(GuestThread& thread) {
  const std::lock_guard lock(mutex_);
  const auto id = static_cast<ThreadId>(thread.id());
  threads_.erase(id);
  changed_.notify_all();
  if (threads_.empty() || std::ranges::any_of(threads_, [](const auto& each) { return each.second.resumed; })) return;
  events_.push_back({{StopEvent::Kind::kNoneLeft, id, 0, {}, 0}});
  post_([this] { on_events(); });
}

void DebugThreads::run(GuestThread& guest, Engine& engine) {
  std::unique_lock lock(mutex_);
  Thread& thread = entry(guest);
  thread.state = State::kStill;
  changed_.notify_all();
  if (thread.step_done) {
    report(thread, {{StopEvent::Kind::kSignal, thread.id, debug::kSignalTrap, {}, 0}});
  }
  wait_until_resumed(lock, thread);
  if (thread.signal_made_up != 0) return;
  HartDebugger& debugger = *thread.debugger;
  lock.unlock();
  debugger.run(engine);
}

void DebugThreads::wait_until_resumed(std::unique_lock<std::mutex>& lock, Thread& thread) {
  changed_.wait(lock, [&] { return !stopped_ && thread.may_run; });
  thread.state = State::kRunning;
}

void DebugThreads::enter_call(GuestThread& guest) {
  const std::lock_guard lock(mutex_);
  entry(guest).state = State::kInCall;
  changed_.notify_all();
}

void DebugThreads::leave_call(GuestThread& guest) {
  std::unique_lock lock(mutex_);
  wait_until_resumed(lock, entry(guest));
}

int DebugThreads::admit_signal(GuestThread& guest, int number) {
  std::unique_lock lock(mutex_);
  Thread& thread = entry(guest);
  if (std::exchange(thread.admitted, false) || !attended_) return number;
  thread.signal_waits = true;
  thread.signal_told = false;
  thread.answer.reset();
  report(thread, {{StopEvent::Kind::kSignal, thread.id, gdb_signal(number), {}, 0}, true});
  thread.state = State::kStill;
  changed_.notify_all();
  wait_until_resumed(lock, thread);
  thread.signal_waits = false;
  // A step into a handler ends before its first instruction.
  const int answer = thread.answer.value_or(number);
  if (thread.stepping && answer != 0) {
    thread.step_done = true;
  }
  return answer;
}

int DebugThreads::take_signal(GuestThread& guest) {
  const std::lock_guard lock(mutex_);
  Thread& thread = entry(guest);
  const int number = std::exchange(thread.signal_made_up, 0);
  if (number != 0) {
    thread.admitted = true;
    thread.step_done = thread.stepping;
  }
  return number;
}

void DebugThreads::ended(GuestThread& guest, int code, bool killed) {
  std::unique_lock lock(mutex_);
  const auto id = static_cast<ThreadId>(guest.id());
  if (const auto found = threads_.find(id); found != threads_.end()) found->second.state = State::kStill;
  changed_.notify_all();
  if (!attended_) return;
  const auto number = killed ? gdb_signal(code) : static_cast<unsigned>(code & 0xff);
  events_.push_back({{killed ? StopEvent::Kind::kKilled : StopEvent::Kind::kExited, id, number, {}, 0}});
  post_([this] { on_events(); });
  changed_.wait(lock, [&] { return end_told_ || !attended_; });
}

// --- What happens.

void DebugThreads::on_hart_event(ThreadId id, const DebugEvent& what) {
  const std::lock_guard lock(mutex_);
  Thread& thread = threads_.at(id);
  // A step that was under way when something else stopped all is nobody's any more.
  if (what.kind == DebugEvent::Kind::kStep && !thread.stepping) {
    thread.guest->hart().request_stop();
    return;
  }
  report(thread, {stop_event(id, what)});
}

// Under mutex_. The thread goes no further.
void DebugThreads::report(Thread& thread, const Event& event) {
  thread.may_run = thread.stepping = thread.step_done = false;
  thread.guest->hart().request_stop();
  events_.push_back(event);
  post_([this] { on_events(); });
}

// Whoever else came to a breakpoint stands before it, and comes there again; a step is asked for again.
void DebugThreads::forget_what_comes_again() {
  std::erase_if(events_, [](const Event& event) {
    const StopEvent::Kind kind = event.what.kind;
    return !event.of_signal && (kind == StopEvent::Kind::kBreakpoint || kind == StopEvent::Kind::kSignal ||
                                kind == StopEvent::Kind::kNoneLeft);
  });
}

// Under mutex_. The first that the debugger expects: of a thread that was resumed, or is gone.
std::vector<DebugThreads::Event>::iterator DebugThreads::next_event() {
  return std::ranges::find_if(events_, [this](const Event& event) {
    const auto found = threads_.find(event.what.thread);
    return found == threads_.end() || found->second.resumed || event.what.kind == StopEvent::Kind::kExited ||
           event.what.kind == StopEvent::Kind::kKilled;
  });
}

void DebugThreads::on_events() {
  std::unique_lock lock(mutex_);
  if (!running_ || next_event() == events_.end()) return;
  stop_all(lock);
  const auto next = next_event();
  Event first = *next;
  events_.erase(next);
  forget_what_comes_again();
  const bool over = first.what.kind == StopEvent::Kind::kExited || first.what.kind == StopEvent::Kind::kKilled;
  if (const auto found = threads_.find(first.what.thread); found != threads_.end()) {
    found->second.signal_told = first.of_signal;
  } else if (!over && !threads_.empty()) {
    // It is gone already.
    first.what.thread = threads_.begin()->first;
  }
  running_ = false;
  lock.unlock();
  if (on_stop) on_stop(first.what);
  if (!over) return;
  lock.lock();
  end_told_ = true;
  changed_.notify_all();
}

void DebugThreads::stop_all(std::unique_lock<std::mutex>& lock) {
  stopped_ = true;
  for (auto& [id, thread] : threads_) thread.guest->hart().request_stop();
  changed_.wait(lock, [this] {
    return std::ranges::none_of(threads_, [](const auto& each) { return each.second.state == State::kRunning; });
  });
}

void DebugThreads::halt() {
  std::unique_lock lock(mutex_);
  stop_all(lock);
  running_ = false;
  forget_what_comes_again();
}

void DebugThreads::resume(std::span<const debug::ResumeAction> named) {
  const std::lock_guard lock(mutex_);
  running_ = true;
  std::vector<debug::ResumeAction> actions(named.begin(), named.end());
  const auto is_named = [named](ThreadId id) { return std::ranges::count(named, id, &debug::ResumeAction::thread) != 0; };
  all_resumed_ = std::ranges::all_of(listed_, [&](ThreadId id) { return is_named(id) || !threads_.contains(id); });
  if (all_resumed_) {
    // So would be those that the debugger does not know yet.
    for (const auto& [id, thread] : threads_) {
      if (!is_named(id)) actions.push_back({.thread = id});
    }
  }
  for (auto& [id, thread] : threads_) thread.resumed = false;
  for (const debug::ResumeAction& action : actions) {
    const auto found = threads_.find(action.thread);
    if (found == threads_.end()) continue;
    Thread& thread = found->second;
    thread.resumed = true;
    const int number = linux_signal(action.signal);
    if (thread.signal_waits && thread.signal_told) {
      // Who detaches leaves it to the thread.
      if (attended_ && (!thread.answer || number != 0)) thread.answer = number;
    } else if (number != 0) {
      thread.signal_made_up = number;
    }
  }
  if (!attended_) events_.clear();
  if (next_event() != events_.end()) return post_([this] { on_events(); });
  for (auto& [id, thread] : threads_) thread.may_run = thread.stepping = thread.step_done = false;
  for (const debug::ResumeAction& action : actions) {
    const auto found = threads_.find(action.thread);
    if (found == threads_.end()) continue;
    Thread& thread = found->second;
    thread.may_run = true;
    thread.stepping = action.step;
    // A system call that has begun is all of its instruction that is left.
    thread.step_done = action.step && thread.state == State::kInCall;
    thread.debugger->set_step(action.step);
  }
  stopped_ = false;
  changed_.notify_all();
}

void DebugThreads::set_attended(bool attended) {
  // Otherwise nothing could end a process that waits for its debugger.
  process_.actions().catch_deadly(attended);
  const std::lock_guard lock(mutex_);
  attended_ = attended;
  changed_.notify_all();
}

// --- What a debugger sees. All stand still.

std::string DebugThreads::description() const { return riscv::debug_description(false); }

unsigned DebugThreads::general_register_count() const { return riscv::debug_register::kGeneralCount; }

std::string DebugThreads::program_path() const { return process_.image().path; }

std::string DebugThreads::auxiliary_vector() {
  const auto& words = process_.image().auxiliary;
  return {reinterpret_cast<const char*>(words.data()), words.size() * sizeof words[0]};
}

std::vector<ThreadId> DebugThreads::threads() const {
  const std::lock_guard lock(mutex_);
  listed_.clear();
  for (const auto& [id, thread] : threads_) listed_.push_back(id);
  return listed_;
}

std::string DebugThreads::thread_name(ThreadId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = threads_.find(id);
  if (found == threads_.end()) return "";
  std::string name;
  std::getline(std::ifstream("/proc/self/task/" + std::to_string(id) + "/comm"), name);
  return found->second.state == State::kInCall ? name + ", in a system call" : name;
}

std::optional<std::string> DebugThreads::read_register(ThreadId id, unsigned number) {
  const std::lock_guard lock(mutex_);
  const auto found = threads_.find(id);
  if (found == threads_.end()) return std::nullopt;
  return riscv::read_debug_register(found->second.guest->hart(), number);
}

bool DebugThreads::write_register(ThreadId id, unsigned number, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  const auto found = threads_.find(id);
  if (found == threads_.end()) return false;
  // The call's result and where it goes on are still to come.
  constexpr unsigned kResult = 10;
  const bool in_call = found->second.state == State::kInCall;
  if (in_call && (number == kResult || number == riscv::debug_register::kPc)) return false;
  return riscv::write_debug_register(found->second.guest->hart(), number, bytes);
}

std::string DebugThreads::read_pages(std::uint64_t address, std::size_t size_bytes) const {
  std::string bytes;
  while (bytes.size() < size_bytes) {
    const std::uint64_t gva = address + bytes.size();
    const std::size_t piece = std::min<std::size_t>(size_bytes - bytes.size(), kPageSize - gva % kPageSize);
    if (!process_.flat().contains(gva, piece) || !process_.space().allows(gva, PROT_NONE)) break;
    const std::size_t before = bytes.size();
    bytes.resize(before + piece);
    const auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(process_.flat().host(gva)));
    if (::pread(memory_, bytes.data() + before, piece, at) != static_cast<ssize_t>(piece)) {
      bytes.resize(before);
      break;
    }
  }
  return bytes;
}

bool DebugThreads::write_pages(std::uint64_t address, std::string_view bytes) {
  if (!process_.flat().contains(address, bytes.size())) return false;
  bool code = false;
  for (std::uint64_t page = align_down(address, kPageSize); page < address + bytes.size(); page += kPageSize) {
    if (!process_.space().allows(page, PROT_NONE)) return false;
    code |= process_.space().allows(page, PROT_EXEC);
  }
  const auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(process_.flat().host(address)));
  const ssize_t done = ::pwrite(memory_, bytes.data(), bytes.size(), at);
  if (code) process_.code_changed(address, bytes.size());
  return done == static_cast<ssize_t>(bytes.size());
}

std::string DebugThreads::read_memory(ThreadId, std::uint64_t address, std::size_t size_bytes) {
  std::string bytes = read_pages(address, size_bytes);
  const std::lock_guard lock(mutex_);
  for (const auto& [at, original] : planted_) {
    for (unsigned i = 0; i < 2; ++i) {
      if (const std::uint64_t offset = at + i - address; offset < bytes.size()) bytes[offset] = original[i];
    }
  }
  return bytes;
}

bool DebugThreads::write_memory(ThreadId, std::uint64_t address, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  // Under a breakpoint the new byte waits for its removal.
  std::string written(bytes);
  for (const auto& [at, original] : planted_) {
    for (unsigned i = 0; i < 2; ++i) {
      const std::uint64_t offset = at + i - address;
      if (suspended_ == 0 && offset < written.size()) written[offset] = kBreakpoint[i];
    }
  }
  if (!write_pages(address, written)) return false;
  for (auto& [at, original] : planted_) {
    for (unsigned i = 0; i < 2; ++i) {
      if (const std::uint64_t offset = at + i - address; offset < bytes.size()) original[i] = bytes[offset];
    }
  }
  return true;
}

// --- Points.

bool DebugThreads::insert(ThreadId, const Point& point) {
  const std::lock_guard lock(mutex_);
  if (point.kind >= PointKind::kWrite) {
    stops_.watches.push_back(watch_of(point));
    return true;
  }
  if (!process_.flat().contains(point.address, 2) || !process_.space().allows(point.address, PROT_NONE)) return false;
  // A page that others share is looked at instead.
  if (point.kind == PointKind::kHardware || !plant(point.address)) stops_.instructions.push_back(point.address);
  return true;
}

bool DebugThreads::plant(std::uint64_t address) {
  if (planted_.contains(address)) return true;
  const std::string original = address % 2 == 0 ? read_pages(address, 2) : "";
  if (original.size() != 2) return false;
  if (suspended_ == 0 && !write_pages(address, {kBreakpoint.data(), 2})) return false;
  planted_[address] = {original[0], original[1]};
  return true;
}

bool DebugThreads::remove(const Point& point) {
  const std::lock_guard lock(mutex_);
  if (point.kind >= PointKind::kWrite) return stops_.remove(watch_of(point));
  if (const auto at = planted_.find(point.address); point.kind == PointKind::kSoftware && at != planted_.end()) {
    // What the guest has put there since is the guest's.
    const bool ours = read_pages(at->first, 2) == std::string_view(kBreakpoint.data(), 2);
    if (ours) write_pages(at->first, {at->second.data(), 2});
    planted_.erase(at);
    return true;
  }
  const auto found = std::ranges::find(stops_.instructions, point.address);
  if (found == stops_.instructions.end()) return false;
  stops_.instructions.erase(found);
  return true;
}

bool DebugThreads::is_planted(std::uint64_t address) {
  const std::lock_guard lock(mutex_);
  return planted_.contains(address);
}

// --- New processes.

void DebugThreads::suspend(GuestThread& guest) {
  const std::lock_guard lock(mutex_);
  if (const auto found = threads_.find(static_cast<ThreadId>(guest.id())); found != threads_.end()) {
    found->second.debugger.reset();
  }
  if (suspended_++ != 0) return;
  for (const auto& [at, original] : planted_) write_pages(at, {original.data(), 2});
}

void DebugThreads::resume_suspended(GuestThread& guest) {
  const std::lock_guard lock(mutex_);
  if (const auto found = threads_.find(static_cast<ThreadId>(guest.id())); found != threads_.end()) {
    found->second.debugger = make_debugger(guest);
  }
  if (--suspended_ != 0) return;
  for (const auto& [at, original] : planted_) write_pages(at, {kBreakpoint.data(), 2});
}

void DebugThreads::leave_child(GuestThread& guest) {
  for (auto& [id, thread] : threads_) {
    if (thread.guest == &guest) thread.debugger.reset();
  }
  if (suspended_ != 0) return;
  for (const auto& [at, original] : planted_) {
    AddressSpace& space = process_.space();
    if (!space.allows(at, PROT_NONE)) continue;
    // The file that is the parent's way to its memory is not the child's. Nobody else runs here.
    std::byte* const host = process_.flat().host(at);
    std::byte* const page = process_.flat().host(align_down(at, kPageSize));
    if (::mprotect(page, kPageSize, PROT_READ | PROT_WRITE) != 0) continue;
    if (std::memcmp(host, kBreakpoint.data(), 2) == 0) std::memcpy(host, original.data(), 2);
    const bool writes = space.allows(at, PROT_WRITE);
    const bool reads = writes || space.allows(at, PROT_READ) || space.allows(at, PROT_EXEC);
    ::mprotect(page, kPageSize, (reads ? PROT_READ : PROT_NONE) | (writes ? PROT_WRITE : PROT_NONE));
  }
}

// --- monitor

std::string DebugThreads::monitor_help() const { return "info   The threads, and where they are\n"; }

std::optional<std::string> DebugThreads::monitor(std::string_view command) {
  if (command != "info") return std::nullopt;
  std::string text;
  for (const ThreadId id : threads()) {
    const std::string name = thread_name(id);
    const std::lock_guard lock(mutex_);
    const riscv::HartState& state = threads_.at(id).guest->hart().state();
    text += fmt::format("{} ({}): pc {:#x}, {} instructions\n", id, name, state.pc, state.instructions);
  }
  return text;
}

}  // namespace doppel::process
