// Whole files as bytes, for what a machine boots from.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/result.h"

namespace doppel {

// The contents of the file at `path`; fails when it is missing, unreadable, empty, no regular file (a pipe
// is read to its end), or larger than `limit_bytes`.
Result<std::vector<std::byte>> read_file(const std::string& path, std::size_t limit_bytes);

}  // namespace doppel
