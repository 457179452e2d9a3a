// The queue core alone: what a driver may lay out, and every way to lay it out wrongly.
#include "device/virtio/virtqueue.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "memory/guest_memory.h"

namespace doppel {
namespace {

using Fault = Virtqueue::Fault;

constexpr GuestPhysical kRam{0x8000'0000};
constexpr std::uint64_t kRamBytes = 0x10'0000;
constexpr GuestPhysical kDescriptors = kRam, kAvailable = kRam + 0x2000, kUsed = kRam + 0x3000;
constexpr GuestPhysical kTable = kRam + 0x4000, kData = kRam + 0x8000;
constexpr std::uint16_t kNext = 1, kWrite = 2, kIndirect = 4;

struct Raw {
  std::uint64_t address;
  std::uint32_t length;
  std::uint16_t flags;
  std::uint16_t next;
};

class VirtqueueTest : public ::testing::Test {
 protected:
  VirtqueueTest() { EXPECT_TRUE(memory_.add_ram({kRam, kRamBytes})); }

  void enable(std::uint16_t size, bool event_index = false) {
    size_ = size;
    queue_.enable({kDescriptors, kAvailable, kUsed, size}, event_index, memory_);
  }
  template <class T>
  void poke(GuestPhysical gpa, T value) {
    ASSERT_TRUE(memory_.write(gpa, std::as_bytes(std::span(&value, 1))));
  }
  template <class T>
  T peek(GuestPhysical gpa) {
    T value{};
    EXPECT_TRUE(memory_.read(gpa, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  void put(GuestPhysical table, const std::vector<Raw>& descriptors) {
    for (std::size_t at = 0; at < descriptors.size(); ++at) poke(table + 16 * at, descriptors[at]);
  }
  void offer(std::uint16_t head) {
    poke(kAvailable + 4 + 2 * (available_ % size_), head);
    poke(kAvailable + 2, ++available_);
  }
  bool pop() { return queue_.pop(memory_, parts_, chain_); }

  // The fault that one chain of these descriptors leads to.
  Fault fault_of(const std::vector<Raw>& descriptors, const std::vector<Raw>& table = {}) {
    enable(8);
    put(kDescriptors, descriptors);
    put(kTable, table);
    offer(0);
    EXPECT_FALSE(pop());
    EXPECT_FALSE(pop()) << "a faulty queue gives nothing";
    return queue_.fault();
  }

  GuestMemory memory_;
  Virtqueue queue_;
  std::uint16_t size_ = 0;
  std::uint16_t available_ = 0;
  std::array<iovec, Virtqueue::kMaxSize> parts_;
  DescriptorChain chain_;
};

TEST_F(VirtqueueTest, ChainIsSplitIntoReadableAndWritable) {
  enable(8);
  put(kDescriptors, {{}, {kData.value, 16, kNext, 3}, {}, {kData.value + 100, 7, kNext, 5}, {},
                     {kData.value + 200, 9, kWrite, 0}});
  offer(1);
  ASSERT_TRUE(pop());
  EXPECT_EQ(chain_.head, 1);
  ASSERT_EQ(chain_.readable.size(), 2u);
  ASSERT_EQ(chain_.writable.size(), 1u);
  EXPECT_EQ(chain_.readable[0].iov_base, memory_.host(kData, 16));
  EXPECT_EQ(chain_.readable[1].iov_len, 7u);
  EXPECT_EQ(chain_.writable[0].iov_base, memory_.host(kData + 200, 9));
  EXPECT_FALSE(pop());
  EXPECT_EQ(queue_.fault(), Fault::kNone);
}

TEST_F(VirtqueueTest, IndirectTableFollowsDirectDescriptors) {
  enable(8);
  put(kDescriptors, {{kData.value, 16, kNext, 1}, {kTable.value + 4, 32, kIndirect, 0}});
  // A table needs no alignment.
  put(kTable + 4, {{kData.value + 32, 5, kNext, 1}, {kData.value + 64, 6, kWrite, 0}});
  offer(0);
  ASSERT_TRUE(pop());
  EXPECT_EQ(chain_.readable.size(), 2u);
  ASSERT_EQ(chain_.writable.size(), 1u);
  EXPECT_EQ(chain_.writable[0].iov_len, 6u);
}

TEST_F(VirtqueueTest, EmptyPartsAreLeftOut) {
  enable(8);
  put(kDescriptors, {{~0ull, 0, kNext, 1}, {kData.value, 4, 0, 0}});
  offer(0);
  ASSERT_TRUE(pop());
  EXPECT_EQ(chain_.readable.size(), 1u);
}

TEST_F(VirtqueueTest, ChainMayUseEveryDescriptor) {
  enable(8);
  std::vector<Raw> all;
  for (std::uint16_t at = 0; at < 8; ++at) {
    all.push_back({kData.value, 1, static_cast<std::uint16_t>(at < 7 ? kNext : 0), static_cast<std::uint16_t>(at + 1)});
  }
  put(kDescriptors, all);
  offer(0);
  ASSERT_TRUE(pop());
  EXPECT_EQ(chain_.readable.size(), 8u);
}

TEST_F(VirtqueueTest, RingsWrapAround) {
  enable(4);
  put(kDescriptors, {{kData.value, 1, 0, 0}, {kData.value, 2, 0, 0}, {kData.value, 3, 0, 0}, {kData.value, 4, 0, 0}});
  for (unsigned round = 0; round < 70'000; ++round) {
    offer(static_cast<std::uint16_t>(round % 4));
    ASSERT_TRUE(pop());
    ASSERT_EQ(chain_.readable[0].iov_len, round % 4 + 1);
    queue_.push(chain_.head, round);
    ASSERT_TRUE(queue_.publish());
    ASSERT_EQ(peek<std::uint16_t>(kUsed + 2), static_cast<std::uint16_t>(round + 1));
    ASSERT_EQ(peek<std::uint32_t>(kUsed + 4 + 8 * (round % 4)), round % 4);
    ASSERT_EQ(peek<std::uint32_t>(kUsed + 8 + 8 * (round % 4)), round);
  }
}

TEST_F(VirtqueueTest, UnpoppedChainComesAgain) {
  enable(4);
  put(kDescriptors, {{kData.value, 1, 0, 0}});
  offer(0);
  ASSERT_TRUE(pop());
  queue_.unpop();
  EXPECT_TRUE(queue_.has_waiting());
  ASSERT_TRUE(pop());
  EXPECT_FALSE(queue_.has_waiting());
}

TEST_F(VirtqueueTest, SetupThatCannotBeIsAFault) {
  const auto fault_with = [this](Virtqueue::Layout layout) {
    queue_.enable(layout, false, memory_);
    return queue_.fault();
  };
  EXPECT_EQ(fault_with({kDescriptors, kAvailable, kUsed, 0}), Fault::kBadSize);
  EXPECT_EQ(fault_with({kDescriptors, kAvailable, kUsed, 12}), Fault::kBadSize);
  EXPECT_EQ(fault_with({kDescriptors, kAvailable, kUsed, 512}), Fault::kBadSize);
  EXPECT_EQ(fault_with({kDescriptors + 8, kAvailable, kUsed, 8}), Fault::kBadRing);
  EXPECT_EQ(fault_with({kDescriptors, kAvailable + 1, kUsed, 8}), Fault::kBadRing);
  EXPECT_EQ(fault_with({kDescriptors, kAvailable, kUsed + 2, 8}), Fault::kBadRing);
  const GuestPhysical end = kRam + kRamBytes;
  EXPECT_EQ(fault_with({end - 112, kAvailable, kUsed, 8}), Fault::kBadRing);
  EXPECT_EQ(fault_with({kDescriptors, end - 20, kUsed, 8}), Fault::kBadRing);
  EXPECT_EQ(fault_with({kDescriptors, kAvailable, end - 68, 8}), Fault::kBadRing);
  EXPECT_EQ(fault_with({{}, kAvailable, kUsed, 8}), Fault::kBadRing);
  EXPECT_EQ(fault_with({{~0ull - 15}, kAvailable, kUsed, 8}), Fault::kBadRing);
  // The last places that just fit.
  EXPECT_EQ(fault_with({end - 128, kAvailable, kUsed, 8}), Fault::kNone);
  EXPECT_EQ(fault_with({kDescriptors, end - 22, kUsed, 8}), Fault::kNone);
  EXPECT_EQ(fault_with({kDescriptors, kAvailable, end - 72, 8}), Fault::kNone);
}

TEST_F(VirtqueueTest, WildBuffersAreFaults) {
  const std::uint64_t end = kRam.value + kRamBytes;
  EXPECT_EQ(fault_of({{end, 1, 0, 0}}), Fault::kWildBuffer);
  EXPECT_EQ(fault_of({{end - 1, 2, kWrite, 0}}), Fault::kWildBuffer);
  EXPECT_EQ(fault_of({{0, 1, 0, 0}}), Fault::kWildBuffer);
  EXPECT_EQ(fault_of({{~0ull, 0xffff'ffff, 0, 0}}), Fault::kWildBuffer);
  EXPECT_EQ(fault_of({{kData.value, 0xffff'ffff, kWrite, 0}}), Fault::kWildBuffer);
}

TEST_F(VirtqueueTest, IndicesOutsideTheTableAreFaults) {
  EXPECT_EQ(fault_of({{kData.value, 1, kNext, 8}}), Fault::kBadIndex);
  EXPECT_EQ(fault_of({{kData.value, 1, kNext, 0xffff}}), Fault::kBadIndex);
  EXPECT_EQ(fault_of({{kTable.value, 16, kIndirect, 0}}, {{kData.value, 1, kNext, 1}}), Fault::kBadIndex);
  enable(8);
  offer(8);
  EXPECT_FALSE(pop());
  EXPECT_EQ(queue_.fault(), Fault::kBadIndex);
}

TEST_F(VirtqueueTest, LoopsAreFaults) {
  EXPECT_EQ(fault_of({{kData.value, 1, kNext, 0}}), Fault::kLoop);
  EXPECT_EQ(fault_of({{kData.value, 1, kNext, 1}, {kData.value, 1, kNext, 0}}), Fault::kLoop);
  EXPECT_EQ(fault_of({{kData.value, 0, kNext, 1}, {kData.value, 0, kNext, 0}}), Fault::kLoop);
  EXPECT_EQ(fault_of({{kTable.value, 32, kIndirect, 0}}, {{kData.value, 1, kNext, 1}, {kData.value, 1, kNext, 0}}),
            Fault::kLoop);
}

TEST_F(VirtqueueTest, MalformedIndirectTablesAreFaults) {
  EXPECT_EQ(fault_of({{kTable.value, 0, kIndirect, 0}}), Fault::kBadIndirect);
  EXPECT_EQ(fault_of({{kTable.value, 24, kIndirect, 0}}), Fault::kBadIndirect);
  EXPECT_EQ(fault_of({{kTable.value, 16 * 257, kIndirect, 0}}), Fault::kBadIndirect);
  EXPECT_EQ(fault_of({{kTable.value, 16, kIndirect | kNext, 1}}), Fault::kBadIndirect);
  EXPECT_EQ(fault_of({{kRam.value + kRamBytes - 16, 32, kIndirect, 0}}), Fault::kBadIndirect);
  EXPECT_EQ(fault_of({{kTable.value, 16, kIndirect, 0}}, {{kTable.value, 16, kIndirect, 0}}), Fault::kNestedIndirect);
}

TEST_F(VirtqueueTest, ReadableAfterWritableIsAFault) {
  EXPECT_EQ(fault_of({{kData.value, 1, kWrite | kNext, 1}, {kData.value, 1, 0, 0}}), Fault::kReadableAfterWritable);
}

TEST_F(VirtqueueTest, ChainWithoutBytesIsAFault) {
  EXPECT_EQ(fault_of({{kData.value, 0, 0, 0}}), Fault::kEmptyChain);
  EXPECT_EQ(fault_of({{kData.value, 0, kNext | kWrite, 1}, {kData.value, 0, kWrite, 0}}), Fault::kEmptyChain);
}

TEST_F(VirtqueueTest, AvailableIndexThatJumpsIsAFault) {
  enable(8);
  put(kDescriptors, {{kData.value, 1, 0, 0}});
  poke(kAvailable + 2, std::uint16_t{9});
  EXPECT_FALSE(pop());
  EXPECT_EQ(queue_.fault(), Fault::kAvailableJump);
  // Backwards is as far as a jump can be.
  available_ = 0;
  enable(8);
  poke(kAvailable + 2, std::uint16_t{0xffff});
  EXPECT_FALSE(pop());
  EXPECT_EQ(queue_.fault(), Fault::kAvailableJump);
  // A full ring is none.
  enable(8);
  poke(kAvailable + 2, std::uint16_t{8});
  EXPECT_TRUE(pop());
}

TEST_F(VirtqueueTest, FaultyQueueWritesNothingMore) {
  fault_of({{0, 1, 0, 0}});
  queue_.push(0, 0);
  EXPECT_FALSE(queue_.publish());
  queue_.suppress_notifications();
  EXPECT_FALSE(queue_.request_notifications());
  EXPECT_EQ(peek<std::uint32_t>(kUsed), 0u);
}

TEST_F(VirtqueueTest, FlagsSuppressInterruptsAndNotifications) {
  enable(8);
  put(kDescriptors, {{kData.value, 1, 0, 0}});
  queue_.suppress_notifications();
  EXPECT_EQ(peek<std::uint16_t>(kUsed), 1);
  offer(0);
  EXPECT_TRUE(queue_.request_notifications()) << "a chain arrived meanwhile";
  EXPECT_EQ(peek<std::uint16_t>(kUsed), 0);
  ASSERT_TRUE(pop());
  EXPECT_FALSE(queue_.request_notifications());

  poke(kAvailable, std::uint16_t{1});
  queue_.push(0, 0);
  EXPECT_FALSE(queue_.publish());
  poke(kAvailable, std::uint16_t{0});
  EXPECT_FALSE(queue_.publish()) << "nothing new";
  queue_.push(0, 0);
  EXPECT_TRUE(queue_.publish());
}

TEST_F(VirtqueueTest, EventIndexAsksForOneInterruptAndOneNotification) {
  enable(8, true);
  put(kDescriptors, {{kData.value, 1, 0, 0}});
  const GuestPhysical used_event = kAvailable + 4 + 2 * 8;
  const GuestPhysical available_event = kUsed + 4 + 8 * 8;

  offer(0);
  ASSERT_TRUE(pop());
  EXPECT_FALSE(queue_.request_notifications());
  EXPECT_EQ(peek<std::uint16_t>(available_event), 1);
  EXPECT_EQ(peek<std::uint16_t>(kUsed), 0) << "the flags stay out of it";

  poke(used_event, std::uint16_t{2});  // wanted: when the third is used
  queue_.push(0, 0);
  EXPECT_FALSE(queue_.publish());
  queue_.push(0, 0);
  EXPECT_FALSE(queue_.publish());
  queue_.push(0, 0);
  EXPECT_TRUE(queue_.publish());
  queue_.push(0, 0);
  EXPECT_FALSE(queue_.publish());
  // A batch that passes the event counts.
  poke(used_event, std::uint16_t{5});
  for (int count = 0; count < 4; ++count) queue_.push(0, 0);
  EXPECT_TRUE(queue_.publish());
}

TEST_F(VirtqueueTest, PositionsContinueARestoredQueue) {
  enable(8);
  put(kDescriptors, {{kData.value, 1, 0, 0}});
  for (int count = 0; count < 3; ++count) {
    offer(0);
    ASSERT_TRUE(pop());
    queue_.push(0, 0);
    ASSERT_TRUE(queue_.publish());
  }
  const Virtqueue::Positions positions = queue_.positions();
  offer(0);
  queue_.enable({kDescriptors, kAvailable, kUsed, 8}, false, memory_, positions);
  EXPECT_TRUE(pop());
  EXPECT_FALSE(pop());
  queue_.push(0, 77);
  EXPECT_TRUE(queue_.publish());
  EXPECT_EQ(peek<std::uint32_t>(kUsed + 8 + 8 * 3), 77u);
}

}  // namespace
}  // namespace doppel
