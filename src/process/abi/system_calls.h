// Linux system calls of riscv64: one row each, in tables by topic (calls_*.cpp). Most reach the host as they are, with
// pointers moved into the guest's memory: a bad one is then refused by the host itself. Functions do those whose
// structures or meaning differ.
//
// A call runs on the thread of the hart that made it.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace doppel::process {

class LinuxProcess;

using u64 = std::uint64_t;
using Arguments = std::array<u64, 6>;
using Function = std::int64_t (*)(LinuxProcess&, const Arguments&);

struct Row {
  unsigned number;        // riscv64's
  const char* name;
  long host = -1;         // the host's number, to pass the call on
  unsigned pointers = 0;  // bit n: argument n is a guest pointer
  Function function = nullptr;
  unsigned paths = 0;  // bit n: argument n is a path to something that is there
};

constexpr Row path_row(unsigned number, const char* name, long host, unsigned pointers, unsigned paths) {
  return {.number = number, .name = name, .host = host, .pointers = pointers, .function = nullptr, .paths = paths};
}

// Not there on purpose; programs have another way.
constexpr Row refused_row(unsigned number, const char* name) {
  return {.number = number, .name = name, .host = -1, .pointers = 0,
          .function = [](LinuxProcess&, const Arguments&) -> std::int64_t { return -ENOSYS; }, .paths = 0};
}

// What a table must hold to.
constexpr bool in_order(std::span<const Row> rows) {
  return std::ranges::adjacent_find(rows, std::ranges::greater_equal{}, &Row::number) == rows.end();
}

std::span<const Row> event_rows();
std::span<const Row> file_rows();
std::span<const Row> ipc_rows();
std::span<const Row> memory_rows();
std::span<const Row> network_rows();
std::span<const Row> process_rows();
std::span<const Row> signal_rows();
std::span<const Row> system_rows();
std::span<const Row> thread_rows();
std::span<const Row> time_rows();
std::span<const Row> trace_rows();

// Carries out the call in a7 with the arguments in a0 to a5, and gives what a0 gets.
std::int64_t system_call(LinuxProcess& process);
// The call of this number.
std::int64_t call(LinuxProcess& process, u64 number, const Arguments& arguments);

// A line of the trace for a call of the table whose result is known only now.
void trace_rest(const LinuxProcess& process, u64 number, std::int64_t value);

// --- For the tables.

// What the guest gets for what the host's syscall() returned.
inline std::int64_t result(long value) { return value == -1 ? -errno : value; }

// The text at gva; nullopt where it cannot be read. One that is too long for an argument comes shortened.
std::optional<std::string> text_at(const LinuxProcess& process, u64 gva);
// The texts that a null-terminated array of pointers names; not all where they are too many for an execve().
std::optional<std::vector<std::string>> texts_at(const LinuxProcess& process, u64 gva);

}  // namespace doppel::process
