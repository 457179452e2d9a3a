// Programs cannot be written while they run, nor run while they are written (ETXTBSY). The host's kernel sees to that for
// its own. A guest's program is a file that is mapped, so a process marks it by a lock on a byte that no file has, as long
// as it runs; and whether somebody writes to a file is known to who may be promised that nobody does (a lease). Where a
// file system has neither, nothing is busy. Any thread.
#pragma once

#include "base/unique_fd.h"

namespace doppel::process {

// The file is this process's program from now on, and that of children after a fork.
void mark_running(UniqueFd file);
// Whether it is the program of a running guest; `fd` is open for writing.
bool is_running(int fd);
// Whether somebody has the regular file open for writing, as far as can be known.
bool is_being_written(int fd);

}  // namespace doppel::process
