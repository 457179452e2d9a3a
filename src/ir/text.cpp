#include "ir/text.h"

#include <charconv>
#include <iterator>
#include <limits>
#include <optional>

#include "ir/verify.h"

namespace doppel::ir {
namespace {

constexpr std::string_view kTypeNames[] = {"void", "i64", "f32", "f64"};
constexpr std::string_view kAccessNames[] = {"i8", "i16", "i32", "i64", "u8", "u16", "u32", "f32", "f64"};
constexpr std::string_view kAtomicNames[] = {"load", "swap", "add", "and", "or", "xor", "min", "max", "minu", "maxu"};
constexpr std::string_view kHintNames[] = {"", "call", "return"};
constexpr std::string_view kUncountNames[] = {"if", "unless"};
constexpr std::string_view kExitKindNames[] = {"", "step", "call"};

template <std::size_t N>
std::string_view name_in(const std::string_view (&names)[N], std::size_t index) {
  return index < N ? names[index] : "?";
}

template <std::size_t N>
std::optional<std::uint8_t> index_in(const std::string_view (&names)[N], std::string_view name) {
  for (std::size_t index = 0; index < N; ++index) {
    if (names[index] == name && !name.empty()) return static_cast<std::uint8_t>(index);
  }
  return std::nullopt;
}

bool has_access(Op op) {
  return op == Op::kLoad || op == Op::kStore || op == Op::kCall || op == Op::kAtomic || op == Op::kCompareSwap;
}

// --- Printing.

class Printer {
 public:
  std::string print(const Block& block) {
    add("guest_bytes {}\n", block.guest_bytes);
    std::size_t origins = 0;
    const auto begin_origins_to = [&](std::size_t end) {
      for (; origins < end; ++origins) {
        add("@{} raw {:#010x} +{}\n", origins, block.origins[origins].raw, block.origins[origins].offset);
      }
    };
    for (std::size_t index = 0; index < block.insts.size(); ++index) {
      const Inst& inst = block.insts[index];
      begin_origins_to(std::min<std::size_t>(inst.origin + 1u, block.origins.size()));
      text_ += "  ";
      if (inst.type != Type::kVoid) add("%{} = ", index);
      instruction(inst);
      text_ += '\n';
    }
    begin_origins_to(block.origins.size());
    return std::move(text_);
  }

 private:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
  }

  void instruction(const Inst& inst) {
    if (inst.op >= Op::kCount) {
      text_ += '?';
      return;
    }
    text_ += info(inst.op).name;
    if (has_access(inst.op)) {
      add(".{}", name_in(kAccessNames, inst.detail));
    } else if (info(inst.op).any_type) {
      add(".{}", name_in(kTypeNames, static_cast<std::size_t>(inst.type)));
    }
    arguments(inst);
  }

  void arguments(const Inst& inst) {
    const auto& [a, b, c] = inst.operands;
    switch (inst.op) {
      case Op::kConst:
        if (inst.imm >= -0xffff && inst.imm <= 0xffff) {
          add(" {}", inst.imm);
        } else {
          add(" {:#x}", static_cast<std::uint64_t>(inst.imm));
        }
        break;
      case Op::kGet: add(" [{}]", inst.imm); break;
      case Op::kFflags: add(" [{}]", inst.imm); break;
      case Op::kFsetFlags:
      case Op::kSet: add(" [{}], %{}", inst.imm, a); break;
      case Op::kLoad:
      case Op::kStore:
        add(" [%{}", a);
        if (inst.imm != 0) {
          const auto magnitude = static_cast<std::uint64_t>(inst.imm);
          add(" {} {}", inst.imm < 0 ? '-' : '+', inst.imm < 0 ? -magnitude : magnitude);
        }
        text_ += ']';
        if (inst.op == Op::kStore) add(", %{}", b);
        break;
      case Op::kAtomic: add(" {}, [%{}], %{}", name_in(kAtomicNames, static_cast<std::size_t>(inst.imm)), a, b); break;
      case Op::kCompareSwap: add(" [%{}], %{}, %{}", a, b, c); break;
      case Op::kZero: add(" {}, [%{}]", inst.imm, a); break;
      case Op::kBehind:
      case Op::kCall: add(" {}", inst.imm); break;
      case Op::kUncount: add(" {}, {} %{}", inst.imm, name_in(kUncountNames, inst.detail), a); break;
      case Op::kExit: add(" {:+}", inst.imm); break;
      case Op::kExitIf: add(" %{}, {:+}", a, inst.imm); break;
      default:
        for (unsigned i = 0; i < info(inst.op).operands; ++i) add("{} %{}", i == 0 ? "" : ",", inst.operands[i]);
        break;
    }
    if (inst.op == Op::kExitTo && inst.detail != 0) add(", {}", name_in(kHintNames, inst.detail));
    if ((inst.op == Op::kExit || inst.op == Op::kExitIf) && inst.detail != 0) {
      add(", {}", name_in(kExitKindNames, inst.detail));
    }
  }

