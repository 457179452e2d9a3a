// What a guest prints, over bytes that are the input.
//
// The oracle: how the bytes are cut into pieces makes no difference, and every answer is one that a terminal of that size
// gives.
#include <regex>
#include <span>
#include <string>

#include "app/absent_terminal.h"
#include "input.h"

namespace {

std::string answers(std::span<const std::byte> output, std::size_t piece_bytes) {
  doppel::AbsentTerminal terminal;
  std::string all;
  for (; !output.empty(); output = output.subspan(std::min(piece_bytes, output.size()))) {
    all += terminal.answers_to(output.first(std::min(piece_bytes, output.size())));
  }
  return all;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto output = std::as_bytes(std::span(data, size));
  const std::string whole = answers(output, size + 1);
  DOPPEL_FUZZ_CHECK(whole == answers(output, 1 + size % 7));
  static const std::regex kAnswer("\x1b\\[(0n|\\?1;0c|8;24;80t|([1-9]|1[0-9]|2[0-4]);([1-9]|[1-7][0-9]|80)R)");
  std::smatch match;
  for (std::string rest = whole; !rest.empty(); rest = match.suffix()) {
    const bool begins = std::regex_search(rest, match, kAnswer, std::regex_constants::match_continuous);
    DOPPEL_FUZZ_CHECK(begins);
  }
  return 0;
}
