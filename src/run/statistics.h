// --stats of `doppel run`: one JSON object when the process that was started ends.
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "process/abi/linux_process.h"

namespace doppel {

// A descriptor of the file at `path`, or stderr if that is empty.
Result<int> open_statistics(const std::string& path);
// What tells them there, once process `pid` ends.
std::function<void(const process::ProgramStatistics&)> statistics_writer(int fd, int pid);

}  // namespace doppel
