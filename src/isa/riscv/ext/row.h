// What every extension file needs to write its rows.
#pragma once

#include "isa/common/row.h"
#include "isa/common/word.h"
#include "isa/riscv/isa_config.h"

namespace doppel::riscv {

using isa::Operands;
using isa::Pattern;
using isa::Traits;
using isa::i32;
using isa::i64;
using isa::u32;
using isa::u64;

template <class Semantics>
consteval auto row(std::string_view syntax, const char* pattern, Extension extension, Semantics semantics,
                   Traits traits = {}) {
  return isa::Row<Extension, Semantics>{syntax, Pattern(pattern), extension, traits, semantics};
}

// Names a memory access by the type of its value: as<std::int16_t> loads two bytes and sign-extends.
template <class T>
struct As {
  using type = T;
};
template <class T>
inline constexpr As<T> as{};

inline constexpr Traits kBlockEnd{.ends_block = true};
inline constexpr Traits kSystem{.ends_block = true, .exact = true};

// An immediate as a word.
constexpr u64 word(i32 imm) { return static_cast<u64>(i64{imm}); }

}  // namespace doppel::riscv
