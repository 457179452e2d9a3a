#include "ir/ir.h"

namespace doppel::ir {
namespace {

constexpr bool has(std::string_view properties, char property) {
  return properties.find(property) != std::string_view::npos;
}

constexpr Type kVoid = Type::kVoid, kI64 = Type::kI64;
constexpr Type kAny = Type::kF64;  // stands for "the instruction says"

constexpr OpInfo kInfos[] = {
#define X(op, name, type, operands, properties)                                                   \
  OpInfo{name,                 operands,            type,                 type == kAny,           \
         has(properties, 'P'), has(properties, 'L'), has(properties, 'R'), has(properties, 'W'), \
         has(properties, 'C')},
    DOPPEL_IR_OPS(X)
#undef X
};

}  // namespace

const OpInfo& info(Op op) { return kInfos[static_cast<unsigned>(op)]; }

}  // namespace doppel::ir
