#include "engine/host_fault.h"

#include <array>
#include <mutex>

#include "engine/translator_engine.h"
#include "memory/guarded_access.h"

namespace doppel {

bool recover_guest_fault(int signal, ucontext_t& context) {
  return recover_guarded_access(signal, context) || TranslatorEngine::recover_fault(context);
}

static std::array<struct sigaction, 2> others;  // for SIGSEGV and SIGBUS

static void handle_fault(int signal, siginfo_t* info, void* context) {
  if (recover_guest_fault(signal, *static_cast<ucontext_t*>(context))) return;
  const struct sigaction& other = others[signal == SIGSEGV ? 0 : 1];
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
    ::sigaction(SIGSEGV, &action, &others[0]);
    ::sigaction(SIGBUS, &action, &others[1]);
  });
}

}  // namespace doppel
