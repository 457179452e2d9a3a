#include "ir/verify.h"

#include <limits>
#include <utility>

namespace doppel::ir {
namespace {

bool is_float(Type type) { return type == Type::kF32 || type == Type::kF64; }

bool ends_block(Op op) { return op == Op::kExit || op == Op::kExitTo || op == Op::kExitState; }

// One instruction at a time, for one sentence about it.
class Verifier {
 public:
  explicit Verifier(const Block& block) : block_(block) {}

  Result<void> run() {
    if (block_.insts.empty()) return doppel::fail("the block has no instructions");
    if (block_.insts.size() > kMostInsts) {
      return doppel::fail("the block has {} instructions, more than {}", block_.insts.size(), kMostInsts);
    }
    for (at_ = 0; at_ < block_.insts.size(); ++at_) {
      const Inst& inst = block_.insts[at_];
      if (inst.op >= Op::kCount) return fail("unknown operation {}", static_cast<unsigned>(inst.op));
      if (auto checked = check(inst); !checked) return checked;
    }
    return {};
  }

 private:
  template <class... Args>
  std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) const {
    const Op op = block_.insts[at_].op;
    return doppel::fail("instruction {} ({}): {}", at_, op < Op::kCount ? info(op).name : "?",
                        fmt::format(format, std::forward<Args>(args)...));
  }

  Result<void> check(const Inst& inst) const {
    if (auto checked = check_operands(inst); !checked) return checked;
    if (auto checked = check_types(inst); !checked) return checked;
    if (auto checked = check_numbers(inst); !checked) return checked;
    const bool last = at_ + 1 == block_.insts.size();
    if (ends_block(inst.op) && !last) return fail("leaves the block before its end");
    if (!ends_block(inst.op) && last) return fail("the block does not end with an exit");
    return check_origin(inst);
  }

  Result<void> check_operands(const Inst& inst) const {
    const unsigned count = info(inst.op).operands;
    for (unsigned i = 0; i < inst.operands.size(); ++i) {
      const Value operand = inst.operands[i];
      if (i >= count) {
        if (operand != kNone) return fail("takes {} operands", count);
        continue;
      }
      if (operand == kNone) return fail("takes {} operands", count);
      if (operand >= at_) return fail("%{} is not defined before its use", operand);
      if (block_.insts[operand].type == Type::kVoid) return fail("%{} has no value", operand);
    }
    return {};
  }

  Type operand_type(const Inst& inst, unsigned i) const { return block_.insts[inst.operands[i]].type; }

  Result<void> check_types(const Inst& inst) const {
    const OpInfo& op = info(inst.op);
    if (!op.any_type && inst.type != op.type) return fail("has another type than its operation");
    if (op.any_type && inst.type != Type::kI64 && !is_float(inst.type)) return fail("has no type");

    switch (inst.op) {
      case Op::kGet: return {};
      case Op::kSet: return {};
      case Op::kLoad:
      case Op::kStore: {
        if (inst.access() > Access::kF64) return fail("unknown access {}", inst.detail);
        if (operand_type(inst, 0) != Type::kI64) return fail("its address is no integer");
        const Type accessed = inst.op == Op::kLoad ? inst.type : operand_type(inst, 1);
        if (accessed != type_of(inst.access())) return fail("its access does not fit its value's type");
        return {};
      }
      case Op::kAtomic:
      case Op::kCompareSwap:
        if (inst.access() != Access::kI32 && inst.access() != Access::kI64) return fail("works on i32 or i64");
        return expect_operands(inst, Type::kI64);
      case Op::kFconvert:
        if (!is_float(inst.type) || !is_float(operand_type(inst, 0)) || inst.type == operand_type(inst, 0)) {
          return fail("converts between f32 and f64");
        }
        return {};
      case Op::kFbox:
        if (inst.type != Type::kF64) return fail("makes an f64");
        return expect_operands(inst, Type::kF32);
      case Op::kFunbox:
      case Op::kFlow:
        if (inst.type != Type::kF32) return fail("makes an f32");
        return expect_operands(inst, Type::kF64);
      case Op::kFfromI64:
      case Op::kFfromI32:
      case Op::kFfromBits:
        if (!is_float(inst.type)) return fail("makes a floating-point value");
        return expect_operands(inst, Type::kI64);
      case Op::kFeq:
      case Op::kFlt:
      case Op::kFle:
      case Op::kFtoI64:
      case Op::kFtoI32:
      case Op::kFtruncI64:
      case Op::kFtruncI32:
      case Op::kFbits:
        if (!is_float(operand_type(inst, 0))) return fail("takes floating-point values");
        return expect_operands(inst, operand_type(inst, 0));
      case Op::kFltQuiet:
      case Op::kFleQuiet:
        if (!is_float(operand_type(inst, 0)) || operand_type(inst, 1) != operand_type(inst, 0)) {
          return fail("compares floating-point values of one type");
        }
        if (operand_type(inst, 2) != Type::kI64) return fail("its flags are no integer");
        return {};
      default:
        if (!op.any_type) return expect_operands(inst, Type::kI64);
        if (!is_float(inst.type)) return fail("works on floating-point values");
        return expect_operands(inst, inst.type);
    }
  }

