// Translated code that is kept between runs: in which folder, and for what. Any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace doppel {

class CodeArchive;

inline constexpr const char* kNoCodeCache = "off";
inline constexpr const char* kCodeCacheVariable = "DOPPEL_CODE_CACHE";

// Opens the folder that `wanted` names, else the variable, else `code` in the folder for what Doppel keeps, and makes it if
// need be. Nothing if there is to be none, or the usual one cannot be had; only one that was asked for is worth an error.
Result<UniqueFd> open_code_folder(const std::optional<std::string>& wanted);

// The code kept there of what `identity` tells from other guests, for this host and this very Doppel. Null if the linker
// gave Doppel no build ID.
std::shared_ptr<CodeArchive> open_code_archive(int folder, std::span<const std::byte> identity);
// Writes what was added to it.
void write_code_archive(CodeArchive& archive);

// What a machine keeps: code for paged memory, and for programs in shadows. Both may be null.
struct MachineCode {
  std::shared_ptr<CodeArchive> paged, shadows;
};
MachineCode open_machine_code(int folder, std::string_view isa);
void write_machine_code(const MachineCode& code);

}  // namespace doppel
