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

Result<File> unwrap(File file) {
  auto unwrapped = unwrap_kernel(BootFile("k", std::move(file)), kLimit);
  if (!unwrapped) return std::unexpected(unwrapped.error());
  const Bytes bytes = unwrapped->bytes().value();
  return File(bytes.begin(), bytes.end());
}

TEST(UnwrapKernel, LeavesOtherFilesAlone) {
  EXPECT_EQ(unwrap(sample()).value(), sample());
  EXPECT_EQ(unwrap({}).value(), File{});
}

TEST(UnwrapKernel, ExpandsGzip) { EXPECT_EQ(unwrap(test::gzip(sample())).value(), sample()); }

TEST(UnwrapKernel, ExpandsZboot) {
  EXPECT_EQ(unwrap(zboot(test::gzip(sample()), "gzip")).value(), sample());
}

TEST(UnwrapKernel, RefusesAnotherCompressionByName) {
  EXPECT_THAT(unwrap(zboot(sample(), "zstd22")).error().message, HasSubstr("gzip"));
}

TEST(UnwrapKernel, NoticesZbootPayloadBeyondTheEnd) {
  File file = zboot(test::gzip(sample()), "gzip");
  test::put(file, 12, ~std::uint32_t{0});
  EXPECT_THAT(unwrap(file).error().message, HasSubstr("truncated"));
}

TEST(UnwrapKernel, NoticesTruncationEverywhere) {
  const File packed = test::gzip(sample());
  for (std::size_t size = 3; size < packed.size(); size += 977) {
    const auto result = unwrap(File(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(size)));
    ASSERT_FALSE(result) << size;
    EXPECT_THAT(result.error().message, HasSubstr("k: truncated")) << size;
  }
}

TEST(UnwrapKernel, NoticesDamage) {
  File packed = test::gzip(sample());
  packed[packed.size() - 6] ^= std::byte{1};  // in the checksum
  EXPECT_THAT(unwrap(packed).error().message, HasSubstr("damaged"));
}

TEST(UnwrapKernel, StopsAtTheLimit) {
  const File bomb = test::gzip(File(32 << 20));
  EXPECT_THAT(unwrap(bomb).error().message, HasSubstr("more than the 1 MiB"));
  EXPECT_EQ(unwrap(test::gzip(File(kLimit))).value().size(), kLimit);
}

}  // namespace
}  // namespace doppel
