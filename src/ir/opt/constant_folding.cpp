// Constants are computed once, and algebra takes the operations out that a lifter leaves behind.
//
// Writes the block anew, since a rewrite may need constants of its own. The commutative operations come out with
// a constant on the right, which the other passes and the back end rely on for their patterns (only for speed).
#include <bit>
#include <optional>

#include "ir/compute.h"
#include "ir/opt/passes.h"
#include "ir/opt/rewrite.h"

namespace doppel::ir::opt {
namespace {

using u64 = std::uint64_t;

class Folder {
 public:
  explicit Folder(Block& block)
      : block_(block), out_(out_buffer()), most_(4 * block.insts.size()) {}

  void run() {
    out_.clear();
    bool ended = false;
    for (std::size_t index = 0; index < block_.insts.size() && !ended; ++index) {
      Inst inst = block_.insts[index];
      origin_ = inst.origin;
      new_names_.look_up_operands(inst);
      if (inst.op == Op::kExitIf) {
        ended = exit_if(inst);
      } else {
        new_names_[static_cast<Value>(index)] = simplify(inst);
      }
    }
    block_.insts.swap(out_);
  }

 private:
  Value append(const Inst& inst) {
    out_.push_back(inst);
    out_.back().origin = origin_;
    return static_cast<Value>(out_.size() - 1);
  }
  Value constant(u64 value) {
    return append({.op = Op::kConst, .type = Type::kI64, .imm = static_cast<std::int64_t>(value)});
  }
  // The value of an integer operation, simplified in its turn.
  Value make(Op op, Value a, Value b = kNone, Value c = kNone) {
    return simplify({.op = op, .type = Type::kI64, .operands = {a, b, c}});
  }

  const Inst& definition(Value value) const { return out_[value]; }
  bool is_constant(Value value) const { return definition(value).op == Op::kConst; }
  u64 constant_of(Value value) const { return static_cast<u64>(definition(value).imm); }
  bool is_constant(Value value, u64 expected) const { return is_constant(value) && constant_of(value) == expected; }
  // The constant right operand of `value` if its operation is `op`.
  std::optional<u64> constant_right(Op op, Value value) const {
    const Inst& inst = definition(value);
    if (inst.op != op || !is_constant(inst.operands[1])) return std::nullopt;
    return constant_of(inst.operands[1]);
  }
  Value left(Value value) const { return definition(value).operands[0]; }

  // exit_if 0: nothing. exit_if 1: exit, and the block ends there. Says whether it does.
  bool exit_if(Inst inst) {
    const Value condition = inst.operands[0];
    if (!is_constant(condition)) return append(inst), false;
    if (constant_of(condition) == 0) return false;
    inst.op = Op::kExit;
    inst.operands = {kNone, kNone, kNone};
    append(inst);
    return true;
  }

  // The value of `inst`, whose operands are new names: an older one or that of an appended instruction.
  Value simplify(Inst inst) {
    const OpInfo& op = info(inst.op);
    if (!op.pure || op.operands == 0) return append(inst);
    auto& [a, b, c] = inst.operands;
    if (op.commutative && is_constant(a)) std::swap(a, b);

    if (is_constant(a) && (op.operands < 2 || is_constant(b)) && (op.operands < 3 || is_constant(c)) &&
        inst.type == Type::kI64) {
      const auto operand = [&](unsigned i) { return i < op.operands ? constant_of(inst.operands[i]) : 0; };
      return constant(compute(inst.op, operand(0), operand(1), operand(2)));
    }
    if (out_.size() >= most_) return append(inst);
    std::optional<Value> simpler;
    if (op.operands == 2 && a == b) simpler = of_same(inst.op, a);
    if (!simpler && op.operands == 2 && is_constant(b)) simpler = with_constant(inst.op, a, b, constant_of(b));
    if (!simpler) simpler = otherwise(inst);
    return simpler ? *simpler : append(inst);
  }

  // op(a, a)
  std::optional<Value> of_same(Op op, Value a) {
    switch (op) {
      case Op::kAnd:
      case Op::kOr: return a;
      case Op::kSub:
      case Op::kXor:
      case Op::kSub32:
      case Op::kNe:
      case Op::kLt:
      case Op::kLtu: return constant(0);
      case Op::kEq:
      case Op::kGe:
      case Op::kGeu: return constant(1);
      default: return std::nullopt;
    }
  }

