// How our programs end when they cannot do what they were asked: one sentence on stderr, and an exit status.
#pragma once

#include "base/result.h"

namespace doppel {

// Says `error` on stderr, as one sentence that begins "doppel: ".
void report(const Error& error);

inline constexpr int kExitUsage = 2;      // a mistake in the command line
inline constexpr int kExitFailure = 125;  // Doppel itself failed

}  // namespace doppel
