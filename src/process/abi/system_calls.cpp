#include "process/abi/system_calls.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cassert>
#include <cstring>

#include "base/log.h"
#include "memory/address.h"
#include "process/abi/host_call.h"
#include "process/abi/linux_process.h"
#include "process/abi/paths.h"

namespace doppel::process {
namespace {

constexpr unsigned kNumbers = 512;  // beyond the highest

using Table = std::array<const Row*, kNumbers>;

Table merged() {
  Table table{};
  for (const auto rows : {event_rows(), file_rows(), ipc_rows(), memory_rows(), network_rows(), process_rows(), signal_rows(),
                          system_rows(), thread_rows(), time_rows(), trace_rows()}) {
    for (const Row& row : rows) {
      assert(row.number < kNumbers && table[row.number] == nullptr);
      table[row.number] = &row;
    }
  }
  return table;
}

const Table kTable = merged();  // of constants: the order of start-up does not matter

// Once each, as programs try again and again; numbers beyond the table share one place.
void tell_unknown(u64 number) {
  static std::array<std::atomic<bool>, kNumbers + 1> told{};
  if (!told[std::min<u64>(number, kNumbers)].exchange(true)) log_info("system call {} is unknown", number);
}

std::int64_t pass_on(const Row& row, const Arguments& a) {
  return host_call(row.host, a[0], a[1], a[2], a[3], a[4], a[5]);
}

std::int64_t carry_out(LinuxProcess& process, const Row& row, const Arguments& arguments) {
  if (row.function != nullptr) return row.function(process, arguments);
  Arguments a = arguments;
  for (unsigned i = 0; i < a.size(); ++i) {
    if ((row.pointers >> i & 1) != 0) a[i] = reinterpret_cast<u64>(process.pointer(a[i]));
  }
  if (row.paths == 0) return pass_on(row, a);
  std::array<std::optional<std::string>, 6> others;
  const auto directory = [&](unsigned path) { return path == 0 ? AT_FDCWD : static_cast<int>(arguments[path - 1]); };
  for (unsigned i = 0; i < a.size(); ++i) {
    if ((row.paths >> i & 1) != 0 && (others[i] = other_path(process, directory(i), arguments[i]))) {
      a[i] = reinterpret_cast<u64>(others[i]->c_str());
    }
  }
  return pass_on(row, a);
}

}  // namespace

std::optional<std::string> text_at(const LinuxProcess& p, u64 gva) {
  std::string text;
  std::array<char, 256> part;
  while (text.size() < kLongestArgument) {
    // Up to the end of the page: the next one may not be there.
    const u64 bytes = std::min<u64>(part.size(), kPageSize - gva % kPageSize);
    if (!p.read(gva, part.data(), bytes)) return std::nullopt;
    const auto* end = static_cast<const char*>(std::memchr(part.data(), 0, bytes));
    text.append(part.data(), end != nullptr ? static_cast<u64>(end - part.data()) : bytes);
    if (end != nullptr) break;
    gva += bytes;
  }
  return text;
}

std::optional<std::vector<std::string>> texts_at(const LinuxProcess& p, u64 gva) {
  std::vector<std::string> texts;
  std::size_t bytes = 0;
  for (; gva != 0 && bytes <= argument_bytes(); gva += 8) {
    const auto at = p.get<u64>(gva);
    if (!at) return std::nullopt;
    if (*at == 0) break;
    auto text = text_at(p, *at);
    if (!text) return std::nullopt;
    bytes += text->size() + 1 + sizeof(char*);
    texts.push_back(std::move(*text));
  }
  return texts;
}

std::int64_t call(LinuxProcess& process, u64 number, const Arguments& a) {
  const Row* row = number < kTable.size() ? kTable[number] : nullptr;
  if (row == nullptr) {
    if (process.options().trace_calls) fmt::print(stderr, "system call {} = -ENOSYS\n", number);
    tell_unknown(number);
    return -ENOSYS;
  }
  const std::int64_t value = carry_out(process, *row, a);
  if (process.options().trace_calls) {
    fmt::print(stderr, "{}({:#x}, {:#x}, {:#x}, {:#x}, {:#x}, {:#x}) {}\n", row->name, a[0], a[1], a[2], a[3], a[4], a[5],
               value == kRestart ? "<unfinished ...>" : fmt::format("= {}", value));
  }
  return value;
}

void trace_rest(const LinuxProcess& process, u64 number, std::int64_t value) {
  if (process.options().trace_calls) fmt::print(stderr, "<... {} resumed> = {}\n", kTable[number]->name, value);
}

std::int64_t system_call(LinuxProcess& process) {
  const auto& x = process.hart().state().x;
  return call(process, x[17], {x[10], x[11], x[12], x[13], x[14], x[15]});
}

}  // namespace doppel::process