  // x >> c | x << (64 - c) = x rotated to the right by c; likewise with the 32-bit operations.
  std::optional<Value> rotation(Value a, Value b) {
    for (const bool narrow : {false, true}) {
      const u64 width = narrow ? 32 : 64;
      for (const auto& [low, high] : {std::pair(a, b), std::pair(b, a)}) {
        const auto c = constant_right(narrow ? Op::kShr32 : Op::kShr, low);
        const auto d = constant_right(narrow ? Op::kShl32 : Op::kShl, high);
        if (!c || !d || *c == 0 || *c >= width || *c + *d != width || left(low) != left(high)) continue;
        return make(narrow ? Op::kRor32 : Op::kRor, left(low), definition(low).operands[1]);
      }
    }
    return std::nullopt;
  }

  // (x op d) op c = x op (d op c), for an associative op, where a = x op d.
  std::optional<Value> reassociated(Op op, Value a, u64 c) {
    const auto d = constant_right(op, a);
    if (!d) return std::nullopt;
    return make(op, left(a), constant(compute(op, *d, c, 0)));
  }

  // op(a, c) with b the name of the constant c, and a no constant.
  std::optional<Value> with_constant(Op op, Value a, Value b, u64 c) {
    switch (op) {
      case Op::kAdd:
        if (c == 0) return a;
        return reassociated(op, a, c);
      case Op::kSub:  // a - c = a + -c
        return make(Op::kAdd, a, constant(-c));
      case Op::kMul:
        if (c == 0) return b;
        if (c == 1) return a;
        if (std::has_single_bit(c)) return make(Op::kShl, a, constant(static_cast<u64>(std::countr_zero(c))));
        return reassociated(op, a, c);
      case Op::kAnd:
        if (c == 0) return b;
        if (c == ~u64{0}) return a;
        if (c == 0xff) return make(Op::kZext8, a);
        if (c == 0xffff) return make(Op::kZext16, a);
        if (c == 0xffff'ffff) return make(Op::kZext32, a);
        return reassociated(op, a, c);
      case Op::kOr:
        if (c == 0) return a;
        if (c == ~u64{0}) return b;
        return reassociated(op, a, c);
      case Op::kXor:
        if (c == 0) return a;
        return reassociated(op, a, c);

      case Op::kShr:
      case Op::kSar: {
        if (c % 64 == 0) return a;
        const auto d = constant_right(Op::kShl, a);
        if (!d || *d >= 64) return std::nullopt;
        const Value x = left(a);
        // x << n >> n = the low 64 - n bits of x, extended
        const bool is_signed = op == Op::kSar;
        if (c == 32 && *d == 32) return make(is_signed ? Op::kSext32 : Op::kZext32, x);
        if (c == 48 && *d == 48) return make(is_signed ? Op::kSext16 : Op::kZext16, x);
        if (c == 56 && *d == 56) return make(is_signed ? Op::kSext8 : Op::kZext8, x);
        // x << 32 >> n = ext32(x) << (32 - n) for n < 32: a 32-bit index, scaled
        if (*d == 32 && c < 32) {
          return make(Op::kShl, make(is_signed ? Op::kSext32 : Op::kZext32, x), constant(32 - c));
        }
        return std::nullopt;
      }
      case Op::kShl:
      case Op::kRol:
      case Op::kRor:
        if (c % 64 == 0) return a;
        return std::nullopt;
      case Op::kShl32:
      case Op::kShr32:
      case Op::kSar32:
      case Op::kRol32:
      case Op::kRor32:
        if (c % 32 == 0) return make(Op::kSext32, a);
        return std::nullopt;

      case Op::kAdd32: {
        if (static_cast<std::uint32_t>(c) == 0) return make(Op::kSext32, a);
        // Both forms of addition agree in the low half, and only that counts.
        auto d = constant_right(Op::kAdd32, a);
        if (!d) d = constant_right(Op::kAdd, a);
        if (!d) return std::nullopt;
        return make(Op::kAdd32, left(a), constant(compute(Op::kAdd32, *d, c, 0)));
      }
      case Op::kSub32: return make(Op::kAdd32, a, constant(compute(Op::kSub32, 0, c, 0)));
      case Op::kMul32: {
        const auto low = static_cast<std::uint32_t>(c);
        if (low == 0) return constant(0);
        if (low == 1) return make(Op::kSext32, a);
        if (std::has_single_bit(low)) return make(Op::kShl32, a, constant(static_cast<u64>(std::countr_zero(low))));
        return std::nullopt;
      }
      case Op::kDivu:
        if (c == 1) return a;
        if (std::has_single_bit(c)) return make(Op::kShr, a, constant(static_cast<u64>(std::countr_zero(c))));
        return std::nullopt;
      case Op::kRemu:
        if (std::has_single_bit(c)) return make(Op::kAnd, a, constant(c - 1));
        return std::nullopt;
      case Op::kDiv:
        if (c == 1) return a;
        return std::nullopt;

      case Op::kEq:
      case Op::kNe: {
        // x ^ y = 0 and x - y = 0 say that x = y
        const Inst& inner = definition(a);
        if (c == 0 && (inner.op == Op::kXor || inner.op == Op::kSub)) {
          return make(op, inner.operands[0], inner.operands[1]);
        }
        // x + d = c says that x = c - d; x ^ d = c that x = c ^ d
        if (const auto d = constant_right(Op::kAdd, a)) return make(op, left(a), constant(c - *d));
        if (const auto d = constant_right(Op::kXor, a)) return make(op, left(a), constant(c ^ *d));
        return std::nullopt;
      }
      case Op::kLtu:
        if (c == 0) return b;
        if (c == 1) return make(Op::kEq, a, constant(0));
        return std::nullopt;
      case Op::kGeu:
        if (c == 0) return constant(1);
        if (c == 1) return make(Op::kNe, a, constant(0));
        return std::nullopt;
      default: return std::nullopt;
    }
  }

  std::optional<Value> otherwise(const Inst& inst) {
    const auto& [a, b, c] = inst.operands;
    if (inst.op == Op::kOr || inst.op == Op::kXor) {
      if (const auto rotated = rotation(a, b)) return rotated;
    }
    const Inst inner = definition(a);  // a copy: what is appended may move the others
    switch (inst.op) {
      // The low half of a sum, difference or product depends on the low halves of its operands alone.
      case Op::kSext32:
        if (inner.op == Op::kAdd) return make(Op::kAdd32, inner.operands[0], inner.operands[1]);
        if (inner.op == Op::kSub) return make(Op::kSub32, inner.operands[0], inner.operands[1]);
        if (inner.op == Op::kMul) return make(Op::kMul32, inner.operands[0], inner.operands[1]);
        if (const auto n = constant_right(Op::kShl, a); n && *n < 32) {
          return make(Op::kShl32, inner.operands[0], inner.operands[1]);
        }
        return std::nullopt;
      // 0 < x says x != 0; 0 >= x says x = 0
      case Op::kLtu: return is_constant(a, 0) ? std::optional(make(Op::kNe, b, a)) : std::nullopt;
      case Op::kGeu: return is_constant(a, 0) ? std::optional(make(Op::kEq, b, a)) : std::nullopt;
      case Op::kSelect:
        if (is_constant(a)) return constant_of(a) != 0 ? b : c;
        if (b == c) return b;
        if (is_constant(b, 1) && is_constant(c, 0)) return make(Op::kNe, a, c);
        if (is_constant(b, 0) && is_constant(c, 1)) return make(Op::kEq, a, b);
        return std::nullopt;
      // Bits move between register files unchanged.
      case Op::kFbits:
        if (inner.op == Op::kFbox) {
          return make(Op::kOr, make(Op::kFbits, inner.operands[0]), constant(0xffff'ffff'0000'0000));
        }
        if (inner.op != Op::kFfromBits) return std::nullopt;
        return inner.type == Type::kF64 ? inner.operands[0] : make(Op::kZext32, inner.operands[0]);
      case Op::kFfromBits: {
        const Inst& source = definition(inst.type == Type::kF32 ? same_low_bits(out_, a, 32) : a);
        if (source.op != Op::kFbits || definition(source.operands[0]).type != inst.type) return std::nullopt;
        return source.operands[0];
      }
      case Op::kFunbox:
      case Op::kFlow: return inner.op == Op::kFbox ? std::optional(inner.operands[0]) : std::nullopt;
      case Op::kFcanonical: return inner.op == Op::kFcanonical ? std::optional(a) : std::nullopt;
      default: return std::nullopt;
    }
  }

  static std::vector<Inst>& out_buffer() {
    thread_local std::vector<Inst> insts;
    return insts;
  }

  Block& block_;
  std::vector<Inst>& out_;
  ValueMap new_names_;
  const std::size_t most_;         // with more instructions than this, nothing is rewritten any more: linear time
  std::uint16_t origin_ = 0;
};

}  // namespace

void constant_folding(Block& block) { Folder(block).run(); }

}  // namespace doppel::ir::opt
