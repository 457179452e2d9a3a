#include "base/log.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include <unistd.h>

#include <gtest/gtest.h>

namespace doppel {
namespace {

TEST(LogLimit, AdmitsABurstThenOneEachIntervalAndCountsTheRest) {
  LogLimit limit;
  LogLimit::Time now{};
  for (unsigned i = 0; i < LogLimit::kBurst; ++i) EXPECT_EQ(limit.admit(now), 0u);
  EXPECT_EQ(limit.admit(now), std::nullopt);
  now += LogLimit::kInterval - std::chrono::nanoseconds(1);
  EXPECT_EQ(limit.admit(now), std::nullopt);
  now += std::chrono::nanoseconds(1);
  EXPECT_EQ(limit.admit(now), 2u);
  EXPECT_EQ(limit.admit(now), std::nullopt);
  now += LogLimit::kInterval;
  EXPECT_EQ(limit.admit(now), 1u);
}

TEST(Log, WritesToAFileWhatItsLevelAdmits) {
  const auto path = std::filesystem::temp_directory_path() / fmt::format("doppel-log-{}", ::getpid());
  ASSERT_TRUE(configure_log(LogLevel::kInfo, path.string()));
  log_debug("unseen {}", 1);
  log_info("seen {}", 2);
  LogLimit limit;
  for (unsigned i = 0; i < LogLimit::kBurst + 5; ++i) log_limited(limit, "queue {} is wild", i);
  EXPECT_FALSE(log_enabled(LogLevel::kDebug));
  ASSERT_TRUE(configure_log(LogLevel::kWarning));

  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  EXPECT_EQ(text.str().find("unseen"), std::string::npos);
  EXPECT_NE(text.str().find("seen 2"), std::string::npos);
  EXPECT_NE(text.str().find("queue 0 is wild"), std::string::npos);
  EXPECT_EQ(text.str().find(fmt::format("queue {} is wild", LogLimit::kBurst + 4)), std::string::npos);
  std::filesystem::remove(path);
}

TEST(Log, RefusesAFileThatCannotBeMade) {
  const auto result = configure_log(LogLevel::kInfo, "/dev/null/log");
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("/dev/null/log"), std::string::npos);
}

}  // namespace
}  // namespace doppel
