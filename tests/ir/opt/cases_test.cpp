// What each pass makes of blocks written for it. Behind the pass runs dead_code, so that a case shows what is left.
#include <gtest/gtest.h>

#include <cstdlib>

#include "ir/opt/cases.h"
#include "ir/opt/optimize.h"
#include "ir/text.h"
#include "ir/verify.h"

namespace doppel::ir {
namespace {

using testing::Case;

constexpr std::string_view kAllPasses = "all_passes";  // the name of the file for their cooperation

// What is printed, without the line that says nothing here.
std::string print_short(const Block& block) {
  std::string text = print(block);
  constexpr std::string_view kNoBytes = "guest_bytes 0\n";
  return text.starts_with(kNoBytes) ? text.substr(kNoBytes.size()) : text;
}

class Cases : public ::testing::TestWithParam<std::string_view> {
 protected:
  static PassSet set() {
    if (GetParam() == kAllPasses) return PassSet::all();
    PassSet only = PassSet::none();
    EXPECT_TRUE(only.set(GetParam(), true) && only.set("dead_code", true));
    return only;
  }
};

TEST_P(Cases, GiveWhatTheFileSays) {
  const auto path = testing::cases_file(GetParam());
  std::vector<Case> cases = testing::read_cases(path);
  ASSERT_FALSE(cases.empty()) << path << ": each pass needs cases";

  const bool bless = std::getenv("DOPPEL_BLESS") != nullptr;
  for (Case& one : cases) {
    SCOPED_TRACE(fmt::format("{}: {}", path.string(), one.name));
    auto block = parse(one.input);
    ASSERT_TRUE(block) << block.error().message;
    const auto valid = verify(*block);
    ASSERT_TRUE(valid) << valid.error().message;
    optimize(*block, set());
    const auto still_valid = verify(*block);
    EXPECT_TRUE(still_valid) << still_valid.error().message;
    if (bless) {
      one.expected = print_short(*block);
    } else {
      EXPECT_EQ(print_short(*block), one.expected);
    }
  }
  if (bless) testing::write_cases(path, cases);
}

std::vector<std::string_view> files() {
  std::vector<std::string_view> names{kAllPasses};
  for (const Pass& pass : passes()) names.push_back(pass.name);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Passes, Cases, ::testing::ValuesIn(files()),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace doppel::ir
