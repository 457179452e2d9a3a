// The intermediate representation: typed SSA over the state of some guest.
//
// A Block is a straight line of instructions with one entry and several exits. An instruction's index in its
// block is the name of its value. Guest registers live in a flat state, read by kGet and written by kSet at
// byte offsets; guest memory is reached by kLoad and kStore. Nothing here knows a guest architecture: what an
// offset or a helper number means is between the lifter and the engine.
//
// Precise state: at every instruction that may leave the block (loads, stores, helpers, exits) the guest
// state consists of exactly the kSets before it, and `origin` names the guest instruction that it belongs to.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace doppel::ir {

enum class Type : std::uint8_t { kVoid, kI64, kF32, kF64 };
constexpr unsigned bytes_of(Type type) { return type == Type::kVoid ? 0 : type == Type::kF32 ? 4 : 8; }

// Name, result type (kVoid where none; kAny: the instruction says), operand count, properties.
// Properties: P pure (value depends on operands only), L may leave the block or have effects outside the
// state (never removed or moved), R reads state, W writes state, C commutative.
//
// Integer operations work on 64 bits; shifts take their amount modulo the width, comparisons give 0 or 1,
// and the forms ending in 32 work on low halves and sign-extend their result. Division never traps: it gives
// what RISC-V defines, since that is total and other guests can test their operands first.
#define DOPPEL_IR_OPS(X)                                                                           \
  /* constants and state */                                                                        \
  X(kConst, "const", kI64, 0, "P")     /* imm */                                                   \
  X(kGet, "get", kAny, 0, "R")         /* imm: byte offset; width of the type */                   \
  X(kSet, "set", kVoid, 1, "W")        /* imm: byte offset; width of the operand's type */         \
  /* arithmetic */                                                                                 \
  X(kAdd, "add", kI64, 2, "PC")                                                                    \
  X(kSub, "sub", kI64, 2, "P")                                                                     \
  X(kMul, "mul", kI64, 2, "PC")                                                                    \
  X(kAnd, "and", kI64, 2, "PC")                                                                    \
  X(kOr, "or", kI64, 2, "PC")                                                                      \
  X(kXor, "xor", kI64, 2, "PC")                                                                    \
  X(kShl, "shl", kI64, 2, "P")                                                                     \
  X(kShr, "shr", kI64, 2, "P")                                                                     \
  X(kSar, "sar", kI64, 2, "P")                                                                     \
  X(kRol, "rol", kI64, 2, "P")                                                                     \
  X(kRor, "ror", kI64, 2, "P")                                                                     \
  X(kAdd32, "add32", kI64, 2, "PC")                                                                \
  X(kSub32, "sub32", kI64, 2, "P")                                                                 \
  X(kMul32, "mul32", kI64, 2, "PC")                                                                \
  X(kShl32, "shl32", kI64, 2, "P")                                                                 \
  X(kShr32, "shr32", kI64, 2, "P")                                                                 \
  X(kSar32, "sar32", kI64, 2, "P")                                                                 \
  X(kRol32, "rol32", kI64, 2, "P")                                                                 \
  X(kRor32, "ror32", kI64, 2, "P")                                                                 \
  X(kMulh, "mulh", kI64, 2, "PC")                                                                  \
  X(kMulhu, "mulhu", kI64, 2, "PC")                                                                \
  X(kMulhsu, "mulhsu", kI64, 2, "P")                                                               \
  X(kDiv, "div", kI64, 2, "P")                                                                     \
  X(kDivu, "divu", kI64, 2, "P")                                                                   \
  X(kRem, "rem", kI64, 2, "P")                                                                     \
  X(kRemu, "remu", kI64, 2, "P")                                                                   \
  X(kDiv32, "div32", kI64, 2, "P")                                                                 \
  X(kDivu32, "divu32", kI64, 2, "P")                                                               \
  X(kRem32, "rem32", kI64, 2, "P")                                                                 \
  X(kRemu32, "remu32", kI64, 2, "P")                                                               \
  /* extension, counting, permutation */                                                           \
  X(kSext8, "sext8", kI64, 1, "P")                                                                 \
  X(kSext16, "sext16", kI64, 1, "P")                                                               \
  X(kSext32, "sext32", kI64, 1, "P")                                                               \
  X(kZext8, "zext8", kI64, 1, "P")                                                                 \
  X(kZext16, "zext16", kI64, 1, "P")                                                               \
  X(kZext32, "zext32", kI64, 1, "P")                                                               \
  X(kClz, "clz", kI64, 1, "P")                                                                     \
  X(kCtz, "ctz", kI64, 1, "P")                                                                     \
  X(kPopcount, "popcount", kI64, 1, "P")                                                           \
  X(kClz32, "clz32", kI64, 1, "P")                                                                 \
  X(kCtz32, "ctz32", kI64, 1, "P")                                                                 \
  X(kByteReverse, "byte_reverse", kI64, 1, "P")                                                    \
  X(kOrCombineBytes, "or_combine_bytes", kI64, 1, "P")                                             \
  /* comparison and choice */                                                                      \
  X(kEq, "eq", kI64, 2, "PC")                                                                      \
  X(kNe, "ne", kI64, 2, "PC")                                                                      \
  X(kLt, "lt", kI64, 2, "P")                                                                       \
  X(kLtu, "ltu", kI64, 2, "P")                                                                     \
  X(kGe, "ge", kI64, 2, "P")                                                                       \
  X(kGeu, "geu", kI64, 2, "P")                                                                     \
  X(kSelect, "select", kI64, 3, "P")   /* a != 0 ? b : c */                                        \
  /* guest memory; address is operand 0 plus imm */                                                \
  X(kLoad, "load", kAny, 1, "L")       /* access: width, extension */                              \
  X(kStore, "store", kVoid, 2, "L")    /* operand 1 is the value */                                \
  X(kZero, "zero", kVoid, 1, "L")      /* clears imm bytes, at an address that is a multiple of imm */ \
  X(kFence, "fence", kVoid, 0, "L")    /* orders earlier stores before later loads */              \
  /* naturally aligned, sequentially consistent; what they cannot do is stepped. imm: an AtomicOp */ \
  X(kAtomic, "atomic", kI64, 2, "L")   /* access; address, operand; gives the old value, sign-extended */ \
  X(kCompareSwap, "compare_swap", kI64, 3, "L") /* access; address, expected, new; gives 1 if stored */ \
  /* floating point: by the rounding mode and into the accrued flags of the engine */              \
  X(kFadd, "fadd", kAny, 2, "C")                                                                   \
  X(kFsub, "fsub", kAny, 2, "")                                                                    \
  X(kFmul, "fmul", kAny, 2, "C")                                                                   \
  X(kFdiv, "fdiv", kAny, 2, "")                                                                    \
  X(kFsqrt, "fsqrt", kAny, 1, "")                                                                  \
  X(kFma, "fma", kAny, 3, "")          /* a * b + c, rounded once */                               \
  X(kFneg, "fneg", kAny, 1, "P")                                                                   \
  X(kFsign, "fsign", kAny, 2, "P")     /* magnitude of a, sign of b */                             \
  X(kFsignXor, "fsign_xor", kAny, 2, "P")                                                          \
  X(kFeq, "feq", kI64, 2, "")          /* quiet; a NaN compares false */                           \
  X(kFlt, "flt", kI64, 2, "")          /* signaling */                                             \
  X(kFle, "fle", kI64, 2, "")                                                                      \
  X(kFltQuiet, "flt_quiet", kI64, 3, "") /* operand 2 is what fflags gave: the flags before and after */ \
  X(kFleQuiet, "fle_quiet", kI64, 3, "")                                                           \
  X(kFconvert, "fconvert", kAny, 1, "") /* f32 <-> f64 */                                          \
  X(kFfromI64, "ffrom_i64", kAny, 1, "")                                                           \
  X(kFfromI32, "ffrom_i32", kAny, 1, "") /* low half, signed */                                    \
  /* to integers: by the rounding mode, or truncating; what does not fit gives the most negative value */ \
  X(kFtoI64, "fto_i64", kI64, 1, "")                                                               \
  X(kFtoI32, "fto_i32", kI64, 1, "")                                                               \
  X(kFtruncI64, "ftrunc_i64", kI64, 1, "")                                                         \
  X(kFtruncI32, "ftrunc_i32", kI64, 1, "")                                                         \
  X(kFbits, "fbits", kI64, 1, "P")     /* bit pattern, zero-extended */                            \
  X(kFfromBits, "ffrom_bits", kAny, 1, "P")                                                        \
  /* a narrow value in a wide one: boxed, the bits above it are ones */                            \
  X(kFbox, "fbox", kAny, 1, "P")       /* f32 to f64 */                                            \
  X(kFunbox, "funbox", kAny, 1, "P")   /* f64 to f32; what is not boxed is a canonical NaN */      \
  X(kFlow, "flow", kAny, 1, "P")       /* f64 to f32, boxed or not */                              \
  X(kFcanonical, "fcanonical", kAny, 1, "P") /* a NaN becomes the guest's canonical one */         \
  X(kFordered, "fordered", kAny, 1, "L") /* the operand; a NaN leaves by a step of its instruction */ \
  /* the accrued exceptions, by RISC-V's bits: those of the engine and those in the state's byte at imm */ \
  X(kFflags, "fflags", kI64, 0, "L")                                                               \
  X(kFsetFlags, "fset_flags", kVoid, 1, "L") /* low five bits */                                   \
  /* in code of several pages: nothing if the two bytes that follow the page, where it is run now, are imm; otherwise */ \
  /* leaves by a step of its instruction */                                                        \
  X(kBehind, "behind", kVoid, 0, "L")                                                              \
  X(kClock, "clock", kI64, 0, "")      /* what the engine's clock shows; anew each time */          \
  /* operand 0 != 0: imm of the block's guest instructions have not run; detail 1: if it is 0 */                  \
  X(kUncount, "uncount", kVoid, 1, "")                                                             \
  /* leaving: imm is the target's offset in bytes from the block's start */                        \
  X(kCall, "call", kVoid, 0, "LRW")    /* the engine runs the instruction at origin; detail: an Access as long */        \
  X(kExitIf, "exit_if", kVoid, 1, "L") /* operand 0 != 0: go to imm */                             \
  X(kExit, "exit", kVoid, 0, "L")      /* go to imm */                                             \
  X(kExitTo, "exit_to", kVoid, 1, "L") /* go to the address in operand 0; hint: call, return */    \
  X(kExitState, "exit_state", kVoid, 0, "L") /* go to the pc that is in the state */

