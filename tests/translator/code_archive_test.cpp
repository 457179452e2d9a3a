#include "translator/code_archive.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include <gtest/gtest.h>

#include "memory/address.h"

namespace doppel {
namespace {

namespace fs = std::filesystem;

constexpr CodeArchive::Key kKey{0x1122, 0x3344};
constexpr std::uint64_t kPage = 0x2a'aaaa'a000;

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }
std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class CodeArchiveTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "archive.XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    fd_ = ::open(name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_GE(fd_, 0);
  }
  void TearDown() override {
    ::close(fd_);
    fs::remove_all(folder_);
  }

  // Adds code to the archive: at each of `count` addresses from `from` on one block, whose code says `what`.
  void keep(CodeArchive& archive, std::uint64_t from, unsigned count, const std::string& what) const {
    const std::array links{x64::Link{4, 1, from + 8}, x64::Link{8, 2, kPage}};
    const std::array faults{x64::FaultPoint{3, 2, from}};
    for (unsigned i = 0; i < count; ++i) {
      const std::uint64_t address = from + 2 * i;
      const std::string code = what + " at " + std::to_string(address);
      archive.add({.address = address, .source_address = address - 2, .source = bytes("guest"), .code = bytes(code),
                   .links = links, .faults = faults, .pins = x64::Pins{{8, 16}, {256}}, .final = true});
    }
  }
  void write(std::uint64_t from, unsigned count, const std::string& what) const {
    CodeArchive archive(fd_, kKey);
    keep(archive, from, count, what);
    archive.write();
  }
  // What is kept for a page, by address.
  static std::map<std::uint64_t, std::string> read(CodeArchive& archive, std::uint64_t page = kPage) {
    std::map<std::uint64_t, std::string> found;
    archive.for_each_in(page, [&](const ArchivedCode& code) { return found.emplace(code.address, text(code.code)).second; });
    return found;
  }
  fs::path file() const {
    for (const auto& entry : fs::directory_iterator(folder_)) return entry.path();
    return {};
  }
  std::string contents() const {
    std::ifstream in(file(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void replace_contents(const std::string& contents) const {
    std::ofstream(file(), std::ios::binary | std::ios::trunc) << contents;
  }

  fs::path folder_;
  int fd_ = -1;
};

TEST_F(CodeArchiveTest, KeepsEverything) {
  write(kPage + 16, 20, "code");
  CodeArchive archive(fd_, kKey);
  EXPECT_FALSE(archive.empty());
  unsigned count = 0;
  archive.for_each_in(kPage, [&](const ArchivedCode& code) {
    ++count;
    EXPECT_EQ(code.source_address, code.address - 2);
    EXPECT_EQ(text(code.source), "guest");
    EXPECT_EQ(text(code.code), "code at " + std::to_string(code.address));
    EXPECT_EQ(code.links.size(), 2u);
    EXPECT_EQ(code.links[1].at, 8u);
    EXPECT_EQ(code.links[1].target, kPage);
    EXPECT_EQ(code.faults.size(), 1u);
    EXPECT_EQ(code.faults[0].pc, kPage + 16);
    EXPECT_TRUE(code.pins && code.pins->integer == std::vector<std::uint32_t>({8, 16}) &&
                code.pins->floating == std::vector<std::uint32_t>{256});
    EXPECT_TRUE(code.final);
    return true;
  });
  EXPECT_EQ(count, 20u);
  EXPECT_TRUE(read(archive, kPage + kPageSize).empty());
  EXPECT_TRUE(read(archive, kPage - kPageSize).empty());
  CodeArchive other(fd_, {kKey[0], kKey[1] + 1});
  EXPECT_TRUE(other.empty());
}

TEST_F(CodeArchiveTest, SeedStays) {
  write(kPage, 20, "code");
  const CodeArchive first(fd_, kKey), second(fd_, kKey), other(fd_, {1, 1});
  EXPECT_EQ(first.seed(), second.seed());
  EXPECT_NE(first.seed(), other.seed());
}

TEST_F(CodeArchiveTest, LaterCodeComesFirst) {
  CodeArchive stale(fd_, kKey);
  write(kPage, 20, "old");
  write(kPage + 20, 10, "new");
  CodeArchive archive(fd_, kKey);
  const auto found = read(archive);
  EXPECT_EQ(found.size(), 20u);
  EXPECT_TRUE(found.at(kPage + 18).starts_with("old"));
  EXPECT_TRUE(found.at(kPage + 20).starts_with("new"));
  // Within one process likewise.
  keep(archive, kPage, 10, "newer");
  keep(archive, kPage, 10, "newest");
  archive.write();
  CodeArchive again(fd_, kKey);
  EXPECT_TRUE(read(again).at(kPage).starts_with("newest"));
  EXPECT_TRUE(stale.empty());
}

TEST_F(CodeArchiveTest, ManyRunsLeaveOneFile) {
  for (unsigned i = 0; i < 20; ++i) write(kPage + 200 * i, 100, "run " + std::to_string(i));
  CodeArchive archive(fd_, kKey);
  const auto found = read(archive);
  EXPECT_EQ(found.size(), 2000u);
  EXPECT_TRUE(found.at(kPage + 200 * 7).starts_with("run 7"));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 1);
  EXPECT_EQ(fs::status(file()).permissions(), fs::perms::owner_read | fs::perms::owner_write);
}

TEST_F(CodeArchiveTest, ABlockIsWorthAWriteUnlessThereAreMany) {
  write(kPage, 1, "code");
  EXPECT_FALSE(file().empty());
  write(kPage + 8, 600, "code");
  const auto size = std::filesystem::file_size(file());
  write(kPage + 4, 1, "code");
  EXPECT_EQ(std::filesystem::file_size(file()), size);
  write(kPage + 4, 3, "code");
  EXPECT_GT(std::filesystem::file_size(file()), size);
}

TEST_F(CodeArchiveTest, TheParentWritesForItsChild) {
  CodeArchive archive(fd_, kKey);
  keep(archive, kPage, 20, "code");
  archive.forget_added();
  archive.write();
  EXPECT_TRUE(file().empty());
}

// Pages with the same content are told apart by their addresses where that matters.
TEST_F(CodeArchiveTest, PagesOfContents) {
  const std::uint64_t page = CodeArchive::page_of(bytes("a page"), kPage);
  EXPECT_EQ(page % kPageSize, 0u);
  EXPECT_EQ(page, CodeArchive::page_of(bytes("a page"), kPage));
  EXPECT_NE(page, CodeArchive::page_of(bytes("a page"), kPage + kPageSize));
  EXPECT_NE(page, CodeArchive::page_of(bytes("a sage"), kPage));
  EXPECT_NE(page, CodeArchive::page_of(bytes("a page")));
}

// What does not recur is for those that use the same archive, and not for the next run.
TEST_F(CodeArchiveTest, PassingCodeIsNotWritten) {
  const auto code_at = [](std::uint64_t address, bool recurs) {
    return ArchivedCode{.address = address, .source_address = address, .source = bytes("guest"), .code = bytes("host"),
                        .links = {}, .faults = {}, .pins = {}, .final = false, .recurs = recurs};
  };
  const auto has = [](CodeArchive& archive, std::uint64_t address) {
    bool found = false;
    archive.find_added(address, [&](const ArchivedCode& code) { return found = text(code.code) == "host"; });
    return found;
  };
  CodeArchive archive(fd_, kKey);
  archive.add(code_at(kPage, false));
  EXPECT_TRUE(has(archive, kPage));
  archive.write();
  EXPECT_TRUE(file().empty());
  archive.add(code_at(kPage + 4, true));
  EXPECT_TRUE(has(archive, kPage));
  archive.write();
  CodeArchive next(fd_, kKey);
  const auto found = read(next);
  EXPECT_EQ(found.size(), 1u);
  EXPECT_TRUE(found.contains(kPage + 4));
}

TEST_F(CodeArchiveTest, DamageIsNoticed) {
  write(kPage, 12, "code");
  const std::string whole = contents();
  CodeArchive archive(fd_, kKey);
  const auto expected = read(archive);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x41);
    replace_contents(damaged);
    CodeArchive again(fd_, kKey);
    for (const auto& [address, code] : read(again)) EXPECT_EQ(code, expected.at(address)) << at;
  }
  for (std::size_t length = 0; length < whole.size(); length += 7) {
    replace_contents(whole.substr(0, length));
    CodeArchive again(fd_, kKey);
    EXPECT_TRUE(read(again).empty());
  }
}

