// What a debugger works on: threads with registers and memory, of any guest architecture. System VMs have harts for
// threads, process VMs the guest's threads.
//
// All calls come from one thread, the server's event loop. A target is "all-stop": when one of its threads stops,
// all do, and only then does the listener learn of it. Registers, memory and points are touched only while stopped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace doppel::debug {

using ThreadId = std::uint32_t;  // from 1; 0 stands for "none"

// In the order of the protocol's Z packets.
enum class PointKind : std::uint8_t {
  kSoftware,  // a breakpoint that may change the guest's code
  kHardware,  // a breakpoint that must not
  kWrite,     // watchpoints
  kRead,
  kAccess,
};

struct Point {
  PointKind kind = PointKind::kSoftware;
  std::uint64_t address = 0;     // guest-virtual
  std::uint64_t size_bytes = 0;  // of a watchpoint: at least 1
  friend bool operator==(const Point&, const Point&) = default;
};

// Signals as GDB numbers them, which for these is as everybody does.
inline constexpr unsigned kSignalInterrupt = 2, kSignalTrap = 5;

struct StopEvent {
  enum class Kind : std::uint8_t {
    kSignal,      // `code` is the signal, GDB's number; kSignalTrap after a step
    kBreakpoint,  // at a point of kind `point.kind`
    kWatch,       // an access to `address` has happened, which `point` watches
    kNoneLeft,    // of the threads that were resumed; `thread` is another
    kExited,      // the whole target, with status `code`; nothing may be asked of it any more
    kKilled,      // the whole target, by signal `code`
  };
  Kind kind = Kind::kSignal;
  ThreadId thread = 0;
  unsigned code = 0;
  Point point;
  std::uint64_t address = 0;
};

struct ResumeAction {
  ThreadId thread = 0;
  bool step = false;    // one instruction, then stop; else run
  unsigned signal = 0;  // to deliver first, GDB's number; targets without signals ignore it
};

class Target {
 public:
  virtual ~Target() = default;

  // The registers as a target description in XML ("Target Description Format"). Their numbers there are those of
  // read_register().
  virtual std::string description() const = 0;
  // How many registers, from number 0 on, the peer gets when it asks for all.
  virtual unsigned general_register_count() const = 0;
  // The path of the program on the host, or empty.
  virtual std::string program_path() const { return {}; }
  // False: the debugger's user started the target for it, so that ending the debugger ends the target.
  virtual bool attached() const { return true; }
  virtual std::uint64_t process_id() const { return 1; }
  // Whether a debugger is there to be told. Without one nothing but points stops a target.
  virtual void set_attended(bool) {}
  // The ELF auxiliary vector as the guest has it, or empty.
  virtual std::string auxiliary_vector() { return {}; }

  virtual std::vector<ThreadId> threads() const = 0;
  // For people: what the thread is and does.
  virtual std::string thread_name(ThreadId thread) const = 0;

  // A register's bytes in the guest's order; nullopt when there is none of that number, or it has no value.
  virtual std::optional<std::string> read_register(ThreadId thread, unsigned number) = 0;
  virtual bool write_register(ThreadId thread, unsigned number, std::string_view bytes) = 0;

  // Memory as `thread` sees it, whatever its permissions, and as it would be without breakpoints. Reads as much as
  // there is from `address` on: possibly nothing.
  virtual std::string read_memory(ThreadId thread, std::uint64_t address, std::size_t size_bytes) = 0;
  // All or nothing.
  virtual bool write_memory(ThreadId thread, std::uint64_t address, std::string_view bytes) = 0;

  // `thread` decides which address space is meant where there are several.
  virtual bool insert(ThreadId thread, const Point& point) = 0;
  virtual bool remove(const Point& point) = 0;

  // Lets these threads go; the others stay where they are. Ends with one call of the listener, on the loop's
  // thread and not from within resume().
  virtual void resume(std::span<const ResumeAction> actions) = 0;
  // Stops every thread, without an event. Returns when all stand still.
  virtual void halt() = 0;
  // Ends the target. An event may follow, or the target's owner takes it away.
  virtual void kill() = 0;

  // `monitor COMMAND`: what to print; nullopt when there is no such command.
  virtual std::optional<std::string> monitor(std::string_view command) = 0;
  virtual std::string monitor_help() const = 0;

  // Called by the target when it has stopped.
  std::function<void(const StopEvent&)> on_stop;
};

}  // namespace doppel::debug
