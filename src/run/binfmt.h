// `doppel binfmt`: has the host's kernel run riscv64 programs by Doppel, wherever they are started, and takes that back.
// The interface is the kernel's binfmt_misc (Documentation/admin-guide/binfmt-misc.rst).
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace doppel {

// argv[0] is "binfmt". Returns the exit status.
int run_binfmt(int argc, const char* const* argv);

// The line that registers the program at `interpreter`.
std::string binfmt_registration(const std::string& interpreter);

// What the kernel asks for when it has started us by that line.
struct BinfmtStart {
  int program_fd;
  std::string path;                    // of the program, as it was started
  std::vector<std::string> arguments;  // with its own name
};
std::optional<BinfmtStart> binfmt_start(int argc, const char* const* argv);

}  // namespace doppel
