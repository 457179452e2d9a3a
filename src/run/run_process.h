// `doppel run`: runs one program of another architecture's Linux on this host.
#pragma once

#include "run/binfmt.h"

namespace doppel {

// Arguments from "run" on. Returns only when the program could not be run; the exit status is then as a shell's.
int run_process(int argc, const char* const* argv);
// As the kernel asked.
int run_process(BinfmtStart start);

}  // namespace doppel
