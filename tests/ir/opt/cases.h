// Golden cases: files of blocks and what a pass makes of them, beside this header.
//
//   case a name in words
//     %0 = const 5
//     ...
//   gives
//     ...
//
// A run with DOPPEL_BLESS=1 in the environment writes the files anew with what the passes give now.
#pragma once

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace doppel::ir::testing {

struct Case {
  std::string name, input, expected;
};

inline std::filesystem::path cases_file(std::string_view pass) {
  return std::filesystem::path(__FILE__).parent_path() / (std::string(pass) + ".cases");
}

inline std::vector<Case> read_cases(const std::filesystem::path& path) {
  std::vector<Case> cases;
  std::ifstream file(path);
  std::string* part = nullptr;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("case ")) {
      cases.push_back({.name = line.substr(5), .input = {}, .expected = {}});
      part = &cases.back().input;
    } else if (line == "gives" && part != nullptr) {
      part = &cases.back().expected;
    } else if (!line.empty() && part != nullptr) {
      *part += line + '\n';
    }
  }
  return cases;
}

inline void write_cases(const std::filesystem::path& path, const std::vector<Case>& cases) {
  std::ofstream file(path);
  const char* gap = "";
  for (const Case& one : cases) {
    file << gap << "case " << one.name << '\n' << one.input << "gives\n" << one.expected;
    gap = "\n";
  }
}

}  // namespace doppel::ir::testing
