// System calls with hostile arguments: which call and what its arguments are is the input. Only calls that change
// nothing outside this process, and whose descriptors are some of our own.
//
// The oracle: nothing of ours is touched, and an answer is a value or an errno.
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <elf.h>
#include <iterator>

#include "input.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace {

using namespace doppel::process;
using doppel::EngineKind;

// riscv64's numbers: epoll, vectors, stat and links, messages, memory, limits, and others that take pointers.
constexpr std::array kCalls{8,   17,  21,  22,  43,  44,  48,  61,  62,  63,  64,  65,  66,  67,  68,  69,  70,  73,
                            78,  79,  80,  113, 114, 153, 160, 163, 165, 169, 179, 204, 205, 209, 211, 212, 215, 216,
                            222, 226, 227, 232, 233, 243, 258, 269, 278, 286, 287, 291, 439, 441};

// The smallest program there is: one page, which jumps to itself.
std::unique_ptr<LinuxProcess> make_process() {
  struct {
    Elf64_Ehdr header{};
    Elf64_Phdr segment{};
    std::uint32_t code = 0x0000006f;
  } file;
  std::memcpy(file.header.e_ident, ELFMAG, SELFMAG);
  file.header.e_ident[EI_CLASS] = ELFCLASS64;
  file.header.e_ident[EI_DATA] = ELFDATA2LSB;
  file.header.e_type = ET_EXEC;
  file.header.e_machine = EM_RISCV;
  file.header.e_phoff = offsetof(decltype(file), segment);
  file.header.e_phentsize = sizeof(Elf64_Phdr);
  file.header.e_phnum = 1;
  file.header.e_entry = 0x100000 + offsetof(decltype(file), code);
  file.segment = {.p_type = PT_LOAD, .p_flags = PF_R | PF_W | PF_X, .p_offset = 0, .p_vaddr = 0x100000,
                  .p_paddr = 0, .p_filesz = sizeof file, .p_memsz = 0x10000, .p_align = 4096};
  const int fd = ::memfd_create("program", MFD_CLOEXEC);
  if (::write(fd, &file, sizeof file) != sizeof file) return nullptr;
  ProcessOptions options;
  options.engine = EngineKind::kInterpret;
  options.program = {.path = "program", .arguments = {"program"}, .environment = {}, .library_prefix = {},
                     .descriptor = fd};
  auto process = LinuxProcess::create(std::move(options));
  if (!process) return nullptr;
  (*process)->actions().inherit();  // bad addresses become answers
  return std::move(*process);
}

// A number as programs go wrong with them: small, a page, near an end, or anything at all.
std::uint64_t argument(doppel::fuzz::Input& input) {
  const std::uint64_t base = [&]() -> std::uint64_t {
    switch (input.take<std::uint8_t>() % 8) {
      case 0: return 0;
      case 1: return 0x100000;             // mapped
      case 2: return 0x110000;             // just behind
      case 3: return AddressSpace::kLowBytes;
      case 4: return ~std::uint64_t{0};
      case 5: return reinterpret_cast<std::uint64_t>(&kCalls);  // ours
      case 6: return input.take<std::uint64_t>();
      default: return 0x5000'0000;  // not mapped
    }
  }();
  const auto step = static_cast<std::int8_t>(input.take<std::uint8_t>());
  return base + static_cast<std::uint64_t>(step) * (input.one_in(2) ? 1 : 4096);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const auto process = make_process();
  DOPPEL_FUZZ_CHECK(process != nullptr);
  static const std::array<int, 4> descriptors = [] {
    std::array<int, 4> made{};
    DOPPEL_FUZZ_CHECK(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, made.data()) == 0);
    made[2] = ::epoll_create1(0);
    made[3] = ::memfd_create("file", 0);
    return made;
  }();
  // Each input finds the same: the program's pages, and nothing else.
  AddressSpace& space = process->space();
  space.unmap(AddressSpace::kLowest, AddressSpace::kLowBytes - AddressSpace::kLowest);
  constexpr int kHere = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  DOPPEL_FUZZ_CHECK(space.map(0x100000, 0x10000, PROT_READ | PROT_WRITE, kHere, -1, 0) > 0);
  doppel::fuzz::Input input(data, size);
  while (!input.empty()) {
    const auto number = static_cast<std::uint64_t>(kCalls[input.take<std::uint8_t>() % kCalls.size()]);
    Arguments arguments;
    for (auto& each : arguments) each = argument(input);
    const bool maps = number >= 215 && number <= 233;
    if (!maps && input.one_in(2)) arguments[0] = static_cast<std::uint64_t>(descriptors[input.below(4)]);
    // No waiting, no descriptor of somebody else, no file of any size.
    if (number == 22) arguments[3] = 0;
    if (number == 441 || number == 73 || number == 243) arguments[number == 73 ? 2 : number == 441 ? 3 : 4] = 0x100000;
    if (number == 222) {
      arguments[1] &= 0xfffff;
      arguments[3] = (arguments[3] | MAP_ANONYMOUS) & ~std::uint64_t{MAP_HUGETLB | MAP_LOCKED};
    }
    if (number == 68 || number == 70 || number == 287) arguments[3] &= 0xffff;
    const std::int64_t value = call(*process, number, arguments);
    DOPPEL_FUZZ_CHECK(value >= -4096 || value == -512);
  }
  return 0;
}