enum class Op : std::uint8_t {
#define X(op, name, type, operands, properties) op,
  DOPPEL_IR_OPS(X)
#undef X
  kCount
};

using Value = std::uint16_t;  // index of the defining instruction
inline constexpr Value kNone = 0xffff;

// Of kLoad and kStore.
enum class Access : std::uint8_t { kI8, kI16, kI32, kI64, kU8, kU16, kU32, kF32, kF64 };
constexpr unsigned bytes_of(Access access) {
  switch (access) {
    case Access::kI8:
    case Access::kU8: return 1;
    case Access::kI16:
    case Access::kU16: return 2;
    case Access::kI32:
    case Access::kU32:
    case Access::kF32: return 4;
    default: return 8;
  }
}

constexpr Type type_of(Access access) {
  return access == Access::kF32 ? Type::kF32 : access == Access::kF64 ? Type::kF64 : Type::kI64;
}

enum class AtomicOp : std::uint8_t { kLoad, kSwap, kAdd, kAnd, kOr, kXor, kMin, kMax, kMinu, kMaxu };

// Of kExitTo, for return prediction.
enum class JumpHint : std::uint8_t { kOther, kCall, kReturn };

// Of kExit and kExitIf: whether the engine goes on at the target, or first runs the one guest instruction
// there by its reference interpreter (what the lifter or the back end leaves to it). A call, of kExit alone, goes on
// like any other, and will likely come back to the end of the block; so does a kExitTo that is a call.
enum class ExitKind : std::uint8_t { kGo, kStep, kCall };

