// Where a guest sees another file than the host has under a path: its own in /proc, and libraries under -L. Any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace doppel::process {

class LinuxProcess;

// The path in /proc that the text at gva names from `directory` on (a descriptor or AT_FDCWD); nullopt: it names nothing
// there that may look otherwise to the guest.
std::optional<std::string> proc_path(const LinuxProcess& process, int directory, std::uint64_t gva);

// What the path at gva names instead; nullopt: nothing else, so that the host may look at it.
std::optional<std::string> other_path(const LinuxProcess& process, int directory, std::uint64_t gva);

// Likewise, for what proc_path() has nothing to say about: a file among the program's libraries.
std::optional<std::string> library_path(const LinuxProcess& process, std::uint64_t gva);

// A descriptor of what proc_path() shows when it is opened with `flags`, or -errno; nullopt: the host's file.
std::optional<std::int64_t> open_view(const LinuxProcess& process, const std::string& path, int flags);

// Where proc_path() leads if it is the link to a guest's program, ours or another process's.
std::optional<std::string> program_link(const LinuxProcess& process, const std::string& path);

// Whose memory proc_path() is.
std::optional<pid_t> memory_owner(const std::string& path);

}  // namespace doppel::process
