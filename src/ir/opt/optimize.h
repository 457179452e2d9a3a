// The optimizer: passes over one block, in a fixed order, each of which can be switched off by its name.
//
// A pass takes a block that verify() accepts and leaves one that it accepts and that does the same: the same
// loads, stores, helpers and floating-point operations in the same order, the same exit, and the same state at
// each instruction that may leave the block. Passes are linear in the block's length and keep their working
// memory per thread, so that translating costs microseconds. Any thread may optimize its own block.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "ir/ir.h"

namespace doppel::ir {

struct Pass {
  std::string_view name;
  void (*run)(Block&);
};

// All passes, in the order in which they run.
std::span<const Pass> passes();

// What whoever puts blocks together does before that (ir/opt/if_conversion.h), switched like a pass.
enum class Combination : unsigned { kIfConversion, kBlockJoining };
// Of passes and combinations.
std::span<const std::string_view> pass_names();

// Which passes and combinations run.
class PassSet {
 public:
  static constexpr PassSet all() { return PassSet(~std::uint32_t{0}); }
  static constexpr PassSet none() { return PassSet(0); }
  // Those that gain most for their time: for code that may not run often.
  static PassSet quick();

  // Switches what has that name on or off. False if nothing has.
  bool set(std::string_view name, bool enabled);
  // `index` counts in passes().
  bool contains(unsigned index) const { return enabled_ >> index & 1; }
  bool contains(Combination combination) const;
  // Those in both.
  friend PassSet operator&(PassSet a, PassSet b) { return PassSet(a.enabled_ & b.enabled_); }
  friend bool operator==(const PassSet&, const PassSet&) = default;

 private:
  explicit constexpr PassSet(std::uint32_t enabled) : enabled_(enabled) {}

  std::uint32_t enabled_;  // bit i: pass_names()[i]
};

void optimize(Block& block, const PassSet& enabled = PassSet::all());

}  // namespace doppel::ir
