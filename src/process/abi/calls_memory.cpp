// Mappings and the break; code that changed.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "memory/address.h"
#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"
#include "process/abi/vectors.h"

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

// Of a range that must be mapped as a whole. Where the guest's memory is a reservation, the host could not tell.
template <long Host, unsigned Pointers>
std::int64_t on_mapped(LinuxProcess& p, const Arguments& a) {
  if (a[0] % kPageSize == 0 && !p.space().is_mapped(a[0], a[1])) return -ENOMEM;
  return host_call(Host, reinterpret_cast<u64>(p.pointer(a[0])), a[1],
                   (Pointers & 0b100) != 0 ? reinterpret_cast<u64>(p.pointer(a[2])) : a[2]);
}

// Locking is about time, not about results; and what is locked here would be all of Doppel's memory, too.
std::int64_t do_mlockall(LinuxProcess&, const Arguments& a) {
  constexpr u64 kKnown = MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT;
  return a[0] == 0 || a[0] == MCL_ONFAULT || (a[0] & ~kKnown) != 0 ? -EINVAL : 0;
}

// The other process has its pointers where the guest says: processes of the guest's have their addresses.
template <long Host>
std::int64_t do_process_vm(LinuxProcess& p, const Arguments& a) {
  std::array<iovec, kFewVectors> few;
  const HostVectors parts(p, a[1], a[2], few);
  if (parts.failed() != 0) return parts.failed();
  const std::int64_t done =
      host_call(Host, a[0], parts.address(), a[2], reinterpret_cast<u64>(p.pointer(a[3])), a[4], a[5]);
  if (Host == SYS_process_vm_writev && done > 0) {
    u64 left = static_cast<u64>(done);
    for (u64 i = 0; i < a[4] && left != 0; ++i) {
      const auto part = p.get<iovec>(a[3] + i * sizeof(iovec));
      if (!part) break;
      const u64 bytes = std::min<u64>(left, part->iov_len);
      p.tracer().wrote_memory_of(static_cast<pid_t>(a[0]), reinterpret_cast<u64>(part->iov_base), bytes);
      left -= bytes;
    }
  }
  return done;
}

constexpr std::array kRows{
    Row{214, "brk", -1, 0, do_brk},
    Row{215, "munmap", -1, 0, do_munmap},
    Row{216, "mremap", -1, 0, do_mremap},
    Row{222, "mmap", -1, 0, do_mmap},
    Row{226, "mprotect", -1, 0, do_mprotect},
    Row{227, "msync", -1, 0, on_mapped<SYS_msync, 0b1>},
    Row{228, "mlock", -1, 0, on_mapped<SYS_mlock, 0b1>},
    Row{229, "munlock", SYS_munlock, 0b1},
    Row{230, "mlockall", -1, 0, do_mlockall},
    Row{231, "munlockall", SYS_munlockall},
    Row{232, "mincore", -1, 0, on_mapped<SYS_mincore, 0b101>},
    Row{233, "madvise", -1, 0, do_madvise},
    refused_row(234, "remap_file_pages"),
    Row{235, "mbind", SYS_mbind, 0b1001},
    Row{236, "get_mempolicy", SYS_get_mempolicy, 0b1011},
    Row{237, "set_mempolicy", SYS_set_mempolicy, 0b10},
    Row{238, "migrate_pages", SYS_migrate_pages, 0b1100},
    Row{239, "move_pages", SYS_move_pages, 0b11100},
    Row{259, "riscv_flush_icache", -1, 0, do_flush_icache},
    Row{270, "process_vm_readv", -1, 0, do_process_vm<SYS_process_vm_readv>},
    Row{271, "process_vm_writev", -1, 0, do_process_vm<SYS_process_vm_writev>},
    Row{279, "memfd_create", SYS_memfd_create, 0b1},
    Row{282, "userfaultfd", SYS_userfaultfd},
    Row{284, "mlock2", SYS_mlock2, 0b1},
    // Keys are the host's processor's.
    refused_row(288, "pkey_mprotect"),
    refused_row(289, "pkey_alloc"),
    refused_row(290, "pkey_free"),
    Row{440, "process_madvise", 440, 0b10},
    refused_row(447, "memfd_secret"),
    Row{448, "process_mrelease", 448},
    Row{450, "set_mempolicy_home_node", 450, 0b1},
    refused_row(453, "map_shadow_stack"),
    refused_row(462, "mseal"),
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> memory_rows() { return kRows; }

}  // namespace doppel::process
