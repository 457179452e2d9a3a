#include "ir/compute.h"

#include <cassert>

#include "base/arithmetic.h"

namespace doppel::ir {

std::uint64_t compute(Op op, std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  using namespace arithmetic;
  switch (op) {
    case Op::kAdd: return a + b;
    case Op::kSub: return a - b;
    case Op::kMul: return a * b;
    case Op::kAnd: return a & b;
    case Op::kOr: return a | b;
    case Op::kXor: return a ^ b;
    case Op::kShl: return shl(a, b);
    case Op::kShr: return shr(a, b);
    case Op::kSar: return sar(a, b);
    case Op::kRol: return rol(a, b);
    case Op::kRor: return ror(a, b);
    case Op::kAdd32: return sext32(a + b);
    case Op::kSub32: return sext32(a - b);
    case Op::kMul32: return sext32(a * b);
    case Op::kShl32: return shl32(a, b);
    case Op::kShr32: return shr32(a, b);
    case Op::kSar32: return sar32(a, b);
    case Op::kRol32: return rol32(a, b);
    case Op::kRor32: return ror32(a, b);
    case Op::kMulh: return mulh(a, b);
    case Op::kMulhu: return mulhu(a, b);
    case Op::kMulhsu: return mulhsu(a, b);
    case Op::kDiv: return div(a, b);
    case Op::kDivu: return divu(a, b);
    case Op::kRem: return rem(a, b);
    case Op::kRemu: return remu(a, b);
    case Op::kDiv32: return div32(a, b);
    case Op::kDivu32: return divu32(a, b);
    case Op::kRem32: return rem32(a, b);
    case Op::kRemu32: return remu32(a, b);
    case Op::kSext8: return sext8(a);
    case Op::kSext16: return sext16(a);
    case Op::kSext32: return sext32(a);
    case Op::kZext8: return zext8(a);
    case Op::kZext16: return zext16(a);
    case Op::kZext32: return zext32(a);
    case Op::kClz: return clz(a);
    case Op::kCtz: return ctz(a);
    case Op::kPopcount: return popcount(a);
    case Op::kClz32: return clz32(a);
    case Op::kCtz32: return ctz32(a);
    case Op::kByteReverse: return byte_reverse(a);
    case Op::kOrCombineBytes: return or_combine_bytes(a);
    case Op::kEq: return eq(a, b);
    case Op::kNe: return ne(a, b);
    case Op::kLt: return lt(a, b);
    case Op::kLtu: return ltu(a, b);
    case Op::kGe: return ge(a, b);
    case Op::kGeu: return geu(a, b);
    case Op::kSelect: return select(a, b, c);
    default: assert(false && "not an integer operation"); return 0;
  }
}

}  // namespace doppel::ir
