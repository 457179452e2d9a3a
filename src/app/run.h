// `doppel boot`: builds the machine, runs the event loop on the calling thread, and tells how it ended.
#pragma once

#include "app/options.h"

namespace doppel {

// Returns the exit status. Errors are already on stderr.
int run_boot(const BootOptions& options);

// Says `error` on stderr, as one sentence that begins "doppel: ".
void report(const Error& error);

inline constexpr int kExitUsage = 2;
inline constexpr int kExitTimeout = 124;
inline constexpr int kExitFailure = 125;

}  // namespace doppel
