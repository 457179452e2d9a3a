// Where translated code is kept between runs.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"

namespace doppel {

inline constexpr const char* kNoCodeCache = "off";
inline constexpr const char* kCodeCacheVariable = "DOPPEL_CODE_CACHE";

// Opens the folder that `wanted` names, else the variable, else `code` in the folder for what Doppel keeps, and makes it if
// need be. -1 if there is to be none, or the usual one cannot be had; only one that was asked for is worth an error.
// The descriptor is aside.
Result<int> open_code_folder(const std::optional<std::string>& wanted);

}  // namespace doppel
