// The program `doppel-boot`, which `doppel` runs for whatever is about system VMs: reads the command line, hands over.
#include <exception>

#include "app/run.h"

int main(int argc, char** argv) {
  using namespace doppel;
  try {
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
