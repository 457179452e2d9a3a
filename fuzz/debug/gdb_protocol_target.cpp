// The decoder of GDB's packets, over bytes that are the input.
//
// The oracle: how the bytes are cut into pieces makes no difference, no payload is longer than the limit, and each
// packet, sent again, is the same packet.
#include <string>
#include <vector>

#include "debug/gdb_protocol.h"
#include "input.h"

namespace {

using namespace doppel::debug;

std::vector<GdbInput> decode(std::string_view bytes, std::size_t piece_bytes) {
  GdbDecoder decoder;
  std::vector<GdbInput> inputs;
  for (; !bytes.empty(); bytes.remove_prefix(std::min(piece_bytes, bytes.size()))) {
    decoder.feed(bytes.substr(0, piece_bytes));
    while (auto input = decoder.next()) inputs.push_back(std::move(*input));
  }
  return inputs;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // A char may alias any byte.
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::vector<GdbInput> whole = decode(bytes, size + 1);
  const std::vector<GdbInput> pieces = decode(bytes, 1 + size % 7);
  DOPPEL_FUZZ_CHECK(whole.size() == pieces.size());
  for (std::size_t i = 0; i < whole.size(); ++i) {
    const GdbInput& input = whole[i];
    DOPPEL_FUZZ_CHECK(input.kind == pieces[i].kind && input.payload == pieces[i].payload);
    DOPPEL_FUZZ_CHECK(input.payload.size() <= GdbDecoder::kMaxPayload);
    if (input.kind != GdbInput::Kind::kPacket) continue;
    const std::vector<GdbInput> again = decode(gdb_packet(input.payload), size + 1);
    DOPPEL_FUZZ_CHECK(again.size() == 1 && again[0].payload == input.payload);
    if (const auto decoded = from_hex(input.payload)) {
      DOPPEL_FUZZ_CHECK(decoded->size() * 2 == input.payload.size() && from_hex(to_hex(std::string_view(*decoded))) == decoded);
    }
  }
  return 0;
}
