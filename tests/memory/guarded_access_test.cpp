#include "memory/guarded_access.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace doppel {
namespace {

// Two pages of which the second is not there, and this process's handler.
class GuardedAccess : public testing::Test {
 protected:
  static constexpr std::size_t kPage = 4096;

  void SetUp() override {
    struct sigaction action{};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int signal, siginfo_t*, void* context) {
      if (!recover_guarded_access(signal, *static_cast<ucontext_t*>(context))) ::_exit(99);
    };
    ::sigaction(SIGSEGV, &action, &before_[0]);
    ::sigaction(SIGBUS, &action, &before_[1]);
    at_ = static_cast<std::byte*>(
        ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ::mprotect(at_ + kPage, kPage, PROT_NONE);
  }
  void TearDown() override {
    ::munmap(at_, 2 * kPage);
    ::sigaction(SIGSEGV, &before_[0], nullptr);
    ::sigaction(SIGBUS, &before_[1], nullptr);
  }

  std::byte* at_ = nullptr;
  std::array<struct sigaction, 2> before_{};
};

TEST_F(GuardedAccess, ReadsAndWritesEachWidth) {
  for (const unsigned bytes : {1u, 2u, 4u, 8u}) {
    const std::uint64_t all = bytes == 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << 8 * bytes) - 1;
    std::uint64_t value = 7;
    EXPECT_EQ(guarded_write(at_ + 3, bytes, 0x1122'3344'5566'7788), 0);
    EXPECT_EQ(guarded_read(at_ + 3, bytes, value), 0);
    EXPECT_EQ(value, 0x1122'3344'5566'7788 & all);
    std::memset(at_, 0, 16);
  }
}

TEST_F(GuardedAccess, FaultsAreResults) {
  std::uint64_t value = 7;
  for (const unsigned bytes : {1u, 2u, 4u, 8u}) {
    EXPECT_EQ(guarded_read(at_ + kPage, bytes, value), SIGSEGV);
    EXPECT_EQ(guarded_write(at_ + kPage, bytes, 1), SIGSEGV);
    EXPECT_EQ(guarded_read(reinterpret_cast<std::byte*>(std::uintptr_t{1} << 63), bytes, value), SIGSEGV);
  }
  EXPECT_EQ(value, 7u);
  EXPECT_EQ(guarded_probe_write(at_), 0);
  EXPECT_EQ(guarded_probe_write(at_ + kPage), SIGSEGV);
  // Nothing of an access that crosses into what is not there is done.
  EXPECT_EQ(guarded_write(at_ + kPage - 4, 8, ~std::uint64_t{0}), SIGSEGV);
  EXPECT_EQ(guarded_read(at_ + kPage - 4, 4, value), 0);
  EXPECT_EQ(value, 0u);
}

TEST_F(GuardedAccess, BeyondAFileIsABusError) {
  const int fd = ::memfd_create("short", 0);
  ASSERT_EQ(::ftruncate(fd, 1), 0);
  void* file = ::mmap(nullptr, 2 * kPage, PROT_READ, MAP_SHARED, fd, 0);
  std::uint64_t value = 0;
  EXPECT_EQ(guarded_read(static_cast<std::byte*>(file) + kPage, 8, value), SIGBUS);
  ::munmap(file, 2 * kPage);
  ::close(fd);
}

TEST_F(GuardedAccess, CopiesWhatIsThere) {
  std::array<std::byte, 64> into{};
  std::memset(at_ + kPage - 20, 5, 20);
  EXPECT_EQ(guarded_copy(at_ + kPage - 20, into.data(), into.size()), 20u);
  EXPECT_EQ(into[19], std::byte{5});
  EXPECT_EQ(guarded_copy(at_ + kPage - 16, into.data(), 16), 16u);
}

}  // namespace
}  // namespace doppel
