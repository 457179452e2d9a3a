// The program `doppel`: reads the command line and hands over.
#include <fcntl.h>

#include <exception>
#include <string_view>

#include "app/run.h"
#include "app/run_process.h"

namespace {

// A descriptor that we open must never become standard input, output or error of a caller who closed them.
void fill_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0) ::open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY);
  }
}

}  // namespace

int main(int argc, char** argv) {
  using namespace doppel;
  fill_standard_descriptors();
  try {
    // What follows belongs to the program, and every millisecond counts: no general option parser.
    if (argc > 1 && std::string_view(argv[1]) == "run") return run_process(argc - 1, argv + 1);
    const auto command = parse_command_line(argc, argv);
    if (!command) {
      report(command.error());
      return kExitUsage;
    }
    if (const auto* print = std::get_if<PrintText>(&*command)) {
      fmt::print("{}", print->text);
      return 0;
    }
    return run_boot(std::get<BootOptions>(*command));
  } catch (const std::exception& error) {
    report({error.what()});
    return kExitFailure;
  }
}
