// Takes kernels out of the wrappers that distributions ship them in: gzip, and the EFI "zboot" image.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/result.h"
#include "machine/boot/bytes.h"
#include "machine/boot/file.h"

namespace doppel {

// Whether `bytes` begin as a gzip member (RFC 1952, section 2.3.1).
bool is_gzip(Bytes bytes);

// Expands one gzip member. `name` is for the error's sentence; expanding to more than `limit_bytes` fails.
Result<std::vector<std::byte>> expand_gzip(Bytes bytes, const std::string& name, std::size_t limit_bytes);

// `file` without its wrapper, or `file` itself, which then is not read, when it has none that we know.
Result<BootFile> unwrap_kernel(BootFile file, std::size_t limit_bytes);

}  // namespace doppel
