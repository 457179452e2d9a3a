#include "machine/riscv/debug_harts.h"

#include <algorithm>
#include <utility>

#include "isa/riscv/csr.h"
#include "isa/riscv/debug_registers.h"
#include "isa/riscv/mmu.h"

namespace doppel::riscv {
namespace {

using debug::Point;
using debug::PointKind;
using debug::StopEvent;
using debug::ThreadId;

constexpr std::array kBreakpoint{std::byte{0x02}, std::byte{0x90}};  // c.ebreak

const char* name_of(Privilege privilege) {
  switch (privilege) {
    case Privilege::kUser: return "user";
    case Privilege::kSupervisor: return "supervisor";
    default: return "machine";
  }
}

DebugStops::Watch watch_of(const Point& point) {
  return {point.address, point.size_bytes, point.kind != PointKind::kWrite, point.kind != PointKind::kRead};
}

}  // namespace

DebugHarts::DebugHarts(DebugHartsEnv env) : env_(std::move(env)) {
  env_.clock.pause();
  for (std::size_t id = 0; id < env_.threads.size(); ++id) {
    const auto thread = static_cast<ThreadId>(id + 1);
    HartThread& runner = *env_.threads[id];
    runner.pause();
    Hart* const owner = env_.harts[id];
    debuggers_.push_back(std::make_unique<HartDebugger>(
        *owner, stops_, [this, owner](std::uint64_t address) { return is_planted(*owner, address); },
        [this, thread](const DebugEvent& what) { report(thread, what); }));
    runner.drive = [debugger = debuggers_.back().get()](Engine& engine) { return debugger->run(engine); };
  }
}

DebugHarts::~DebugHarts() {
  halt();
  for (const auto& thread : env_.threads) thread->drive = nullptr;
}

Hart* DebugHarts::hart(ThreadId thread) const {
  return thread == 0 || thread > env_.harts.size() ? nullptr : env_.harts[thread - 1];
}

// --- What happens, on harts' threads first.

void DebugHarts::report(ThreadId thread, const DebugEvent& what) {
  {
    const std::lock_guard lock(mutex_);
    events_.push_back({thread, what});
  }
  env_.threads[thread - 1]->request_pause();
  env_.loop.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) on_events();
  });
}

void DebugHarts::on_events() {
  if (!running_) return;
  for (const auto& thread : env_.threads) thread->pause();
  {
    const std::lock_guard lock(mutex_);
    unreported_.insert(unreported_.end(), events_.begin(), events_.end());
    events_.clear();
  }
  if (unreported_.empty()) return halt();
  const Event first = unreported_.front();
  unreported_.erase(unreported_.begin());
  // Whoever else came to a breakpoint stands before it, and comes there again. What has been watched is over.
  std::erase_if(unreported_, [](const Event& event) { return event.what.kind != DebugEvent::Kind::kWatch; });
  running_ = false;
  env_.clock.pause();
  if (on_stop) on_stop(stop_event(first));
}

StopEvent DebugHarts::stop_event(const Event& event) const {
  using Kind = StopEvent::Kind;
  switch (event.what.kind) {
    case DebugEvent::Kind::kStep: return {Kind::kSignal, event.thread, debug::kSignalTrap, {}, 0};
    case DebugEvent::Kind::kBreakpoint:
      return {Kind::kBreakpoint, event.thread, 0, {PointKind::kSoftware, event.what.address, 0}, 0};
    case DebugEvent::Kind::kInstruction:
      return {Kind::kBreakpoint, event.thread, 0, {PointKind::kHardware, event.what.address, 0}, 0};
    case DebugEvent::Kind::kWatch: break;
  }
  const DebugStops::Watch& watch = event.what.watch;
  const PointKind kind = watch.reads && watch.writes ? PointKind::kAccess
                         : watch.reads               ? PointKind::kRead
                                                     : PointKind::kWrite;
  return {Kind::kWatch, event.thread, 0, {kind, watch.start, watch.size_bytes}, event.what.address};
}

void DebugHarts::halt() {
  for (const auto& thread : env_.threads) thread->pause();
  running_ = false;
  env_.clock.pause();
  const std::lock_guard lock(mutex_);
  events_.clear();
  unreported_.clear();
}

void DebugHarts::resume(std::span<const debug::ResumeAction> actions) {
  running_ = true;
  if (!unreported_.empty()) {
    env_.loop.post([this, alive = std::weak_ptr(alive_)] {
      if (!alive.expired()) on_events();
    });
    return;
  }
  env_.clock.resume();
  // Every hart stands still until all know what to do.
  for (const debug::ResumeAction& action : actions) {
    if (hart(action.thread) != nullptr) debuggers_[action.thread - 1]->set_step(action.step);
  }
  for (const debug::ResumeAction& action : actions) {
    if (hart(action.thread) != nullptr) env_.threads[action.thread - 1]->resume();
  }
}

// --- What a debugger sees.

std::string DebugHarts::description() const { return debug_description(true); }

unsigned DebugHarts::general_register_count() const { return debug_register::kGeneralCount; }

std::vector<ThreadId> DebugHarts::threads() const {
  std::vector<ThreadId> threads;
  for (std::size_t id = 0; id < env_.harts.size(); ++id) threads.push_back(static_cast<ThreadId>(id + 1));
  return threads;
}

std::string DebugHarts::thread_name(ThreadId thread) const {
  const Hart* const h = hart(thread);
  if (h == nullptr) return "";
  return fmt::format("hart {}: {}", h->id(), h->parked() ? "parked" : name_of(h->state().privilege));
}

std::optional<std::string> DebugHarts::read_register(ThreadId thread, unsigned number) {
  Hart* const h = hart(thread);
  return h == nullptr ? std::nullopt : read_debug_register(*h, number);
}