  Result<void> expect_operands(const Inst& inst, Type type) const {
    for (unsigned i = 0; i < info(inst.op).operands; ++i) {
      if (operand_type(inst, i) != type) return fail("%{} has the wrong type", inst.operands[i]);
    }
    return {};
  }

  Result<void> check_numbers(const Inst& inst) const {
    constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
    std::int64_t least = 0, most = 0;
    unsigned most_detail = 0;
    switch (inst.op) {
      case Op::kConst:
        least = std::numeric_limits<std::int64_t>::min();
        most = std::numeric_limits<std::int64_t>::max();
        break;
      case Op::kFflags:
      case Op::kFsetFlags:
      case Op::kGet:
      case Op::kSet: most = kMost; break;
      case Op::kCall:
        most = kMost;
        most_detail = static_cast<unsigned>(Access::kF64);
        break;
      case Op::kLoad:
      case Op::kStore:
        least = -kMost - 1;
        most = kMost;
        most_detail = static_cast<unsigned>(Access::kF64);
        break;
      case Op::kExit:
      case Op::kExitIf:
        least = -kMost - 1;
        most = kMost;
        most_detail = static_cast<unsigned>(inst.op == Op::kExit ? ExitKind::kCall : ExitKind::kStep);
        break;
      case Op::kAtomic:
        most = static_cast<std::int64_t>(AtomicOp::kMaxu);
        most_detail = static_cast<unsigned>(Access::kI64);
        break;
      case Op::kCompareSwap: most_detail = static_cast<unsigned>(Access::kI64); break;
      case Op::kZero:
        least = 16;
        most = 4096;
        if ((inst.imm & (inst.imm - 1)) != 0) return fail("{} bytes are no power of two", inst.imm);
        break;
      case Op::kBehind: most = std::numeric_limits<std::uint16_t>::max(); break;
      case Op::kUncount:
        least = 1;
        most = kMostInsts;
        most_detail = 1;
        break;
      case Op::kExitTo: most_detail = static_cast<unsigned>(JumpHint::kReturn); break;
      default: break;
    }
    if (inst.imm < least || inst.imm > most) return fail("its immediate {} is out of range", inst.imm);
    if (inst.detail > most_detail) return fail("its detail {} is out of range", inst.detail);
    return {};
  }

  Result<void> check_origin(const Inst& inst) const {
    if (inst.origin != 0 && inst.origin >= block_.origins.size()) {
      return fail("comes from guest instruction {} of {}", inst.origin, block_.origins.size());
    }
    if (at_ > 0 && inst.origin < block_.insts[at_ - 1].origin) {
      return fail("comes from an earlier guest instruction than the one before it");
    }
    return {};
  }

  const Block& block_;
  std::size_t at_ = 0;
};

}  // namespace

Result<void> verify(const Block& block) { return Verifier(block).run(); }

}  // namespace doppel::ir
