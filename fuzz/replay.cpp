// Runs a fuzz target as an ordinary test: over its corpus, and over pseudo-random inputs and mutated corpus files,
// the same in each run.
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "base/log.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr unsigned kRandomInputs = 2000;
constexpr std::size_t kMaxRandomBytes = 2000;
constexpr unsigned kMutationsOfAFile = 200;

std::vector<Bytes> corpus() {
  std::vector<Bytes> files;
  for (const auto& entry : std::filesystem::directory_iterator(DOPPEL_CORPUS)) {
    std::ifstream file(entry.path(), std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return files;
}

class Replay : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    // Every input misuses a device; thousands of warnings say nothing.
    ASSERT_TRUE(doppel::configure_log(doppel::LogLevel::kOff));
  }
};

TEST_F(Replay, Corpus) {
  const std::vector<Bytes> files = corpus();
  ASSERT_FALSE(files.empty());
  for (const Bytes& file : files) LLVMFuzzerTestOneInput(file.data(), file.size());
}

TEST_F(Replay, PseudoRandomInputs) {
  std::mt19937_64 random(1);
  for (unsigned count = 0; count < kRandomInputs; ++count) {
    Bytes input(random() % kMaxRandomBytes);
    for (std::uint8_t& byte : input) byte = static_cast<std::uint8_t>(random());
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
}

TEST_F(Replay, MutatedCorpus) {
  std::mt19937_64 random(2);
  for (const Bytes& file : corpus()) {
    if (file.empty()) continue;
    for (unsigned count = 0; count < kMutationsOfAFile; ++count) {
      Bytes input = file;
      for (unsigned changes = 1 + random() % 8; changes > 0; --changes) {
        input[random() % input.size()] = static_cast<std::uint8_t>(random());
      }
      LLVMFuzzerTestOneInput(input.data(), input.size());
    }
  }
}

}  // namespace
