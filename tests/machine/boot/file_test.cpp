#include "machine/boot/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <thread>

#include "machine/boot_files.h"

namespace doppel {
namespace {

using test::File;
using test::TemporaryFile;
using testing::HasSubstr;

constexpr std::size_t kLimit = 1 << 20;

File sample(std::size_t size) {
  File file(size);
  for (std::size_t i = 0; i < size; ++i) file[i] = static_cast<std::byte>(i * i >> 7);
  return file;
}

File all_of(BootFile file) {
  const Bytes bytes = file.bytes().value();
  return {bytes.begin(), bytes.end()};
}

TEST(BootFile, ReadsPartsAndAllOfIt) {
  const File contents = sample(300'000);
  const TemporaryFile temporary(contents);
  auto file = BootFile::open(temporary.path(), kLimit).value();
  EXPECT_EQ(file.size_bytes(), contents.size());
  EXPECT_GE(file.head().size(), 4096u);
  for (const std::uint64_t offset : {0, 10, 65'000, 65'535, 299'000}) {
    File part(1000);
    ASSERT_TRUE(file.read_into(offset, part));
    EXPECT_TRUE(std::ranges::equal(part, std::span(contents).subspan(offset, 1000))) << offset;
  }
  File part(1001);
  EXPECT_FALSE(file.read_into(299'000, part));
  EXPECT_FALSE(file.at<std::uint32_t>(299'997));
  EXPECT_EQ(file.at<std::uint8_t>(299'999), std::to_integer<std::uint8_t>(contents.back()));
  EXPECT_EQ(all_of(std::move(file)), contents);
}

TEST(BootFile, NoticesThatItBecameShorter) {
  const TemporaryFile temporary(sample(300'000));
  auto file = BootFile::open(temporary.path(), kLimit).value();
  ASSERT_EQ(::truncate(temporary.path().c_str(), 200'000), 0);
  File part(300'000);
  EXPECT_THAT(file.read_into(0, part).error().message, HasSubstr(temporary.path() + ": became shorter"));
  EXPECT_THAT(file.bytes().error().message, HasSubstr("it had 300000 bytes"));
}

TEST(BootFile, ReadsWhatDoesNotTellItsSize) {
  EXPECT_GT(BootFile::open("/proc/self/status", kLimit).value().size_bytes(), 0u);
  const std::string path = TemporaryFile({}).path();  // free again
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const File contents = sample(300'000);
  std::thread writer([&] {
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(contents.data()), 300'000);
  });
  EXPECT_EQ(all_of(BootFile::open(path, kLimit).value()), contents);
  writer.join();
  ::unlink(path.c_str());
}

TEST(BootFile, SaysWhyItCannotBeRead) {
  EXPECT_THAT(BootFile::open("/nonexistent", kLimit).error().message, HasSubstr("cannot open /nonexistent"));
  EXPECT_THAT(BootFile::open("/", kLimit).error().message, HasSubstr("is a directory"));
  const TemporaryFile empty({});
  EXPECT_THAT(BootFile::open(empty.path(), kLimit).error().message, HasSubstr("is empty"));
  const TemporaryFile full(sample(kLimit)), large(sample(kLimit + 1));
  EXPECT_TRUE(BootFile::open(full.path(), kLimit));
  EXPECT_THAT(BootFile::open(large.path(), kLimit).error().message, HasSubstr("larger than the 1 MiB"));
}

}  // namespace
}  // namespace doppel
