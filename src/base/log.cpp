#include "base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <mutex>

#define SPDLOG_FMT_EXTERNAL  // our own fmt, not the copy in its headers
#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include "base/own_descriptor.h"

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

// Appends each line in one write(): a child after fork() has half of none.
class DescriptorSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit DescriptorSink(int fd) : fd_(fd) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    // A log that cannot be written has nowhere to say so.
    if (::write(fd_, text.data(), text.size()) < 0) return;
  }
  void flush_() override {}

 private:
  const int fd_;
};

std::unique_ptr<spdlog::logger> make_stderr_logger(LogLevel lowest) {
  return make_logger(std::make_shared<spdlog::sinks::stderr_sink_mt>(), "doppel: %l: %v", lowest);
}

std::unique_ptr<spdlog::logger>& logger() {
  static std::unique_ptr<spdlog::logger> instance = make_stderr_logger(LogLevel::kWarning);
  return instance;
}

int descriptor = -1;

}  // namespace

int log_descriptor() { return descriptor; }

Result<void> configure_log(LogLevel lowest, const std::string& path) {
  if (path.empty()) {
    logger() = make_stderr_logger(lowest);
    return {};
  }
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return fail_errno(errno, "{}: cannot be opened for the log", path);
  configure_log(lowest, keep_aside(fd));
  return {};
}

void configure_log(LogLevel lowest, int fd) {
  descriptor = fd;
  logger() = make_logger(std::make_shared<DescriptorSink>(fd), "%Y-%m-%dT%H:%M:%S.%e %l: %v", lowest);
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
