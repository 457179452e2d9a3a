// Copies of pages of code, and of parts of them.
#include "memory/code_page.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

namespace doppel {
namespace {

struct alignas(kPageSize) Page {
  std::array<std::byte, kPageSize> bytes{};
};

TEST(CodePage, LinesAreThoseThatARangeTouches) {
  EXPECT_EQ(CodePage::lines_of(0, 1), 1u);
  EXPECT_EQ(CodePage::lines_of(63, 65), 3u);
  EXPECT_EQ(CodePage::lines_of(64, 128), 2u);
  EXPECT_EQ(CodePage::lines_of(0, 4096), CodePage::kAllLines);
  EXPECT_EQ(CodePage::lines_of(4095, 4096), CodePage::Lines{1} << 63);
  EXPECT_EQ(CodePage::lines_of(4030, 4033), CodePage::Lines{3} << 62);
  EXPECT_EQ(CodePage::lines_of(4030, 4032), CodePage::Lines{1} << 62);
  EXPECT_EQ(CodePage::lines_of(4092, 4100), CodePage::Lines{1} << 63);
}

TEST(CodePage, ComparesAndCopiesTheseLinesAlone) {
  const auto page = std::make_unique<Page>();
  CodePage copy;
  copy.copy(page->bytes.data());
  EXPECT_TRUE(copy.same(page->bytes.data()));
  for (std::size_t at = 0; at < kPageSize; at += 60) {
    page->bytes[at] = std::byte{1};
    EXPECT_FALSE(copy.same(page->bytes.data()));
    const CodePage::Lines line = CodePage::lines_of(at, at + 1);
    EXPECT_FALSE(copy.same(page->bytes.data(), line));
    EXPECT_TRUE(copy.same(page->bytes.data(), ~line));
    copy.copy(page->bytes.data(), ~line);
    EXPECT_FALSE(copy.same(page->bytes.data(), line));
    copy.copy(page->bytes.data(), line);
    EXPECT_TRUE(copy.same(page->bytes.data()));
    EXPECT_EQ(copy.bytes()[at], std::byte{1});
  }
}

}  // namespace
}  // namespace doppel