  std::string text_;
};

// --- Parsing.

// The rest of a line. Each take_ skips spaces and takes what it names, or takes nothing and says so.
class Scanner {
 public:
  explicit Scanner(std::string_view line) : rest_(line.substr(0, line.find(';'))) {}

  bool at_end() {
    skip_spaces();
    return rest_.empty();
  }
  bool take(char expected) {
    skip_spaces();
    if (rest_.empty() || rest_.front() != expected) return false;
    rest_.remove_prefix(1);
    return true;
  }
  // Letters, digits and underscores; empty if there are none.
  std::string_view take_word() {
    skip_spaces();
    std::size_t length = 0;
    while (length < rest_.size() && is_word(rest_[length])) ++length;
    const std::string_view word = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return word;
  }
  // Decimal, or hexadecimal with 0x.
  std::optional<std::uint64_t> take_unsigned() {
    std::string_view digits = take_word();
    const bool is_hex = digits.starts_with("0x");
    if (is_hex) digits.remove_prefix(2);
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number, is_hex ? 16 : 10);
    if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
    return number;
  }
  template <class T>
  std::optional<T> take_unsigned_as() {
    const auto number = take_unsigned();
    if (!number || *number > std::numeric_limits<T>::max()) return std::nullopt;
    return static_cast<T>(*number);
  }
  // A sign and a magnitude.
  std::optional<std::int64_t> take_signed() {
    const bool is_negative = take('-');
    if (!is_negative && !take('+')) return std::nullopt;
    const auto magnitude = take_unsigned();
    constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
    if (!magnitude || *magnitude > kMost) return std::nullopt;
    return is_negative ? -static_cast<std::int64_t>(*magnitude) : static_cast<std::int64_t>(*magnitude);
  }

 private:
  static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  }
  void skip_spaces() {
    const std::size_t start = rest_.find_first_not_of(" \t\r");
    rest_.remove_prefix(std::min(start, rest_.size()));
  }

  std::string_view rest_;
};

class Parser {
 public:
  Result<Block> parse(std::string_view text) {
    for (unsigned number = 1; !text.empty(); ++number) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      if (auto parsed = line(text.substr(0, end)); !parsed) {
        return fail("line {}: {}", number, parsed.error().message);
      }
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    return std::move(block_);
  }

 private:
  Result<void> line(std::string_view text) {
    Scanner scanner(text);
    if (scanner.at_end()) return {};
    Result<void> parsed;
    if (scanner.take('@')) {
      parsed = origin(scanner);
    } else if (scanner.take('%')) {
      parsed = definition(scanner);
    } else {
      const std::string_view word = scanner.take_word();
      parsed = word == "guest_bytes" ? guest_bytes(scanner) : instruction(scanner, word, std::nullopt);
    }
    if (parsed && !scanner.at_end()) return fail("the line goes on after its end");
    return parsed;
  }

  Result<void> guest_bytes(Scanner& scanner) {
    const auto bytes = scanner.take_unsigned_as<std::uint32_t>();
    if (!bytes) return fail("expected a number of bytes");
    block_.guest_bytes = *bytes;
    return {};
  }

  Result<void> origin(Scanner& scanner) {
    if (scanner.take_unsigned() != block_.origins.size()) {
      return fail("expected guest instruction @{}", block_.origins.size());
    }
    if (block_.origins.size() >= kMostInsts) return fail("more than {} guest instructions", kMostInsts);
    if (scanner.take_word() != "raw") return fail("expected raw and the encoding");
    const auto raw = scanner.take_unsigned_as<std::uint32_t>();
    if (!raw) return fail("expected an encoding of 32 bits");
    if (!scanner.take('+')) return fail("expected + and the offset");
    const auto offset = scanner.take_unsigned_as<std::uint32_t>();
    if (!offset) return fail("expected an offset of 32 bits");
    block_.origins.push_back({.offset = *offset, .raw = *raw});
    return {};
  }

