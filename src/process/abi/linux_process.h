// One riscv64 Linux process: its memory, what it does about signals, and what its threads have in common.
//
// Any of its threads, each a GuestThread.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/hart_thread.h"
#include "isa/riscv/hart.h"
#include "process/abi/loader.h"
#include "process/abi/shared_space.h"
#include "process/abi/signals.h"
#include "process/abi/tracer.h"
#include "process/address_space.h"

namespace doppel::process {

class DebugServer;
class DebugThreads;

// Of the thread that ends the process, and of what all have translated.
struct ProgramStatistics {
  std::string_view engine;
  EngineStatistics translation;
  std::uint64_t instructions;
  std::array<std::uint64_t, 16> exceptions;  // by cause
};

struct ProcessOptions {
  EngineKind engine = EngineKind::kTranslate;
  unsigned address_bits = AddressSpace::kLeastBits;
  ProgramRequest program{};
  bool trace_calls = false;  // one line on stderr for each system call
  // What starts another program as this one was started: Doppel's command line before "--argv0".
  std::vector<std::string> command{};
  std::shared_ptr<TranslationLog> translation_log{};  // may be null
  PassSet passes = PassSet::all();  // of the translator; where some are missing no code is kept
  std::shared_ptr<DebugServer> debugger{};            // may be null
  // An open directory in which translated code is kept for other runs of the same program; -1: none.
  int code_folder = -1;
  // Called when the process ends by itself, not by a signal; in children, too. May be empty.
  std::function<void(const ProgramStatistics&)> at_end{};
};

class LinuxProcess {
 public:
  static std::expected<std::unique_ptr<LinuxProcess>, LoadError> create(ProcessOptions options);
  ~LinuxProcess();

  // Runs the first thread on the calling one. The host's process ends as the guest's does.
  [[noreturn]] void run();
  // A child that shares memory with this one.
  std::unique_ptr<LinuxProcess> borrower() const;

  SharedSpace& shared() { return *shared_; }
  SignalActions& actions() { return actions_; }
  Tracer& tracer() { return tracer_; }
  AddressSpace& space() { return shared_->space(); }
  const AddressSpace& address_space() const { return shared_->space(); }
  const FlatMemory& flat() const { return shared_->flat(); }
  const ProcessOptions& options() const { return options_; }
  const Image& image() const { return image_; }
  // The calling thread's.
  riscv::Hart& hart() const;
  // nullptr while nobody debugs this process.
  DebugThreads* debugger() { return debugger_; }

  // --- For system calls.

  // The host pointer for a guest pointer; one that every system call of the host refuses when it lies outside.
  void* pointer(std::uint64_t gva) const;
  // Whether [gva, gva + bytes) may be read or written by us; false is EFAULT to the guest.
  bool readable(std::uint64_t gva, std::uint64_t bytes) const;
  bool writable(std::uint64_t gva, std::uint64_t bytes) const;
  // Copies from and to guest memory; false or nullopt is EFAULT.
  bool read(std::uint64_t gva, void* into, std::uint64_t bytes) const;
  bool write(std::uint64_t gva, const void* from, std::uint64_t bytes) const;
  template <class T>
  std::optional<T> get(std::uint64_t gva) const {
    T value;
    if (!read(gva, &value, sizeof value)) return std::nullopt;
    return value;
  }
  template <class T>
  bool put(std::uint64_t gva, const T& value) const {
    return write(gva, &value, sizeof value);
  }
  // As SharedSpace's.
  void code_changed(std::uint64_t gva, std::uint64_t bytes) { shared_->code_changed(gva, bytes); }

  // Keeps what has been translated, for other runs. Before the process ends, or becomes another program.
  void save_code();
  // The process is about to end by `thread`.
  void tell_end(GuestThread& thread);
  // And how, to whom debugs it: with a status or, `killed`, by a signal.
  void tell_debugger(GuestThread& thread, int code, bool killed);

  // Threads register here, for who asks about another one.
  void add(GuestThread& thread);
  void remove(GuestThread& thread);
  std::optional<std::uint64_t> robust_list_of(pid_t thread);
  // In a child of fork().
  void keep_only(GuestThread& thread);
  void lock_for_fork();
  void unlock_after_fork();

 private:
  explicit LinuxProcess(ProcessOptions options) : options_(std::move(options)) {}
  LinuxProcess(const LinuxProcess& parent);
  std::optional<std::uint64_t> keep_code(int program);
  bool covers(std::uint64_t gva, std::uint64_t bytes, int protection) const;
  bool reaches(std::uint64_t gva, std::uint64_t bytes) const;

  ProcessOptions options_;
  Image image_;
  std::shared_ptr<SharedSpace> shared_;
  SignalActions actions_;
  Tracer tracer_{*this};
  std::mutex mutex_;
  std::vector<GuestThread*> threads_;  // guarded by mutex_
  std::unique_ptr<GuestThread> first_;
  DebugThreads* debugger_ = nullptr;
  const bool borrows_memory_ = false;  // another process's, which goes on after it
  int leader_status_ = 0;  // the first thread's, once it has ended: the process's, if threads end one by one
};

}  // namespace doppel::process
