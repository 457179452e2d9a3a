// File descriptors of Doppel's own in a process whose other descriptors belong to a guest: they lie high, where the
// guest's next descriptor is not, and are remembered, so that the guest can neither close nor replace them. Any thread.
#pragma once

#include <cstdint>

namespace doppel {

// Who has a descriptor after this process: its children, or also the program that it becomes.
enum class Heirs : std::uint8_t { kChildren, kAll };

// Moves `fd` (which is closed) out of the guest's way, close-on-exec. Where there is no room it stays as it is.
int keep_aside(int fd, Heirs heirs = Heirs::kAll);
// One that came from keep_aside() in the program that became this one by execve().
void adopt_aside(int fd);
bool is_aside(int fd);
// The lowest and highest there may be, for whoever looks at ranges; first > last: none.
struct AsideRange {
  int first, last;
};
AsideRange aside_range();
// Whether those that all inherit outlive an execve().
void inherit_aside(bool inherited);

}  // namespace doppel
