// Sockets. Addresses, options and control messages are the same in guest and host; what a message header points at is
// copied, so that no pointer in it leads out of the guest's memory.
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <linux/filter.h>
#include <vector>

#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"
#include "process/abi/vectors.h"

namespace doppel::process {
namespace {

static_assert(sizeof(msghdr) == 56 && sizeof(mmsghdr) == 64);

u64 pointer(const LinuxProcess& p, void* gva) {
  return reinterpret_cast<u64>(p.pointer(reinterpret_cast<u64>(gva)));
}

// A guest's message header with everything in it the host's.
class HostMessage {
 public:
  HostMessage(const LinuxProcess& p, const msghdr& guest)
      : header_(guest),
        parts_(p, reinterpret_cast<u64>(guest.msg_iov), guest.msg_iovlen, few_) {
    header_.msg_name = reinterpret_cast<void*>(pointer(p, guest.msg_name));
    header_.msg_control = reinterpret_cast<void*>(pointer(p, guest.msg_control));
    header_.msg_iov = parts_.data();
  }

  std::int64_t failed() const { return parts_.failed() == -EINVAL ? -EMSGSIZE : parts_.failed(); }
  msghdr& header() { return header_; }
  // What a receiver finds changed in its own header.
  bool give_back(const LinuxProcess& p, u64 gva) const {
    return p.put(gva + offsetof(msghdr, msg_namelen), header_.msg_namelen) &&
           p.put(gva + offsetof(msghdr, msg_controllen), header_.msg_controllen) &&
           p.put(gva + offsetof(msghdr, msg_flags), header_.msg_flags);
  }

 private:
  msghdr header_;
  std::array<iovec, kFewVectors> few_;
  HostVectors parts_;
};

std::int64_t do_sendmsg(LinuxProcess& p, const Arguments& a) {
  const auto guest = p.get<msghdr>(a[1]);
  if (!guest) return -EFAULT;
  HostMessage message(p, *guest);
  if (message.failed() != 0) return message.failed();
  return host_call(SYS_sendmsg, a[0], reinterpret_cast<u64>(&message.header()), a[2]);
}

std::int64_t do_recvmsg(LinuxProcess& p, const Arguments& a) {
  const auto guest = p.get<msghdr>(a[1]);
  if (!guest) return -EFAULT;
  HostMessage message(p, *guest);
  if (message.failed() != 0) return message.failed();
  const std::int64_t r = host_call(SYS_recvmsg, a[0], reinterpret_cast<u64>(&message.header()), a[2]);
  return r < 0 || message.give_back(p, a[1]) ? r : -EFAULT;
}

// sendmmsg() and recvmmsg(): all headers become the host's before the one call, as its timeout is for all together.
template <long Host>
std::int64_t do_messages(LinuxProcess& p, const Arguments& a) {
  const u64 count = std::min<u64>(static_cast<std::uint32_t>(a[2]), IOV_MAX);  // as the kernel takes no more
  std::vector<std::unique_ptr<HostMessage>> messages;
  std::vector<mmsghdr> headers;
  for (u64 i = 0; i < count; ++i) {
    const auto guest = p.get<mmsghdr>(a[1] + i * sizeof(mmsghdr));
    if (!guest) break;
    messages.push_back(std::make_unique<HostMessage>(p, guest->msg_hdr));
    if (messages.back()->failed() != 0) break;
    headers.push_back({messages.back()->header(), 0});
  }
  if (headers.empty() && count != 0) {
    return messages.empty() ? -EFAULT : messages.back()->failed();
  }
  const std::int64_t done =
      host_call(Host, a[0], reinterpret_cast<u64>(headers.data()), headers.size(), a[3],
                Host == SYS_recvmmsg ? reinterpret_cast<u64>(p.pointer(a[4])) : 0);
  for (std::int64_t i = 0; i < done; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const u64 gva = a[1] + at * sizeof(mmsghdr);
    if (!p.put(gva + offsetof(mmsghdr, msg_len), headers[at].msg_len)) return -EFAULT;
    if (Host == SYS_recvmmsg) {
      messages[at]->header() = headers[at].msg_hdr;
      if (!messages[at]->give_back(p, gva)) return -EFAULT;
    }
  }
  return done;
}

std::int64_t do_setsockopt(LinuxProcess& p, const Arguments& a) {
  const bool filter = a[1] == SOL_SOCKET && (a[2] == SO_ATTACH_FILTER || a[2] == SO_ATTACH_REUSEPORT_CBPF);
  if (!filter) return host_call(SYS_setsockopt, a[0], a[1], a[2], reinterpret_cast<u64>(p.pointer(a[3])), a[4]);
  auto program = a[4] == sizeof(sock_fprog) ? p.get<sock_fprog>(a[3]) : std::nullopt;
  if (!program) return a[4] == sizeof(sock_fprog) ? -EFAULT : -EINVAL;
  program->filter = reinterpret_cast<sock_filter*>(pointer(p, program->filter));
  return host_call(SYS_setsockopt, a[0], a[1], a[2], reinterpret_cast<u64>(&*program), a[4]);
}

constexpr std::array kRows{
    Row{198, "socket", SYS_socket},
    Row{199, "socketpair", SYS_socketpair, 0b1000},
    Row{200, "bind", SYS_bind, 0b10},
    Row{201, "listen", SYS_listen},
    Row{202, "accept", SYS_accept, 0b110},
    Row{203, "connect", SYS_connect, 0b10},
    Row{204, "getsockname", SYS_getsockname, 0b110},
    Row{205, "getpeername", SYS_getpeername, 0b110},
    Row{206, "sendto", SYS_sendto, 0b10010},
    Row{207, "recvfrom", SYS_recvfrom, 0b110010},
    Row{208, "setsockopt", -1, 0, do_setsockopt},
    Row{209, "getsockopt", SYS_getsockopt, 0b11000},
    Row{210, "shutdown", SYS_shutdown},
    Row{211, "sendmsg", -1, 0, do_sendmsg},
    Row{212, "recvmsg", -1, 0, do_recvmsg},
    Row{242, "accept4", SYS_accept4, 0b110},
    Row{243, "recvmmsg", -1, 0, do_messages<SYS_recvmmsg>},
    Row{269, "sendmmsg", -1, 0, do_messages<SYS_sendmmsg>},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> network_rows() { return kRows; }

}  // namespace doppel::process
