// "FIRST,name,name=value": how one command-line option carries several settings.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace doppel {

struct NamedOption {
  std::string text;  // the whole item
  std::string name;  // up to the first '='
  std::optional<std::string> value;
};

// Splits at commas; two commas in a row stand for one that belongs to the item. Never empty.
inline std::vector<NamedOption> split_options(std::string_view text) {
  std::vector<NamedOption> options(1);
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] != ',') {
      options.back().text += text[at];
    } else if (at + 1 < text.size() && text[at + 1] == ',') {
      options.back().text += text[at++];
    } else {
      options.emplace_back();
    }
  }
  for (NamedOption& option : options) {
    const std::size_t equals = option.text.find('=');
    option.name = option.text.substr(0, equals);
    if (equals != std::string::npos) option.value = option.text.substr(equals + 1);
  }
  return options;
}

}  // namespace doppel
