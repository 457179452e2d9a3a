#include "engine/host_fault.h"

#include "engine/translator_engine.h"
#include "memory/guarded_access.h"

namespace doppel {

bool recover_guest_fault(int signal, ucontext_t& context) {
  return recover_guarded_access(signal, context) || TranslatorEngine::recover_fault(context);
}

}  // namespace doppel
