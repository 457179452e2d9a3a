// Signals of a guest's process: what it does about each, and the host's dispositions and masks that follow from that.
//
// Signal numbers are the same in guest and host, and a guest's thread is a host's thread with the guest's mask. So the
// host's kernel itself stops, continues, ends or ignores, chooses threads and keeps signals pending. Only a signal for
// which the guest has a handler reaches a handler of ours. That one files it with the thread, and blocks all others until
// the thread has made the guest's frame of it (thread.cpp): a thread never has more than one to deliver.
//
// SIGSEGV and SIGBUS are never blocked on the host and always have our handler, for the guest's accesses are the host's.
// The host's C library keeps signals 32 and 33 for itself, which the guest's wants, too: all calls here are the kernel's.
#pragma once

#include <signal.h>

#include <array>
#include <cstdint>
#include <mutex>

namespace doppel::process {

inline constexpr unsigned kSignals = 64;
constexpr std::uint64_t signal_bit(int number) { return std::uint64_t{1} << (number - 1); }
inline constexpr std::uint64_t kOwnSignals = signal_bit(SIGSEGV) | signal_bit(SIGBUS);
inline constexpr std::uint64_t kUnblockable = signal_bit(SIGKILL) | signal_bit(SIGSTOP);

// struct sigaction of riscv64's kernel
struct SignalAction {
  static constexpr std::uint64_t kDefault = 0, kIgnore = 1;  // in place of a handler

  std::uint64_t handler = kDefault;
  std::uint64_t flags = 0;
  std::uint64_t mask = 0;

  bool is_handler() const { return handler > kIgnore; }
};

// What one process does about signals. Any of its threads.
class SignalActions {
 public:
  SignalActions() = default;
  SignalActions(const SignalActions& other);  // a child's
  SignalActions& operator=(const SignalActions&) = delete;

  // Takes over what the host's process ignores, and installs the handler of our own signals.
  void inherit();
  // Whether our handler sees, too, what would end the process.
  void catch_deadly(bool catches);
  SignalAction get(int number) const;
  // By number, for who reads another process.
  const SignalAction* data() const { return actions_.data(); }
  // Gives the one before.
  SignalAction set(int number, SignalAction action);
  // The action to deliver by: SA_RESETHAND has its effect.
  SignalAction take(int number);
  // Handlers become defaults: what clone3's CLONE_CLEAR_SIGHAND asks.
  void clear_handlers();
  // Tells the host again, after something else has.
  void take_back(int number);
  // Before and after an attempt to become another program, which inherits what is ignored.
  void show_own_signals(bool show);

 private:
  void tell_host(int number) const;  // under mutex_

  mutable std::mutex mutex_;
  std::array<SignalAction, kSignals + 1> actions_{};
  bool catches_deadly_ = false;
};

// The mask of the calling host thread, all signals included.
std::uint64_t host_mask();
void set_host_mask(std::uint64_t mask);
std::uint64_t exchange_host_mask(std::uint64_t mask);  // gives the one before
// All but our own.
inline void block_host_signals() { set_host_mask(~kOwnSignals); }

// Ends the process by the signal, as its default action does.
[[noreturn]] void die_by(int number);

}  // namespace doppel::process
