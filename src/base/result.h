// What the host refuses, as a value: a Result either holds a T or one sentence for the user.
//
// The sentence names the thing at fault (file, option, offset) and, where there is one, the way out.
// Guest-visible faults are Trap values and our own bugs are assertions; neither travels here.
#pragma once

#include <cerrno>
#include <cstring>
#include <expected>
#include <string>
#include <utility>

#include <fmt/format.h>

namespace doppel {

struct Error {
  std::string message;
};

template <class T>
using Result = std::expected<T, Error>;

// Builds the unexpected side of any Result: `return fail("{}: not a kernel image", path);`
template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...)});
}

// As fail(), with ": " and the text of `error_number` (an errno value) appended.
template <class... Args>
[[nodiscard]] std::unexpected<Error> fail_errno(int error_number, fmt::format_string<Args...> format,
                                                Args&&... args) {
  return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...) + ": " +
                               std::strerror(error_number)});
}

}  // namespace doppel
