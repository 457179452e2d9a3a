// One instruction, written once: its encoding, its assembly, its extension and its semantics.
//
// The semantics are a generic callable over an abstract machine. Given a machine whose words are integers
// it is the interpreter's handler; given one whose words are IR values it is the lifter's. The decoder, the
// disassembler and the random-program generator read the rest of the row.
#pragma once

#include <cstddef>
#include <string_view>
#include <tuple>
#include <utility>

#include "isa/common/pattern.h"

namespace doppel::isa {

// What an engine must check before, or do after, the semantics run.
struct Traits {
  bool floating_point = false;  // needs mstatus.FS on; marks it dirty
  bool ends_block = false;      // may change control flow or the meaning of what follows
  bool exact = false;           // reads or changes counters, interrupts or translation: state must be in order
};

template <class ExtensionT, class Semantics>
struct Row {
  std::string_view syntax;  // "add rd, rs1, rs2": the mnemonic is the first word
  Pattern pattern;
  ExtensionT extension;
  Traits traits;
  Semantics semantics;  // (auto& machine, const Operands&)

  constexpr std::string_view mnemonic() const { return syntax.substr(0, syntax.find(' ')); }
};

// True when no two rows of the tuples match the same encoding. Use in a static_assert.
template <std::size_t N>
consteval bool disjoint(const std::array<Pattern, N>& patterns) {
  for (std::size_t i = 0; i < N; ++i) {
    for (std::size_t j = i + 1; j < N; ++j) {
      if (overlap(patterns[i], patterns[j])) return false;
    }
  }
  return true;
}

template <class... Rows>
consteval auto patterns_of(const std::tuple<Rows...>& rows) {
  return std::apply([](const auto&... row) { return std::array<Pattern, sizeof...(Rows)>{row.pattern...}; },
                    rows);
}

}  // namespace doppel::isa
