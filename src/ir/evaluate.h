// What a block means, in the plainest way: the oracle for the passes, and for whoever compiles blocks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "ir/ir.h"

namespace doppel::ir {

// What a block acts upon besides the state. Values travel as bit patterns, those narrower than 64 bits in the low
// bits. Whoever implements this owns the state, so it can look at it in each call: it is precise there.
class Environment {
 public:
  virtual ~Environment() = default;

  // The bytes_of(access) bytes at `address`, or none if the access faults.
  virtual std::optional<std::uint64_t> load(Access access, std::uint64_t address) = 0;
  // False if the access faults.
  virtual bool store(Access access, std::uint64_t address, std::uint64_t value) = 0;
  virtual void fence() = 0;
  // Whether the two bytes that follow the page are these.
  virtual bool behind(std::uint64_t bytes) = 0;
  // Runs a helper, which may change the state. False if it leaves the block.
  virtual bool call(std::int64_t helper) = 0;
  // The block counts so many guest instructions less.
  virtual void uncount(std::uint64_t instructions) = 0;
  // The value of a floating-point operation that is not pure: it rounds and accrues flags.
  virtual std::uint64_t floating(const Inst& inst, const std::array<std::uint64_t, 3>& operands) = 0;
};

// How a block was left, and where.
struct Leaving {
  enum class Cause : std::uint8_t { kExit, kExitTo, kExitState, kFault };  // kFault: a load, a store or a helper

  Cause cause = Cause::kFault;
  std::uint64_t target = 0;  // kExit: offset from the block's start; kExitTo: address
  std::uint8_t detail = 0;   // of the exit
  std::uint16_t origin = 0;  // guest instruction that left

  bool operator==(const Leaving&) const = default;
};

// Runs a block that verify() accepts on `state`, which is at least state_bytes(block) long.
Leaving evaluate(const Block& block, std::span<std::byte> state, Environment& environment);

// The end of the last byte of state that the block itself reads or writes.
std::size_t state_bytes(const Block& block);

}  // namespace doppel::ir
