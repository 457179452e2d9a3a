// Sockets.
#include <sys/syscall.h>

#include <array>

#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

constexpr std::array kRows{
    Row{198, "socket", SYS_socket},
    Row{199, "socketpair", SYS_socketpair, 0b1000},
    Row{203, "connect", SYS_connect, 0b10},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> network_rows() { return kRows; }

}  // namespace doppel::process
