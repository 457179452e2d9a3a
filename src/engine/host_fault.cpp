#include "engine/host_fault.h"

#include <algorithm>
#include <array>
#include <mutex>

#include "engine/translator_engine.h"
#include "memory/guarded_access.h"

namespace doppel {

bool recover_guest_fault(int signal, ucontext_t& context) {
  return recover_guarded_access(signal, context) || TranslatorEngine::recover_fault(context);
}

static constexpr std::array kSignals{SIGSEGV, SIGBUS, SIGILL};
static std::array<struct sigaction, kSignals.size()> others;

static void handle_fault(int signal, siginfo_t* info, void* context) {
  if (recover_guest_fault(signal, *static_cast<ucontext_t*>(context))) return;
  const struct sigaction& other = others[static_cast<std::size_t>(std::ranges::find(kSignals, signal) - kSignals.begin())];
  if ((other.sa_flags & SA_SIGINFO) != 0) return other.sa_sigaction(signal, info, context);
  if (other.sa_handler != SIG_DFL && other.sa_handler != SIG_IGN) return other.sa_handler(signal);
  // The instruction is tried again, and ends the process.
  ::signal(signal, SIG_DFL);
}

void take_host_faults() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = handle_fault;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    sigemptyset(&action.sa_mask);
    for (std::size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &action, &others[i]);
  });
}

}  // namespace doppel
