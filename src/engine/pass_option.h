// --without-pass: which passes of the optimizer run, and whether regions combine blocks. Any thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "ir/opt/optimize.h"

namespace doppel {

using ir::PassSet;

// Takes the passes that `names` has, with commas between, out of `passes`. An error lists those that there are.
Result<void> leave_out_passes(PassSet& passes, std::string_view names);

}  // namespace doppel
