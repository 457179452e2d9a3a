// System V's and POSIX's message queues, semaphores and shared memory; keys.
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

// struct semid64_ds: x86-64 alone has room behind each time.
struct GuestSemaphores {
  std::array<std::byte, 48> permissions;
  std::int64_t operated, changed;
  u64 count;
  std::array<u64, 2> unused;
};
struct HostSemaphores {
  std::array<std::byte, 48> permissions;
  std::int64_t operated;
  u64 unused1;
  std::int64_t changed;
  u64 unused2, count;
  std::array<u64, 2> unused;
};
static_assert(sizeof(GuestSemaphores) == 88 && sizeof(HostSemaphores) == 104);

std::int64_t do_semctl(LinuxProcess& p, const Arguments& a) {
  switch (static_cast<int>(a[2]) & ~0x100) {  // IPC_64, which is understood of itself
    case IPC_STAT:
    case SEM_STAT:
    case SEM_STAT_ANY: {
      HostSemaphores host{};
      const std::int64_t r = host_call(SYS_semctl, a[0], a[1], a[2], reinterpret_cast<u64>(&host));
      if (r < 0) return r;
      const GuestSemaphores guest{host.permissions, host.operated, host.changed, host.count, {}};
      return p.put(a[3], guest) ? r : -EFAULT;
    }
    case IPC_SET: {
      const auto guest = p.get<GuestSemaphores>(a[3]);
      if (!guest) return -EFAULT;
      HostSemaphores host{};
      host.permissions = guest->permissions;
      return host_call(SYS_semctl, a[0], a[1], a[2], reinterpret_cast<u64>(&host));
    }
    case GETALL:
    case SETALL:
    case IPC_INFO:
    case SEM_INFO: return host_call(SYS_semctl, a[0], a[1], a[2], reinterpret_cast<u64>(p.pointer(a[3])));
    default: return host_call(SYS_semctl, a[0], a[1], a[2], a[3]);
  }
}

std::int64_t do_shmat(LinuxProcess& p, const Arguments& a) {
  return p.space().attach(static_cast<int>(a[0]), a[1], static_cast<int>(a[2]));
}

std::int64_t do_shmdt(LinuxProcess& p, const Arguments& a) { return p.space().detach(a[0]); }

constexpr std::array kRows{
    Row{180, "mq_open", SYS_mq_open, 0b1001},
    Row{181, "mq_unlink", SYS_mq_unlink, 0b1},
    Row{182, "mq_timedsend", SYS_mq_timedsend, 0b10010},
    Row{183, "mq_timedreceive", SYS_mq_timedreceive, 0b11010},
    Row{184, "mq_notify", SYS_mq_notify, 0b10},
    Row{185, "mq_getsetattr", SYS_mq_getsetattr, 0b110},
    Row{186, "msgget", SYS_msgget},
    Row{187, "msgctl", SYS_msgctl, 0b100},
    Row{188, "msgrcv", SYS_msgrcv, 0b10},
    Row{189, "msgsnd", SYS_msgsnd, 0b10},
    Row{190, "semget", SYS_semget},
    Row{191, "semctl", -1, 0, do_semctl},
    Row{192, "semtimedop", SYS_semtimedop, 0b1010},
    Row{193, "semop", SYS_semop, 0b10},
    Row{194, "shmget", SYS_shmget},
    Row{195, "shmctl", SYS_shmctl, 0b100},
    Row{196, "shmat", -1, 0, do_shmat},
    Row{197, "shmdt", -1, 0, do_shmdt},
    Row{217, "add_key", SYS_add_key, 0b111},
    Row{218, "request_key", SYS_request_key, 0b111},
    Row{219, "keyctl", -1, 0, [](LinuxProcess& p, const Arguments& a) {
          // What is a pointer depends on the operation; those that are none are small.
          Arguments host = a;
          for (unsigned i = 1; i < 5; ++i) {
            if (a[i] >= AddressSpace::kLowest && p.readable(a[i], 1)) host[i] = reinterpret_cast<u64>(p.pointer(a[i]));
          }
          return host_call(SYS_keyctl, host[0], host[1], host[2], host[3], host[4]);
        }},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> ipc_rows() { return kRows; }

}  // namespace doppel::process
