// `doppel boot`: builds the machine, runs the event loop on the calling thread, and tells how it ended.
#pragma once

#include "app/options.h"
#include "base/report.h"

namespace doppel {

// Returns the exit status. Errors are already on stderr.
int run_boot(const BootOptions& options);

inline constexpr int kExitTimeout = 124;

}  // namespace doppel