bool DebugHarts::write_register(ThreadId thread, unsigned number, std::string_view bytes) {
  Hart* const h = hart(thread);
  return h != nullptr && write_debug_register(*h, number, bytes);
}

std::string DebugHarts::read_memory(ThreadId thread, std::uint64_t address, std::size_t size_bytes) {
  std::string bytes;
  Hart* const h = hart(thread);
  while (h != nullptr && bytes.size() < size_bytes) {
    const std::uint64_t gva = address + bytes.size();
    const std::size_t piece = std::min<std::size_t>(size_bytes - bytes.size(), kPageSize - gva % kPageSize);
    const auto gpa = h->mmu().look_up(gva);
    const std::byte* const host = gpa ? env_.memory.host(*gpa, piece) : nullptr;
    if (host == nullptr) break;
    const std::size_t start = bytes.size();
    bytes.append(reinterpret_cast<const char*>(host), piece);  // chars may alias anything
    // As if nothing were planted there.
    for (auto at = planted_.lower_bound(gpa->value - 1); at != planted_.end() && at->first < gpa->value + piece; ++at) {
      for (unsigned i = 0; i < 2; ++i) {
        const std::uint64_t offset = at->first + i - gpa->value;
        if (offset < piece) bytes[start + offset] = static_cast<char>(at->second.original[i]);
      }
    }
  }
  return bytes;
}

bool DebugHarts::write_memory(ThreadId thread, std::uint64_t address, std::string_view bytes) {
  Hart* const h = hart(thread);
  if (h == nullptr) return false;
  std::vector<std::pair<GuestPhysical, std::size_t>> pieces;
  for (std::size_t done = 0; done < bytes.size();) {
    const std::size_t piece = std::min<std::size_t>(bytes.size() - done, kPageSize - (address + done) % kPageSize);
    const auto gpa = h->mmu().look_up(address + done);
    if (!gpa || env_.memory.host(*gpa, piece) == nullptr) return false;
    pieces.emplace_back(*gpa, piece);
    done += piece;
  }
  for (const auto& [gpa, size] : pieces) {
    std::byte* const host = env_.memory.host(gpa, size);
    for (std::size_t i = 0; i < size; ++i) {
      const std::byte value = static_cast<std::byte>(bytes[i]);
      const std::uint64_t at = gpa.value + i;
      // Under a breakpoint the new byte waits for its removal.
      if (const auto found = planted_.find(at); found != planted_.end()) {
        found->second.original[0] = value;
      } else if (const auto before = planted_.find(at - 1); before != planted_.end()) {
        before->second.original[1] = value;
      } else {
        host[i] = value;
      }
    }
    bytes.remove_prefix(size);
  }
  expect_code_changes();
  return true;
}

void DebugHarts::expect_code_changes() {
  for (const auto& debugger : debuggers_) debugger->expect_code_changes();
}

// --- Points.

bool DebugHarts::insert(ThreadId thread, const Point& point) {
  if (point.kind >= PointKind::kWrite) {
    stops_.watches.push_back(watch_of(point));
    return true;
  }
  // An address that is not mapped yet, as a kernel's while its page tables are still to come, is looked for.
  if (point.kind == PointKind::kHardware || !plant(thread, point.address)) stops_.instructions.push_back(point.address);
  return true;
}

bool DebugHarts::plant(ThreadId thread, std::uint64_t address) {
  Hart* const h = hart(thread);
  const auto gpa = h != nullptr && address % 2 == 0 ? h->mmu().look_up(address) : std::nullopt;
  std::byte* const host = gpa ? env_.memory.host(*gpa, 2) : nullptr;
  if (host == nullptr) return false;
  Planted& planted = planted_[gpa->value];
  if (planted.count++ == 0) {
    std::copy_n(host, 2, planted.original.begin());
    std::copy_n(kBreakpoint.begin(), 2, host);
    expect_code_changes();
  }
  planted_at_[address] = gpa->value;
  return true;
}

bool DebugHarts::remove(const Point& point) {
  if (point.kind >= PointKind::kWrite) return stops_.remove(watch_of(point));
  if (const auto at = planted_at_.find(point.address); point.kind == PointKind::kSoftware && at != planted_at_.end()) {
    const auto found = planted_.find(at->second);
    planted_at_.erase(at);
    if (--found->second.count == 0) {
      // What the guest has put there since is the guest's.
      std::byte* const host = env_.memory.host({found->first}, 2);
      if (std::equal(kBreakpoint.begin(), kBreakpoint.end(), host)) {
        std::copy_n(found->second.original.begin(), 2, host);
      }
      planted_.erase(found);
      expect_code_changes();
    }
    return true;
  }
  const auto found = std::ranges::find(stops_.instructions, point.address);
  if (found == stops_.instructions.end()) return false;
  stops_.instructions.erase(found);
  return true;
}

// On the hart's thread.
bool DebugHarts::is_planted(Hart& h, std::uint64_t address) const {
  if (planted_.empty()) return false;
  const auto gpa = h.mmu().look_up(address);
  return gpa && planted_.contains(gpa->value);
}

// --- monitor

std::string DebugHarts::monitor_help() const { return "info   The harts, and what they do\n"; }

std::optional<std::string> DebugHarts::monitor(std::string_view command) {
  if (command != "info") return std::nullopt;
  std::string text;
  for (const Hart* h : env_.harts) {
    const HartState& state = h->state();
    text += fmt::format("{}: pc {:#x}, satp {:#x}, {} instructions\n", thread_name(h->id() + 1), state.pc, state.satp,
                        state.instructions);
  }
  return text;
}

}  // namespace doppel::riscv
