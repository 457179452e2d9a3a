#include "ir/evaluate.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "base/arithmetic.h"
#include "ir/compute.h"

namespace doppel::ir {
namespace {

using u64 = std::uint64_t;

// The loaded bytes as the access' value.
u64 extended(Access access, u64 bytes) {
  switch (access) {
    case Access::kI8: return arithmetic::sext8(bytes);
    case Access::kI16: return arithmetic::sext16(bytes);
    case Access::kI32: return arithmetic::sext32(bytes);
    case Access::kU8: return arithmetic::zext8(bytes);
    case Access::kU16: return arithmetic::zext16(bytes);
    case Access::kU32:
    case Access::kF32: return arithmetic::zext32(bytes);
    default: return bytes;
  }
}

u64 mask_of(Access access) { return ~u64{0} >> (64 - 8 * bytes_of(access)); }

// What an atomic operation stores; both operands are sign-extended, which keeps their unsigned order.
u64 combined(AtomicOp op, u64 old, u64 operand) {
  const bool less = static_cast<std::int64_t>(old) < static_cast<std::int64_t>(operand);
  switch (op) {
    case AtomicOp::kAdd: return old + operand;
    case AtomicOp::kAnd: return old & operand;
    case AtomicOp::kOr: return old | operand;
    case AtomicOp::kXor: return old ^ operand;
    case AtomicOp::kMin: return less ? old : operand;
    case AtomicOp::kMax: return less ? operand : old;
    case AtomicOp::kMinu: return old < operand ? old : operand;
    case AtomicOp::kMaxu: return old < operand ? operand : old;
    default: return operand;
  }
}

u64 sign_bit(Type type) { return type == Type::kF32 ? u64{1} << 31 : u64{1} << 63; }
bool is_nan(Type type, u64 bits) {
  return (bits & ~sign_bit(type)) > (type == Type::kF32 ? 0x7f80'0000 : 0x7ff0'0000'0000'0000);
}

constexpr u64 kBox = 0xffff'ffff'0000'0000;
constexpr u64 kCanonicalSingle = 0x7fc0'0000;

// Pure operations on floating-point values are operations on their bits.
u64 compute_bits(const Inst& inst, u64 a, u64 b) {
  const bool is_single = inst.type == Type::kF32;
  const u64 sign = sign_bit(inst.type);
  switch (inst.op) {
    case Op::kFneg: return a ^ sign;
    case Op::kFsign: return (a & ~sign) | (b & sign);
    case Op::kFsignXor: return a ^ (b & sign);
    case Op::kFbits: return a;
    case Op::kFfromBits: return is_single ? arithmetic::zext32(a) : a;
    case Op::kFbox: return a | kBox;
    case Op::kFunbox: return a >= kBox ? arithmetic::zext32(a) : kCanonicalSingle;
    case Op::kFlow: return arithmetic::zext32(a);
    case Op::kFcanonical:
      if (!is_nan(inst.type, a)) return a;
      return is_single ? kCanonicalSingle : 0x7ff8'0000'0000'0000;
    default: assert(false && "not an operation on bits"); return 0;
  }
}

bool is_on_bits(Op op) {
  return op == Op::kFneg || op == Op::kFsign || op == Op::kFsignXor || op == Op::kFbits || op == Op::kFfromBits ||
         op == Op::kFbox || op == Op::kFunbox || op == Op::kFlow || op == Op::kFcanonical;
}

Leaving step_of(const Block& block, const Inst& inst) {
  const u64 here = block.origins.empty() ? 0 : block.origins[inst.origin].offset;
  return {Leaving::Cause::kExit, here, static_cast<std::uint8_t>(ExitKind::kStep), inst.origin};
}

}  // namespace

Leaving evaluate(const Block& block, std::span<std::byte> state, Environment& environment) {
  using Cause = Leaving::Cause;
  assert(state.size() >= state_bytes(block));
  std::vector<u64> values(block.insts.size());

  for (std::size_t index = 0; index < block.insts.size(); ++index) {
    const Inst& inst = block.insts[index];
    std::array<u64, 3> operands{};
    for (unsigned i = 0; i < info(inst.op).operands; ++i) operands[i] = values[inst.operands[i]];
    const auto [a, b, c] = operands;
    const u64 immediate = static_cast<u64>(inst.imm);
    u64& value = values[index];

    switch (inst.op) {
      case Op::kConst: value = immediate; break;
      case Op::kGet: std::memcpy(&value, state.data() + inst.imm, bytes_of(inst.type)); break;
      case Op::kSet:
        std::memcpy(state.data() + inst.imm, &a, bytes_of(block.insts[inst.operands[0]].type));
        break;
      case Op::kLoad: {
        const auto loaded = environment.load(inst.access(), a + immediate);
        if (!loaded) return {.cause = Cause::kFault, .origin = inst.origin};
        value = extended(inst.access(), *loaded);
        break;
      }
      case Op::kStore: {
        const u64 stored = b & mask_of(inst.access());
        if (!environment.store(inst.access(), a + immediate, stored)) {
          return {.cause = Cause::kFault, .origin = inst.origin};
        }
        break;
      }
      // Nobody else is here to see the parts of an atomic access.
      case Op::kAtomic: {
        const auto loaded = environment.load(inst.access(), a);
        if (!loaded) return {.cause = Cause::kFault, .origin = inst.origin};
        value = extended(inst.access(), *loaded);
        const auto op = static_cast<AtomicOp>(inst.imm);
        if (op == AtomicOp::kLoad) break;
        const u64 stored = combined(op, value, extended(inst.access(), b)) & mask_of(inst.access());
        if (!environment.store(inst.access(), a, stored)) return {.cause = Cause::kFault, .origin = inst.origin};
        break;
      }
      case Op::kCompareSwap: {
        const auto loaded = environment.load(inst.access(), a);
        if (!loaded) return {.cause = Cause::kFault, .origin = inst.origin};
        value = extended(inst.access(), *loaded) == extended(inst.access(), b);
        if (value == 0) break;
        if (!environment.store(inst.access(), a, c & mask_of(inst.access()))) {
          return {.cause = Cause::kFault, .origin = inst.origin};
        }
        break;
      }
      case Op::kZero:
        for (u64 done = 0; done < immediate; done += 8) {
          if (!environment.store(Access::kI64, a + done, 0)) return {.cause = Cause::kFault, .origin = inst.origin};
        }
        break;
      case Op::kFence: environment.fence(); break;
      case Op::kCall:
        if (!environment.call(inst.imm)) return {.cause = Cause::kFault, .origin = inst.origin};
        break;
      case Op::kUncount:
        if ((a != 0) == (inst.detail == 0)) environment.uncount(immediate);
        break;
      case Op::kFordered:
        if (is_nan(inst.type, a)) return step_of(block, inst);
        value = a;
        break;
      case Op::kBehind:
        if (!environment.behind(immediate)) return step_of(block, inst);
        break;
      case Op::kExitIf:
        if (a == 0) break;
        [[fallthrough]];
      case Op::kExit: return {Cause::kExit, immediate, inst.detail, inst.origin};
      case Op::kExitTo: return {Cause::kExitTo, a, inst.detail, inst.origin};
      case Op::kExitState: return {.cause = Cause::kExitState, .origin = inst.origin};
      default:
        if (is_on_bits(inst.op)) {
          value = compute_bits(inst, a, b);
        } else if (info(inst.op).pure) {
          value = compute(inst.op, a, b, c);
        } else {
          if (inst.op == Op::kFfromI32) operands[0] = arithmetic::sext32(a);  // only the low half counts
          value = environment.floating(inst, operands);
          if (inst.type == Type::kF32) value = arithmetic::zext32(value);
        }
        break;
    }
  }
  assert(false && "a block ends with an exit");
  return {};
}

std::size_t state_bytes(const Block& block) {
  std::size_t end = 0;
  for (const Inst& inst : block.insts) {
    if (inst.op != Op::kGet && inst.op != Op::kSet) continue;
    const Type type = inst.op == Op::kGet ? inst.type : block.insts[inst.operands[0]].type;
    end = std::max(end, static_cast<std::size_t>(inst.imm) + bytes_of(type));
  }
  return end;
}

}  // namespace doppel::ir
