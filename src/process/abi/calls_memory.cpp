// Mappings and the break; code that changed.
#include <sys/syscall.h>

#include <array>

#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

std::int64_t do_brk(LinuxProcess& p, const Arguments& a) { return p.space().set_break(a[0]); }

std::int64_t do_mmap(LinuxProcess& p, const Arguments& a) {
  return p.space().map(a[0], a[1], static_cast<int>(a[2]), static_cast<int>(a[3]), static_cast<int>(a[4]), a[5]);
}

std::int64_t do_munmap(LinuxProcess& p, const Arguments& a) { return p.space().unmap(a[0], a[1]); }

std::int64_t do_mprotect(LinuxProcess& p, const Arguments& a) {
  return p.space().protect(a[0], a[1], static_cast<int>(a[2]));
}

std::int64_t do_mremap(LinuxProcess& p, const Arguments& a) {
  return p.space().remap(a[0], a[1], a[2], static_cast<int>(a[3]), a[4]);
}

std::int64_t do_madvise(LinuxProcess& p, const Arguments& a) {
  return p.space().advise(a[0], a[1], static_cast<int>(a[2]));
}

std::int64_t do_flush_icache(LinuxProcess& p, const Arguments& a) {
  if (a[1] > a[0]) p.code_changed(a[0], a[1] - a[0]);
  return 0;
}

constexpr std::array kRows{
    Row{214, "brk", -1, 0, do_brk},
    Row{215, "munmap", -1, 0, do_munmap},
    Row{216, "mremap", -1, 0, do_mremap},
    Row{222, "mmap", -1, 0, do_mmap},
    Row{226, "mprotect", -1, 0, do_mprotect},
    Row{233, "madvise", -1, 0, do_madvise},
    Row{259, "riscv_flush_icache", -1, 0, do_flush_icache},
    Row{279, "memfd_create", SYS_memfd_create, 0b1},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> memory_rows() { return kRows; }

}  // namespace doppel::process
