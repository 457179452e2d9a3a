// Options, opening and locking of disk images: what the user gets wrong, in one sentence each.
#include "storage/disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "storage/temporary_image.h"

namespace doppel {
namespace {

using ::testing::HasSubstr;
using test::TemporaryImage;

std::string error_of(const DiskOptions& options) {
  EventLoop loop;
  const auto disk = open_disk(options, loop);
  return disk ? "no error" : disk.error().message;
}

TEST(DiskOptions, FileAloneIsAWritableRawWritebackDisk) {
  const auto options = parse_disk_options("a=b.img");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->path, "a=b.img");
  EXPECT_EQ(options->format, DiskFormat::kRaw);
  EXPECT_EQ(options->cache, CacheMode::kWriteback);
  EXPECT_FALSE(options->readonly);
}

TEST(DiskOptions, EverySettingIsTaken) {
  const auto options = parse_disk_options("a,,b.img,format=raw,readonly,serial=R2,cache=none");
  ASSERT_TRUE(options);
  EXPECT_EQ(options->path, "a,b.img");
  EXPECT_TRUE(options->readonly);
  EXPECT_EQ(options->serial, "R2");
  EXPECT_EQ(options->cache, CacheMode::kNone);
}

TEST(DiskOptions, MistakesAreNamed) {
  const auto message = [](std::string_view text) {
    const auto options = parse_disk_options(text);
    return options ? std::string("no error") : options.error().message;
  };
  EXPECT_THAT(message(""), HasSubstr("file name is missing"));
  EXPECT_THAT(message(",readonly"), HasSubstr("file name is missing"));
  EXPECT_THAT(message("x,format=vdi"), HasSubstr("unknown format 'vdi'"));
  EXPECT_THAT(message("x,cache=fast"), HasSubstr("unknown cache mode 'fast'"));
  EXPECT_THAT(message("x,readonly=yes"), HasSubstr("unknown option 'readonly=yes'"));
  EXPECT_THAT(message("x,snapshot"), HasSubstr("unknown option 'snapshot'"));
  EXPECT_THAT(message("x,serial=123456789012345678901"), HasSubstr("longer than 20 bytes"));
}

TEST(OpenDisk, WhatCannotBeADiskIsRefusedByName) {
  EXPECT_THAT(error_of({.path = "/nonexistent/x.img"}), HasSubstr("/nonexistent/x.img: No such file"));
  EXPECT_THAT(error_of({.path = "/tmp"}), HasSubstr("/tmp is a directory"));
  EXPECT_THAT(error_of({.path = "/tmp", .readonly = true}), HasSubstr("/tmp is a directory"));
  EXPECT_THAT(error_of({.path = "/dev/null"}), HasSubstr("neither a file nor a block device"));

  const TemporaryImage image(0);
  EXPECT_THAT(error_of({.path = image.path()}), HasSubstr("is empty"));
  image.truncate(513);
  EXPECT_THAT(error_of({.path = image.path()}), HasSubstr("513 bytes, which is no multiple of 512"));
}

TEST(OpenDisk, FifoIsRefusedWithoutWaitingForItsOtherEnd) {
  const TemporaryImage image(0);
  const std::string fifo = image.path() + ".fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(error_of({.path = fifo, .readonly = true}), HasSubstr("neither a file nor a block device"));
  ::unlink(fifo.c_str());
}

TEST(OpenDisk, FileThatMayOnlyBeReadSuggestsReadonly) {
  const TemporaryImage image(512);
  ASSERT_EQ(::chmod(image.path().c_str(), 0444), 0);
  // Root may write anyway, so the check runs as somebody else.
  const bool root = ::geteuid() == 0;
  ASSERT_EQ(root ? ::seteuid(65534) : 0, 0);
  const std::string message = error_of({.path = image.path()});
  const std::string reading = error_of({.path = image.path(), .readonly = true});
  ASSERT_EQ(root ? ::seteuid(0) : 0, 0);
  EXPECT_THAT(message, HasSubstr("may only be read; add ',readonly'"));
  EXPECT_EQ(reading, "no error");
}

TEST(OpenDisk, OneWriterOrManyReaders) {
  EventLoop loop;
  const TemporaryImage image(4096);
  const DiskOptions writing{.path = image.path()};
  const DiskOptions reading{.path = image.path(), .readonly = true};
  {
    const auto writer = open_disk(writing, loop);
    ASSERT_TRUE(writer);
    EXPECT_THAT(error_of(writing), HasSubstr("in use by another virtual machine"));
    EXPECT_THAT(error_of(reading), HasSubstr("in use by another virtual machine"));
  }
  const auto reader = open_disk(reading, loop);
  ASSERT_TRUE(reader);
  EXPECT_EQ(error_of(reading), "no error");
  EXPECT_THAT(error_of(writing), HasSubstr("in use by another virtual machine"));
}

TEST(OpenDisk, SizeAndReadonlyAreReported) {
  EventLoop loop;
  const TemporaryImage image(8192);
  const auto disk = open_disk({.path = image.path(), .readonly = true}, loop);
  ASSERT_TRUE(disk);
  EXPECT_EQ((*disk)->size_bytes(), 8192u);
  EXPECT_TRUE((*disk)->readonly());
}

}  // namespace
}  // namespace doppel
