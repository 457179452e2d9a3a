#include "base/log.h"

#include <memory>

#define SPDLOG_FMT_EXTERNAL  // our own fmt, not the copy in its headers
#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

namespace doppel {

namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
    case LogLevel::kOff: break;
  }
  return spdlog::level::off;
}

std::unique_ptr<spdlog::logger> make_logger(spdlog::sink_ptr sink, const char* pattern, LogLevel lowest) {
  auto logger = std::make_unique<spdlog::logger>("doppel", std::move(sink));
  logger->set_pattern(pattern);
  logger->set_level(to_spdlog(lowest));
  logger->flush_on(spdlog::level::debug);
  return logger;
}

std::unique_ptr<spdlog::logger> make_stderr_logger(LogLevel lowest) {
  return make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>(), "doppel: %l: %v", lowest);
}

std::unique_ptr<spdlog::logger>& logger() {
  static std::unique_ptr<spdlog::logger> instance = make_stderr_logger(LogLevel::kWarning);
  return instance;
}

}  // namespace

Result<void> configure_log(LogLevel lowest, const std::string& path) {
  if (path.empty()) {
    logger() = make_stderr_logger(lowest);
    return {};
  }
  try {
    logger() = make_logger(std::make_shared<spdlog::sinks::basic_file_sink_mt>(path),
                           "%Y-%m-%dT%H:%M:%S.%e %l: %v", lowest);
  } catch (const spdlog::spdlog_ex& error) {
    return fail("{}: cannot be opened for the log: {}", path, error.what());
  }
  return {};
}

bool log_enabled(LogLevel level) { return logger()->should_log(to_spdlog(level)); }

void log_line(LogLevel level, std::string_view line) {
  logger()->log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

std::optional<std::uint64_t> LogLimit::admit(Time now) {
  const std::lock_guard lock(mutex_);
  if (burst_left_ == 0 && now < next_) {
    ++withheld_;
    return std::nullopt;
  }
  if (burst_left_ != 0) --burst_left_;
  next_ = now + kInterval;
  return std::exchange(withheld_, 0);
}

}  // namespace doppel
