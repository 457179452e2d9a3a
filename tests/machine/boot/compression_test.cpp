#include "machine/boot/compression.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "machine/boot_files.h"

namespace doppel {
namespace {

using test::File;
using testing::HasSubstr;

constexpr std::size_t kLimit = 1 << 20;

File sample() {
  File file;
  for (unsigned i = 0; i < 100'000; ++i) file.push_back(static_cast<std::byte>(i * i >> 7));
  return file;
}

File zboot(const File& payload, std::string_view type) {
  File file(64 + payload.size());
  std::memcpy(file.data(), "MZ\0\0zimg", 8);
  test::put(file, 8, std::uint32_t{64});
  test::put(file, 12, static_cast<std::uint32_t>(payload.size()));
  std::memcpy(file.data() + 24, type.data(), type.size());
  std::ranges::copy(payload, file.begin() + 64);
  return file;
}

TEST(UnwrapKernel, LeavesOtherFilesAlone) {
  EXPECT_EQ(unwrap_kernel(sample(), "k", kLimit).value(), sample());
  EXPECT_EQ(unwrap_kernel({}, "k", kLimit).value(), File{});
}

TEST(UnwrapKernel, ExpandsGzip) { EXPECT_EQ(unwrap_kernel(test::gzip(sample()), "k", kLimit).value(), sample()); }

TEST(UnwrapKernel, ExpandsZboot) {
  EXPECT_EQ(unwrap_kernel(zboot(test::gzip(sample()), "gzip"), "k", kLimit).value(), sample());
}

TEST(UnwrapKernel, RefusesAnotherCompressionByName) {
  EXPECT_THAT(unwrap_kernel(zboot(sample(), "zstd22"), "k", kLimit).error().message, HasSubstr("gzip"));
}

TEST(UnwrapKernel, NoticesZbootPayloadBeyondTheEnd) {
  File file = zboot(test::gzip(sample()), "gzip");
  test::put(file, 12, ~std::uint32_t{0});
  EXPECT_THAT(unwrap_kernel(file, "k", kLimit).error().message, HasSubstr("truncated"));
}

TEST(UnwrapKernel, NoticesTruncationEverywhere) {
  const File packed = test::gzip(sample());
  for (std::size_t size = 3; size < packed.size(); size += 977) {
    const auto result = unwrap_kernel(File(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(size)), "k", kLimit);
    ASSERT_FALSE(result) << size;
    EXPECT_THAT(result.error().message, HasSubstr("k: truncated")) << size;
  }
}

TEST(UnwrapKernel, NoticesDamage) {
  File packed = test::gzip(sample());
  packed[packed.size() - 6] ^= std::byte{1};  // in the checksum
  EXPECT_THAT(unwrap_kernel(packed, "k", kLimit).error().message, HasSubstr("damaged"));
}

TEST(UnwrapKernel, StopsAtTheLimit) {
  const File bomb = test::gzip(File(32 << 20));
  EXPECT_THAT(unwrap_kernel(bomb, "k", kLimit).error().message, HasSubstr("more than the 1 MiB"));
  EXPECT_EQ(unwrap_kernel(test::gzip(File(kLimit)), "k", kLimit).value().size(), kLimit);
}

}  // namespace
}  // namespace doppel
