// The text form of blocks, for dumps and tests. A block prints as
//
//   guest_bytes 8
//   @0 raw 0x00a58533 +0
//     %0 = get.i64 [88]
//     %1 = load.i32 [%0 + 16]
//     set [80], %1
//   @1 raw 0xfe051ce3 +4
//     exit_if %1, -4
//     exit +8
//
// `@` lines begin a guest instruction: number, encoding, offset from the block's start. A semicolon begins a
// comment. Printed values are numbered by index; a text to parse may number them as it likes.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "ir/ir.h"

namespace doppel::ir {

// Any block, malformed ones too. Parses back to an equal block if verify() accepts it.
std::string print(const Block& block);

// The block that `text` describes, or what is wrong in which line. Takes hostile text. That a block parses does
// not say that it keeps the rules of verify(), but its values are defined before their uses.
Result<Block> parse(std::string_view text);

}  // namespace doppel::ir
