#include "base/report.h"

#include <cstdio>

#include <fmt/format.h>

namespace doppel {

void report(const Error& error) { fmt::print(stderr, "doppel: {}\n", error.message); }

}  // namespace doppel
