// What /proc shows of a guest's mappings: the host's account, of which only those of the guest are shown, as the guest
// mapped them. Any thread.
#pragma once

#include <sys/types.h>

#include <string>

namespace doppel::process {

class LinuxProcess;

// As maps, or with `details` as smaps.
std::string own_mappings(const LinuxProcess& process, bool details);
// Of another process of Doppel's.
std::string mappings_of(pid_t id, bool details);

}  // namespace doppel::process
