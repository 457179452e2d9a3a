// Clocks and sleep.
#include <sys/syscall.h>

#include <array>

#include "process/abi/linux_process.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

constexpr std::array kRows{
    Row{101, "nanosleep", SYS_nanosleep, 0b11},
    Row{113, "clock_gettime", SYS_clock_gettime, 0b10},
    Row{114, "clock_getres", SYS_clock_getres, 0b10},
    Row{115, "clock_nanosleep", SYS_clock_nanosleep, 0b1100},
    Row{153, "times", SYS_times, 0b1},
    Row{169, "gettimeofday", SYS_gettimeofday, 0b11},
};
static_assert(in_order(kRows));

}  // namespace

std::span<const Row> time_rows() { return kRows; }

}  // namespace doppel::process
