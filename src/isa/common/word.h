// The operations that semantics may use on words, for words that are plain integers. The IR's value type
// offers the same names; arithmetic and bitwise operators, shifts by less than 64 and these complete the set.
#pragma once

#include "base/arithmetic.h"

namespace doppel::isa {

using namespace arithmetic;

}  // namespace doppel::isa
