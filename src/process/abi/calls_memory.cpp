// Mappings and the break; code that changed.
#include <sys/syscall.h>

#include <array>

#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

std::int64_t do_brk(LinuxProcess& p, const Arguments& a) {
  const std::int64_t now = p.space().set_break(a[0]);
  if (a[0] != 0) p.mappings_changed();
  return now;
}

std::int64_t do_mmap(LinuxProcess& p, const Arguments& a) {
  const std::int64_t at = p.space().map(a[0], a[1], static_cast<int>(a[2]), static_cast<int>(a[3]),
                                        static_cast<int>(a[4]), a[5]);
  if (at > 0) p.mappings_changed();
  return at;
}
std::int64_t do_munmap(LinuxProcess& p, const Arguments& a) {
  const std::int64_t r = p.space().unmap(a[0], a[1]);
  p.mappings_changed();
  return r;
}
std::int64_t do_mprotect(LinuxProcess& p, const Arguments& a) {
  const std::int64_t r = p.space().protect(a[0], a[1], static_cast<int>(a[2]));
  p.mappings_changed();
  return r;
}
std::int64_t do_mremap(LinuxProcess& p, const Arguments& a) {
  const std::int64_t r = p.space().remap(a[0], a[1], a[2], static_cast<int>(a[3]));
  p.mappings_changed();
  return r;
}
std::int64_t do_flush_icache(LinuxProcess& p, const Arguments&) {
  p.mappings_changed();
  return 0;
}

constexpr std::array kRows{
    Row{214, "brk", -1, 0, do_brk},
    Row{215, "munmap", -1, 0, do_munmap},
    Row{216, "mremap", -1, 0, do_mremap},
    Row{222, "mmap", -1, 0, do_mmap},
    Row{226, "mprotect", -1, 0, do_mprotect},
    Row{233, "madvise", SYS_madvise, 0b1},
    Row{259, "riscv_flush_icache", -1, 0, do_flush_icache},
    Row{279, "memfd_create", SYS_memfd_create, 0b1},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> memory_rows() { return kRows; }

}  // namespace doppel::process
