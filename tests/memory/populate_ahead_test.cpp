// Memory that is used in the order of its addresses is populated ahead, once and not far; other memory is not.
#include "memory/populate_ahead.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>

#include <thread>
#include <vector>

#include "memory/guest_memory.h"

namespace doppel {
namespace {

constexpr std::uint64_t kChunk = PopulateAhead::kChunkBytes;

class PopulateAheadTest : public testing::Test {
 protected:
  static constexpr std::size_t kChunks = 100;
  static constexpr std::uint64_t kBytes = kChunks * kChunk + kPageSize;  // the last one is not whole

  void SetUp() override {
    if (std::thread::hardware_concurrency() < 2) GTEST_SKIP() << "this host has one processor";
    host_ = static_cast<std::byte*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(host_, MAP_FAILED);
    if (::madvise(host_, kPageSize, MADV_POPULATE_WRITE) != 0) GTEST_SKIP() << "this host populates nothing";
  }
  void TearDown() override {
    if (host_ != nullptr) ::munmap(host_, kBytes);
  }
  bool is_there(std::uint64_t offset) const {
    unsigned char in_memory = 0;
    EXPECT_EQ(::mincore(host_ + offset, kPageSize, &in_memory), 0);
    return (in_memory & 1) != 0;
  }

  std::byte* host_ = nullptr;
};

TEST_F(PopulateAheadTest, PopulatesWhatComesNext) {
  PopulateAhead ahead(host_, kBytes);
  for (std::size_t chunk = 0; chunk + 1 < PopulateAhead::kRow; ++chunk) ahead.note(chunk * kChunk + 8, 8);
  EXPECT_EQ(ahead.requested(), 0u);
  const std::size_t last = PopulateAhead::kRow - 1;
  ahead.note(last * kChunk, 1);
  EXPECT_EQ(ahead.requested(), PopulateAhead::kAhead);
  ahead.wait();
  EXPECT_TRUE(is_there((last + 1) * kChunk));
  EXPECT_TRUE(is_there((last + 1 + PopulateAhead::kAhead) * kChunk - kPageSize));
  EXPECT_FALSE(is_there((last + 1 + PopulateAhead::kAhead) * kChunk));
  // Again is nothing new.
  ahead.note(last * kChunk, 1);
  EXPECT_EQ(ahead.requested(), PopulateAhead::kAhead);
}

TEST_F(PopulateAheadTest, AsksOnceForEachToTheEnd) {
  PopulateAhead ahead(host_, kBytes);
  for (std::uint64_t offset = 0; offset < kBytes; offset += kPageSize) ahead.note(offset, kPageSize);
  EXPECT_LE(ahead.requested(), kChunks + 1 - PopulateAhead::kRow);
  EXPECT_GE(ahead.requested(), kChunks + 1 - PopulateAhead::kRow - PopulateAhead::kAtOnce);
  ahead.wait();
  for (std::size_t chunk = PopulateAhead::kRow; chunk < kChunks - PopulateAhead::kAtOnce; ++chunk) {
    EXPECT_TRUE(is_there(chunk * kChunk + kChunk - kPageSize)) << chunk;
  }
}

TEST_F(PopulateAheadTest, LeavesOtherOrdersAlone) {
  PopulateAhead ahead(host_, kBytes);
  for (std::size_t chunk = 0; chunk < kChunks; chunk += 2) ahead.note(chunk * kChunk, 8);
  ahead.note(0, 0);
  EXPECT_EQ(ahead.requested(), 0u);
  PopulateAhead down(host_, kBytes);
  for (std::size_t chunk = kChunks; chunk-- > 0;) down.note(chunk * kChunk, 8);
  EXPECT_EQ(down.requested(), 0u);
}

// What is long notes all of its chunks, and may end with the mapping.
TEST_F(PopulateAheadTest, NotesWholeRanges) {
  PopulateAhead ahead(host_, kBytes);
  ahead.note(kPageSize, PopulateAhead::kRow * kChunk - kPageSize);
  EXPECT_EQ(ahead.requested(), PopulateAhead::kAhead);
  PopulateAhead all(host_, kBytes);
  all.note(0, kBytes);
  all.wait();
  EXPECT_LE(all.requested(), kChunks + 1);
}

TEST_F(PopulateAheadTest, ManyThreadsNote) {
  PopulateAhead ahead(host_, kBytes);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&ahead] {
      for (std::uint64_t offset = 0; offset < kBytes; offset += kPageSize) ahead.note(offset, 8);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(ahead.requested(), kChunks + 1);
  EXPECT_GT(ahead.requested(), 0u);
}

TEST_F(PopulateAheadTest, DoesNothingOnOneProcessor) {
  cpu_set_t before, one;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
    if (CPU_ISSET(cpu, &before)) CPU_SET(cpu, &one);
  }
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  PopulateAhead ahead(host_, kBytes);
  EXPECT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
  ahead.note(0, kBytes);
  EXPECT_EQ(ahead.requested(), 0u);
}

// Guest RAM is used through its host addresses.
TEST_F(PopulateAheadTest, GuestMemoryNotes) {
  GuestMemory memory;
  constexpr GuestPhysical kStart{0x8000'0000};
  ASSERT_TRUE(memory.add_ram({kStart, kChunks * kChunk}));
  memory.populate_ahead();
  for (std::size_t chunk = 0; chunk < PopulateAhead::kRow; ++chunk) {
    ASSERT_NE(memory.host(kStart + chunk * kChunk, 8), nullptr);
  }
  const GuestMemory::Region& region = memory.regions().front();
  region.ahead->wait();
  EXPECT_EQ(region.ahead->requested(), PopulateAhead::kAhead);
  EXPECT_EQ(memory.host(kStart + kChunks * kChunk, 1), nullptr);
}

}  // namespace
}  // namespace doppel