struct Inst {
  Op op = Op::kConst;
  Type type = Type::kVoid;
  std::uint8_t detail = 0;  // Access of loads and stores, JumpHint of kExitTo, ExitKind of exits; others say
  std::uint16_t origin = 0;  // which guest instruction
  std::array<Value, 3> operands{kNone, kNone, kNone};
  std::int64_t imm = 0;

  Access access() const { return static_cast<Access>(detail); }
};

struct OpInfo {
  std::string_view name;
  unsigned operands;
  Type type;  // kVoid, kI64; of the instruction where `any`
  bool any_type;
  bool pure, leaves, reads_state, writes_state, commutative;
};

inline constexpr auto kOpInfos = [] {
  constexpr Type kVoid = Type::kVoid, kI64 = Type::kI64;
  constexpr Type kAny = Type::kF64;  // stands for "the instruction says"
  constexpr auto make = [](std::string_view name, Type type, unsigned operands, std::string_view properties) {
    const auto has = [&](char property) { return properties.find(property) != std::string_view::npos; };
    return OpInfo{name,     operands, type,     type == kAny, has('P'),
                  has('L'), has('R'), has('W'), has('C')};
  };
  return std::array{
#define X(op, name, type, operands, properties) make(name, type, operands, properties),
      DOPPEL_IR_OPS(X)
#undef X
  };
}();
constexpr const OpInfo& info(Op op) { return kOpInfos[static_cast<unsigned>(op)]; }

