#include "engine/pass_option.h"

#include <string>

#include "base/option_list.h"

namespace doppel {

Result<void> leave_out_passes(PassSet& passes, std::string_view names) {
  for (const NamedOption& pass : split_options(names)) {
    if (passes.set(pass.text, false)) continue;
    std::string known;
    for (const std::string_view name : ir::pass_names()) known.append(known.empty() ? "" : ", ").append(name);
    return fail("--without-pass: '{}' is none of {}", pass.text, known);
  }
  return {};
}

}  // namespace doppel
