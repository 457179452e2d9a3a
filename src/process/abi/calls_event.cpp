// Waiting for descriptors: poll, epoll, and what is waited for by them.
#include <sys/epoll.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <vector>

#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

// struct epoll_event, which is packed on x86-64 alone.
struct GuestEvent {
  std::uint32_t events, pad;
  u64 data;
};
static_assert(sizeof(epoll_event) == 12 && sizeof(GuestEvent) == 16);

constexpr u64 kMostEvents = 0x7fffffff / sizeof(GuestEvent);
constexpr u64 kAtOnce = 1024;

std::int64_t do_epoll_ctl(LinuxProcess& p, const Arguments& a) {
  epoll_event event{};
  if (a[1] != EPOLL_CTL_DEL) {
    const auto guest = p.get<GuestEvent>(a[3]);
    if (!guest) return -EFAULT;
    event.events = guest->events;
    event.data.u64 = guest->data;
  }
  return host_call(SYS_epoll_ctl, a[0], a[1], a[2], reinterpret_cast<u64>(&event));
}

constexpr long kEpollPwait2 = 441;

// epoll_pwait() and epoll_pwait2() differ in what the timeout is.
template <long Host>
std::int64_t do_epoll_wait(LinuxProcess& p, const Arguments& a) {
  const auto most = static_cast<std::int32_t>(a[2]);
  if (most <= 0 || static_cast<u64>(most) > kMostEvents) return -EINVAL;
  // Fewer than asked for is an answer, too.
  std::vector<epoll_event> events(std::min<u64>(static_cast<u64>(most), kAtOnce));
  const u64 timeout = Host == kEpollPwait2 ? reinterpret_cast<u64>(p.pointer(a[3])) : a[3];
  const std::int64_t count = host_call(Host, a[0], reinterpret_cast<u64>(events.data()), events.size(), timeout,
                                       reinterpret_cast<u64>(p.pointer(a[4])), a[5]);
  for (std::int64_t i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    const GuestEvent guest{event.events, 0, event.data.u64};
    if (!p.put(a[1] + static_cast<u64>(i) * sizeof guest, guest)) return -EFAULT;
  }
  return count;
}

constexpr std::array kRows{
    // Completions are in a ring that the kernel maps where it likes.
    refused_row(0, "io_setup"),
    refused_row(1, "io_destroy"),
    refused_row(2, "io_submit"),
    refused_row(3, "io_cancel"),
    refused_row(4, "io_getevents"),
    Row{19, "eventfd2", SYS_eventfd2},
    Row{20, "epoll_create1", SYS_epoll_create1},
    Row{21, "epoll_ctl", -1, 0, do_epoll_ctl},
    Row{22, "epoll_pwait", -1, 0, do_epoll_wait<SYS_epoll_pwait>},
    Row{26, "inotify_init1", SYS_inotify_init1},
    Row{27, "inotify_add_watch", SYS_inotify_add_watch, 0b10},
    Row{28, "inotify_rm_watch", SYS_inotify_rm_watch},
    Row{73, "ppoll", SYS_ppoll, 0b1101},
    Row{262, "fanotify_init", SYS_fanotify_init},
    Row{263, "fanotify_mark", SYS_fanotify_mark, 0b10000},
    refused_row(292, "io_pgetevents"),
    // Rings of pointers that nobody looks at on their way to the kernel.
    refused_row(425, "io_uring_setup"),
    refused_row(426, "io_uring_enter"),
    refused_row(427, "io_uring_register"),
    Row{441, "epoll_pwait2", -1, 0, do_epoll_wait<kEpollPwait2>},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> event_rows() { return kRows; }

}  // namespace doppel::process
