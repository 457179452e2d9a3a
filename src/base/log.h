// The program's log: lines for the operator, on stderr or in a file. Any thread.
//
// What a user asked for and cannot have is a Result, not a log line.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "base/result.h"

namespace doppel {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarning, kError, kOff };

// Before the first call: warnings and errors, to stderr. An empty path is stderr; a file is appended to.
// Meant for start-up, before other threads log.
Result<void> configure_log(LogLevel lowest, const std::string& path = {});
// To a descriptor, which stays open; -1: stderr.
void configure_log(LogLevel lowest, int fd);
// The log's descriptor; -1: stderr.
int log_descriptor();

bool log_enabled(LogLevel level);
void log_line(LogLevel level, std::string_view line);

template <class... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) {
  if (log_enabled(level)) log_line(level, fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) {
  log(LogLevel::kDebug, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) {
  log(LogLevel::kInfo, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log(LogLevel::kWarning, format, std::forward<Args>(args)...);
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log(LogLevel::kError, format, std::forward<Args>(args)...);
}

// How often a guest may make us speak: a burst of lines, then one for each interval. One for each device.
class LogLimit {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr unsigned kBurst = 8;
  static constexpr std::chrono::seconds kInterval{1};

  // nullopt: say nothing. Otherwise speak, and the value is how many lines were withheld before.
  std::optional<std::uint64_t> admit(Time now);

 private:
  std::mutex mutex_;
  unsigned burst_left_ = kBurst;
  Time next_{};
  std::uint64_t withheld_ = 0;
};

// A warning about what the guest did wrong; formats nothing when the limit withholds it.
template <class... Args>
void log_limited(LogLimit& limit, fmt::format_string<Args...> format, Args&&... args) {
  if (!log_enabled(LogLevel::kWarning)) return;
  const auto withheld = limit.admit(std::chrono::steady_clock::now());
  if (!withheld) return;
  std::string line = fmt::format(format, std::forward<Args>(args)...);
  if (*withheld != 0) line += fmt::format(" ({} similar lines withheld)", *withheld);
  log_line(LogLevel::kWarning, line);
}

}  // namespace doppel