// One guest instruction of a block.
struct Origin {
  std::uint32_t offset = 0;  // bytes from the block's start
  std::uint32_t raw = 0;     // its encoding
};

struct Block {
  std::vector<Inst> insts;
  std::vector<Origin> origins;
  std::uint32_t guest_bytes = 0;  // that the block was lifted from, contiguous from its start
};

// Appends instructions. Values are folded only by the passes, never here.
class Builder {
 public:
  explicit Builder(Block& block) : block_(&block) {}

  void begin_guest_instruction(std::uint32_t offset, std::uint32_t raw) {
    origin_ = static_cast<std::uint16_t>(block_->origins.size());
    block_->origins.push_back({offset, raw});
  }

  Value constant(std::uint64_t value) {
    return add({.op = Op::kConst, .type = Type::kI64, .imm = static_cast<std::int64_t>(value)});
  }
  Value emit(Op op, Type type, Value a = kNone, Value b = kNone, Value c = kNone, std::int64_t imm = 0,
             std::uint8_t detail = 0) {
    return add({.op = op, .type = type, .detail = detail, .operands = {a, b, c}, .imm = imm});
  }
  Value get(Type type, std::uint32_t offset) { return emit(Op::kGet, type, kNone, kNone, kNone, offset); }
  void set(std::uint32_t offset, Value value) { emit(Op::kSet, Type::kVoid, value, kNone, kNone, offset); }
  Value load(Access access, Value address, std::int64_t offset = 0) {
    const Type type = access == Access::kF32 ? Type::kF32 : access == Access::kF64 ? Type::kF64 : Type::kI64;
    return emit(Op::kLoad, type, address, kNone, kNone, offset, static_cast<std::uint8_t>(access));
  }
  void store(Access access, Value address, Value value, std::int64_t offset = 0) {
    emit(Op::kStore, Type::kVoid, address, value, kNone, offset, static_cast<std::uint8_t>(access));
  }

  Block& block() { return *block_; }

 private:
  Value add(Inst inst) {
    inst.origin = origin_;
    block_->insts.push_back(inst);
    return static_cast<Value>(block_->insts.size() - 1);
  }

  Block* block_;
  std::uint16_t origin_ = 0;
};

}  // namespace doppel::ir
