// Another process's memory, which the host lets us read and write as its tracer; and where our executable lies there.
// Any thread.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace doppel::process {

inline bool read_remote(pid_t id, std::uint64_t at, void* into, std::size_t bytes) {
  const iovec ours{into, bytes}, theirs{reinterpret_cast<void*>(at), bytes};
  return ::process_vm_readv(id, &ours, 1, &theirs, 1, 0) == static_cast<ssize_t>(bytes);
}
inline bool write_remote(pid_t id, std::uint64_t at, const void* from, std::size_t bytes) {
  const iovec ours{const_cast<void*>(from), bytes}, theirs{reinterpret_cast<void*>(at), bytes};
  return ::process_vm_writev(id, &ours, 1, &theirs, 1, 0) == static_cast<ssize_t>(bytes);
}
template <class T>
std::optional<T> get_remote(pid_t id, std::uint64_t at) {
  T value;
  if (!read_remote(id, at, &value, sizeof value)) return std::nullopt;
  return value;
}
template <class T>
bool put_remote(pid_t id, std::uint64_t at, const T& value) {
  return write_remote(id, at, &value, sizeof value);
}

// Where the file that this process was started from begins in the memory of process or thread `id`; 0: it runs another.
std::uint64_t executable_base(pid_t id);
// Likewise, in our own.
std::uint64_t own_executable_base();

}  // namespace doppel::process