TEST_F(CodeArchiveTest, DamageIsMended) {
  write(kPage, 12, "code");
  replace_contents(contents() + "the disk was full");
  write(kPage + 100, 12, "more");
  CodeArchive archive(fd_, kKey);
  EXPECT_EQ(read(archive).size(), 24u);
  replace_contents("nothing of ours");
  write(kPage, 12, "code");
  CodeArchive again(fd_, kKey);
  EXPECT_EQ(read(again).size(), 12u);
}

TEST_F(CodeArchiveTest, FilesOfOthersAreNotTrusted) {
  write(kPage, 12, "code");
  ::chmod(file().c_str(), 0620);
  EXPECT_TRUE(CodeArchive(fd_, kKey).empty());
  ::chmod(file().c_str(), 0600);
  EXPECT_FALSE(CodeArchive(fd_, kKey).empty());
  const fs::path elsewhere = folder_ / "elsewhere", name = file();
  fs::rename(name, elsewhere);
  fs::create_symlink(elsewhere, name);
  EXPECT_TRUE(CodeArchive(fd_, kKey).empty());
}

TEST_F(CodeArchiveTest, KeyDependsOnAllParts) {
  const std::array one{bytes("a"), bytes("bc")}, two{bytes("ab"), bytes("c")};
  const auto key = CodeArchive::key_of(one);
  if (!key) GTEST_SKIP() << "this program has no build ID";
  EXPECT_EQ(*key, *CodeArchive::key_of(one));
  EXPECT_NE(*key, *CodeArchive::key_of(two));
}

}  // namespace
}  // namespace doppel