  Result<void> definition(Scanner& scanner) {
    const auto name = scanner.take_unsigned_as<Value>();
    if (!name || *name == kNone) return fail("expected the number of a value");
    if (*name < values_.size() && values_[*name] != kNone) return fail("%{} is defined twice", *name);
    if (!scanner.take('=')) return fail("expected =");
    return instruction(scanner, scanner.take_word(), name);
  }

  Result<void> instruction(Scanner& scanner, std::string_view word, std::optional<Value> name) {
    const auto op = find(word);
    if (!op) return fail("unknown operation \"{}\"", word);
    if (block_.insts.size() >= kMostInsts) return fail("more than {} instructions", kMostInsts);

    Inst inst{.op = *op, .type = info(*op).type};
    if (!block_.origins.empty()) inst.origin = static_cast<std::uint16_t>(block_.origins.size() - 1);
    if (auto parsed = suffix(scanner, inst); !parsed) return parsed;
    if (auto parsed = arguments(scanner, inst); !parsed) return parsed;

    if (name.has_value() != (inst.type != Type::kVoid)) {
      return fail("{} {}", word, name ? "has no value" : "needs a name for its value");
    }
    if (name) {
      if (*name >= values_.size()) values_.resize(*name + std::size_t{1}, kNone);
      values_[*name] = static_cast<Value>(block_.insts.size());
    }
    block_.insts.push_back(inst);
    return {};
  }

  static std::optional<Op> find(std::string_view name) {
    for (unsigned op = 0; op < static_cast<unsigned>(Op::kCount); ++op) {
      if (info(static_cast<Op>(op)).name == name) return static_cast<Op>(op);
    }
    return std::nullopt;
  }

  // .access or .type, where the operation has one.
  Result<void> suffix(Scanner& scanner, Inst& inst) {
    if (has_access(inst.op)) {
      const auto access = scanner.take('.') ? index_in(kAccessNames, scanner.take_word()) : std::nullopt;
      if (!access) return fail("expected an access, such as .i32");
      inst.detail = *access;
      if (inst.op == Op::kLoad) inst.type = type_of(inst.access());
    } else if (info(inst.op).any_type) {
      const auto type = scanner.take('.') ? index_in(kTypeNames, scanner.take_word()) : std::nullopt;
      if (!type || *type == 0) return fail("expected a type, such as .f64");
      inst.type = static_cast<Type>(*type);
    }
    return {};
  }

  Result<void> arguments(Scanner& scanner, Inst& inst) {
    switch (inst.op) {
      case Op::kConst: return constant(scanner, inst);
      case Op::kGet: return state_offset(scanner, inst);
      case Op::kFflags: return state_offset(scanner, inst);
      case Op::kFsetFlags:
      case Op::kSet:
        if (auto parsed = state_offset(scanner, inst); !parsed) return parsed;
        return operands(scanner, inst, 0, true);
      case Op::kLoad: return address(scanner, inst);
      case Op::kStore:
        if (auto parsed = address(scanner, inst); !parsed) return parsed;
        return operands(scanner, inst, 1, true);
      case Op::kAtomic: {
        const auto atomic = index_in(kAtomicNames, scanner.take_word());
        if (!atomic || !scanner.take(',')) return fail("expected an atomic operation, such as add, and a comma");
        inst.imm = *atomic;
        if (auto parsed = address(scanner, inst); !parsed) return parsed;
        inst.imm = *atomic;
        return operands(scanner, inst, 1, true);
      }
      case Op::kCompareSwap:
        if (auto parsed = address(scanner, inst); !parsed) return parsed;
        if (inst.imm != 0) return fail("its address has no offset");
        return operands(scanner, inst, 1, true);
      case Op::kZero: {
        const auto bytes = scanner.take_unsigned_as<std::uint32_t>();
        if (!bytes || !scanner.take(',')) return fail("expected how many bytes, and a comma");
        if (auto parsed = address(scanner, inst); !parsed) return parsed;
        if (inst.imm != 0) return fail("its address has no offset");
        inst.imm = *bytes;
        return {};
      }
      case Op::kBehind: {
        const auto bytes = scanner.take_unsigned_as<std::uint16_t>();
        if (!bytes) return fail("expected two bytes as a number");
        inst.imm = *bytes;
        return {};
      }
      case Op::kCall: {
        const auto helper = scanner.take_unsigned_as<std::uint32_t>();
        if (!helper) return fail("expected the number of a helper");
        inst.imm = *helper;
        return {};
      }
      case Op::kUncount: {
        const auto number = scanner.take_unsigned_as<std::uint32_t>();
        if (!number || !scanner.take(',')) return fail("expected how many instructions, and a comma");
        inst.imm = *number;
        const auto detail = index_in(kUncountNames, scanner.take_word());
        if (!detail) return fail("expected if or unless");
        inst.detail = *detail;
        return operands(scanner, inst, 0, false);
      }
      case Op::kExit:
        if (auto parsed = target(scanner, inst); !parsed) return parsed;
        return detail(scanner, inst, kExitKindNames);
      case Op::kExitIf:
        if (auto parsed = operands(scanner, inst, 0, false); !parsed) return parsed;
        if (!scanner.take(',')) return fail("expected a comma");
        if (auto parsed = target(scanner, inst); !parsed) return parsed;
        return detail(scanner, inst, kExitKindNames);
      case Op::kExitTo:
        if (auto parsed = operands(scanner, inst, 0, false); !parsed) return parsed;
        return detail(scanner, inst, kHintNames);
      default: return operands(scanner, inst, 0, false);
    }
  }

