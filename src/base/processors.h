// What the host gives the process to run on.
#pragma once

#include <sched.h>

namespace doppel {

// Whether threads of the process can run at the same time.
inline bool has_several_processors() {
  cpu_set_t allowed;
  return ::sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) > 1;
}

// Tells the processor that its thread waits for another one by looking.
inline void relax_processor() { __builtin_ia32_pause(); }

}  // namespace doppel
