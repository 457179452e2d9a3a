// The program `doppel`: process VMs itself, and `doppel-boot` beside it for all else.
//
// It is linked statically: programs start by the hundred, binfmt_misc runs it inside other roots, where the host's
// libraries are not, and what dynamic linking costs at start is more than a small program takes in all.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "base/report.h"
#include "run/binfmt.h"
#include "run/run_process.h"

namespace {

using namespace doppel;

// A descriptor that we open must never become standard input, output or error of a caller who closed them. Single
// programs find them closed.
void fill_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0) ::open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
  }
}

// Returns only when there is no such program.
int run_system_program(char** argv) {
  std::array<char, PATH_MAX> self{};
  const ssize_t length = ::readlink("/proc/self/exe", self.data(), self.size() - 1);
  const std::string_view path(self.data(), length > 0 ? static_cast<std::size_t>(length) : 0);
  const std::string program = std::string(path.substr(0, path.rfind('/') + 1)) + "doppel-boot";
  ::execv(program.c_str(), argv);
  report({fmt::format("cannot run {}, which is there for system VMs: {}", program, std::strerror(errno))});
  return kExitFailure;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (auto start = binfmt_start(argc, argv)) return run_process(std::move(*start));
    const std::string_view command = argc > 1 ? argv[1] : "";
    if (command == "run") return run_process(argc - 1, argv + 1);
    fill_standard_descriptors();
    if (command == "binfmt") return run_binfmt(argc - 1, argv + 1);
    return run_system_program(argv);
  } catch (const std::exception& error) {
    report({error.what()});
    return kExitFailure;
  }
}