  // As many values as the operation takes from operand `first` on, each after a comma but perhaps the first.
  Result<void> operands(Scanner& scanner, Inst& inst, unsigned first, bool comma_first) {
    for (unsigned i = first; i < info(inst.op).operands; ++i) {
      if ((i > first || comma_first) && !scanner.take(',')) return fail("expected a comma");
      if (auto parsed = value(scanner, inst.operands[i]); !parsed) return parsed;
    }
    return {};
  }

  Result<void> value(Scanner& scanner, Value& operand) {
    const auto name = scanner.take('%') ? scanner.take_unsigned_as<Value>() : std::nullopt;
    if (!name) return fail("expected a value, such as %3");
    if (*name >= values_.size() || values_[*name] == kNone) return fail("%{} is not defined before its use", *name);
    operand = values_[*name];
    return {};
  }

  // Any word: a negative number, or an unsigned one.
  Result<void> constant(Scanner& scanner, Inst& inst) {
    const bool is_negative = scanner.take('-');
    const auto magnitude = scanner.take_unsigned();
    if (!magnitude) return fail("expected a number of 64 bits");
    inst.imm = static_cast<std::int64_t>(is_negative ? -*magnitude : *magnitude);
    return {};
  }

  Result<void> state_offset(Scanner& scanner, Inst& inst) {
    if (!scanner.take('[')) return fail("expected [");
    const auto offset = scanner.take_unsigned_as<std::uint32_t>();
    if (!offset) return fail("expected an offset of 32 bits");
    inst.imm = *offset;
    return scanner.take(']') ? Result<void>{} : fail("expected ]");
  }

  Result<void> address(Scanner& scanner, Inst& inst) {
    if (!scanner.take('[')) return fail("expected [");
    if (auto parsed = value(scanner, inst.operands[0]); !parsed) return parsed;
    if (scanner.take(']')) return {};
    const auto offset = scanner.take_signed();
    if (!offset) return fail("expected ] or an offset with its sign");
    inst.imm = *offset;
    return scanner.take(']') ? Result<void>{} : fail("expected ]");
  }

  Result<void> target(Scanner& scanner, Inst& inst) {
    const auto offset = scanner.take_signed();
    if (!offset) return fail("expected a target with its sign, such as +8");
    inst.imm = *offset;
    return {};
  }

  template <std::size_t N>
  Result<void> detail(Scanner& scanner, Inst& inst, const std::string_view (&names)[N]) {
    if (!scanner.take(',')) return {};
    const auto detail = index_in(names, scanner.take_word());
    if (!detail) return fail("expected {}", fmt::join(std::next(std::begin(names)), std::end(names), " or "));
    inst.detail = *detail;
    return {};
  }

  Block block_;
  std::vector<Value> values_;  // by their names in the text; kNone where none is defined
};

}  // namespace

std::string print(const Block& block) { return Printer().print(block); }

Result<Block> parse(std::string_view text) { return Parser().parse(text); }

}  // namespace doppel::ir
