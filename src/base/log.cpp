#include "base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
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

// What configure_log() said.
std::atomic<LogLevel> lowest_level{LogLevel::kWarning};
int descriptor = -1;

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

std::unique_ptr<spdlog::logger> make_logger() {
  spdlog::sink_ptr sink;
  const char* pattern = "doppel: %l: %v";
  if (descriptor < 0) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  } else {
    sink = std::make_shared<DescriptorSink>(descriptor);
    pattern = "%Y-%m-%dT%H:%M:%S.%e %l: %v";
  }
  auto logger = std::make_unique<spdlog::logger>("doppel", std::move(sink));
  logger->set_pattern(pattern);
  logger->set_level(spdlog::level::trace);  // log_enabled() has decided
  logger->flush_on(spdlog::level::debug);
  return logger;
}

// Null until there is something to log: most programs that run for a moment have nothing.
std::atomic<spdlog::logger*> instance;

spdlog::logger& logger() {
  if (spdlog::logger* known = instance.load(std::memory_order_acquire)) return *known;
  std::unique_ptr<spdlog::logger> made = make_logger();
  spdlog::logger* other = nullptr;
  return instance.compare_exchange_strong(other, made.get()) ? *made.release() : *other;
}

}  // namespace

int log_descriptor() { return descriptor; }

Result<void> configure_log(LogLevel lowest, const std::string& path) {
  if (path.empty()) {
    configure_log(lowest, -1);
    return {};
  }
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) return fail_errno(errno, "{}: cannot be opened for the log", path);
  configure_log(lowest, keep_aside(fd));
  return {};
}

void configure_log(LogLevel lowest, int fd) {
  descriptor = fd;
  lowest_level = lowest;
  delete instance.exchange(nullptr);
}

bool log_enabled(LogLevel level) { return level >= lowest_level.load(std::memory_order_relaxed); }

void log_line(LogLevel level, std::string_view line) {
  if (log_enabled(level)) logger().log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
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
