// Loading a program, over a file that is the input: ELF headers, scripts, interpreters.
//
// The oracle: it is refused with a sentence and an errno, or lies in the guest's memory with its stack mapped.
#include <sys/mman.h>
#include <unistd.h>

#include "input.h"
#include "process/abi/loader.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace doppel::process;
  auto space = AddressSpace::create(AddressSpace::Place::kElsewhere);
  DOPPEL_FUZZ_CHECK(space.has_value());
  const int fd = ::memfd_create("program", MFD_CLOEXEC);
  if (fd < 0 || ::write(fd, data, size) != static_cast<ssize_t>(size)) return 0;
  ProgramRequest request{.path = "program", .arguments = {"program", "argument"}, .environment = {"A=1"},
                         .library_prefix = {}, .descriptor = fd};
  const auto image = load_program(**space, request);
  if (!image) {
    DOPPEL_FUZZ_CHECK(!image.error().error.message.empty() && image.error().number > 0);
    DOPPEL_FUZZ_CHECK(image.error().status == 126 || image.error().status == 127);
    return 0;
  }
  DOPPEL_FUZZ_CHECK((*space)->allows(image->sp, PROT_READ | PROT_WRITE) && image->sp % 16 == 0);
  DOPPEL_FUZZ_CHECK(image->arguments_end - image->arguments_start == sizeof "program" + sizeof "argument");
  for (const auto& mapping : (*space)->mappings()) {
    DOPPEL_FUZZ_CHECK(mapping.start >= AddressSpace::kLowest && mapping.start < mapping.end);
    DOPPEL_FUZZ_CHECK(mapping.end <= AddressSpace::kLowBytes);
  }
  return 0;
}
