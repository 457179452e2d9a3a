// The text form of blocks, over text that is the input.
//
// The oracle: what parses prints, and parses back to what prints the same; and what keeps the rules still does
// after the passes.
#include <string_view>

#include "input.h"
#include "ir/opt/optimize.h"
#include "ir/text.h"
#include "ir/verify.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace doppel;
  // A char may alias any byte.
  auto block = ir::parse({reinterpret_cast<const char*>(data), size});
  if (!block) {
    DOPPEL_FUZZ_CHECK(!block.error().message.empty());
    return 0;
  }
  if (!ir::verify(*block)) return 0;

  const std::string text = ir::print(*block);
  const auto again = ir::parse(text);
  DOPPEL_FUZZ_CHECK(again && ir::print(*again) == text);

  ir::optimize(*block);
  DOPPEL_FUZZ_CHECK(ir::verify(*block).has_value());
  return 0;
}
