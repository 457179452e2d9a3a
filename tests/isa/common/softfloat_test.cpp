// Holds the float arithmetic to three independent oracles over the same operations and operands:
// - quad: 113-bit arithmetic and the textbook definition of rounding; all formats, all five modes;
// - host: the processor's own single and double arithmetic in the four modes that it has (no comparisons:
//   compilers are free to choose the quiet or the signaling one);
// - QEMU: the RISC-V instructions themselves, where the tools are installed.
#include "isa/common/softfloat/softfloat.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace doppel::softfloat {
namespace {

using u64 = std::uint64_t;
__extension__ using u128 = unsigned __int128;
__extension__ using Quad = __float128;

constexpr Rounding kModes[] = {Rounding::kNearestEven, Rounding::kTowardZero, Rounding::kDown, Rounding::kUp,
                               Rounding::kNearestAway};
constexpr const char* kModeNames[] = {"rne", "rtz", "rdn", "rup", "rmm"};

template <FloatBits F> constexpr int kPrecision = sizeof(F) == 2 ? 11 : sizeof(F) == 4 ? 24 : 53;
template <FloatBits F> constexpr int kMaxExponent = sizeof(F) == 2 ? 15 : sizeof(F) == 4 ? 127 : 1023;
template <FloatBits F> constexpr int kMinExponent = 1 - kMaxExponent<F>;
template <FloatBits F>
constexpr F kInfinityBits = static_cast<F>(F{2 * kMaxExponent<F> + 1} << (kPrecision<F> - 1));
template <FloatBits F> constexpr F kSignBit = static_cast<F>(F{1} << (8 * sizeof(F) - 1));

template <FloatBits F> bool is_nan(F a) { return (a & ~kSignBit<F>) > kInfinityBits<F>; }
template <FloatBits F> bool is_signaling(F a) { return is_nan(a) && !(a >> (kPrecision<F> - 2) & 1); }

struct Operands {
  u64 a, b, c;
};

struct Outcome {
  u64 value;
  Flags flags;
  bool operator==(const Outcome&) const = default;
};

// One instruction of one format. Values are as a register holds them: narrow floats NaN-boxed, 32-bit
// integers sign-extended.
struct Operation {
  using Function = std::function<Outcome(const Operands&, Rounding)>;
  std::string name;
  enum Source { kUnary, kBinary, kTernary, kInteger } source;
  bool rounds;         // has a rounding mode in bits 14..12 of its word
  bool float_result;   // in fa0, otherwise in a0
  std::uint32_t word;  // on fa0, fa1, fa2 and a0
  Function soft, quad, host;
};

// ---- the quad oracle ----

int exponent_of(Quad x) { return static_cast<int>(std::bit_cast<u128>(x) >> 112 & 0x7fff) - 16383; }
Quad power_of_two(int exponent) { return std::bit_cast<Quad>(static_cast<u128>(exponent + 16383) << 112); }
bool is_negative(Quad x) { return std::bit_cast<u128>(x) >> 127 != 0; }
Quad absolute(Quad x) { return is_negative(x) ? -x : x; }
bool is_finite(Quad x) { return x - x == 0; }

template <FloatBits F>
Quad value_of(F a) {
  if constexpr (sizeof(F) == 2) {
    const int exponent = a >> 10 & 31, fraction = a & 1023;
    const Quad magnitude = exponent == 31 ? (fraction ? Quad(NAN) : Quad(INFINITY))
                           : exponent == 0 ? fraction * power_of_two(-24)
                                           : (fraction + 1024) * power_of_two(exponent - 25);
    return a >> 15 ? -magnitude : magnitude;
  } else {
    return std::bit_cast<std::conditional_t<sizeof(F) == 4, float, double>>(a);
  }
}

// x >= 0, below 2^64, to an integer by the definition of the mode.
u64 round_integer(Quad x, bool negative, Rounding mode, bool& inexact) {
  const u64 below = static_cast<u64>(x);
  const Quad rest = x - below;
  inexact = rest != 0;
  switch (mode) {
    case Rounding::kNearestEven: return below + (rest > 0.5 || (rest == 0.5 && below % 2 == 1));
    case Rounding::kTowardZero: return below;
    case Rounding::kDown: return below + (negative && inexact);
    case Rounding::kUp: return below + (!negative && inexact);
    case Rounding::kNearestAway: return below + (rest >= 0.5);
  }
  return 0;
}

template <FloatBits F>
Outcome round_quad(Quad x, Rounding mode) {
  constexpr int kP = kPrecision<F>;
  const F sign = is_negative(x) ? kSignBit<F> : F{0};
  if (x != x) return {kCanonicalNan<F>, 0};
  if (x == 0) return {sign, 0};
  if (!is_finite(x)) return {static_cast<F>(sign | kInfinityBits<F>), 0};
  const Quad size = absolute(x);
  const auto in_units_of = [&](int exponent, bool& inexact) {
    return round_integer(size * power_of_two(-exponent), sign != 0, mode, inexact);
  };
  bool inexact = false;
  const int free_unit = exponent_of(x) - (kP - 1);
  const bool tiny = static_cast<Quad>(in_units_of(free_unit, inexact)) * power_of_two(free_unit) <
                    power_of_two(kMinExponent<F>);
  const int unit = std::max(free_unit, kMinExponent<F> - (kP - 1));
  const u64 units = in_units_of(unit, inexact);
  if (static_cast<Quad>(units) * power_of_two(unit) >= power_of_two(kMaxExponent<F> + 1)) {
    const bool away = mode == Rounding::kNearestEven || mode == Rounding::kNearestAway ||
                      mode == (sign ? Rounding::kDown : Rounding::kUp);
    return {static_cast<F>(sign | (kInfinityBits<F> - !away)), kOverflow | kInexact};
  }
  // Consecutive encodings are consecutive numbers.
  const u64 steps = static_cast<u64>(unit - (kMinExponent<F> - (kP - 1))) << (kP - 1);
  const Flags flags = !inexact ? 0 : tiny ? kInexact | kUnderflow : kInexact;
  return {sign | (steps + units), flags};
}

// The sum with 113 bits, the last of them set when it is not exact (rounding to odd).
Quad quad_sum(Quad x, Quad y, Rounding mode) {
  const Quad sum = x + y;
  if (!is_finite(sum)) return sum;
  if (sum == 0 && is_negative(x) != is_negative(y)) return mode == Rounding::kDown ? -Quad(0) : Quad(0);
  if (sum == 0) return x;
  const Quad y_part = sum - x;
  const Quad error = (x - (sum - y_part)) + (y - y_part);
  if (error == 0) return sum;
  const u128 bits = std::bit_cast<u128>(sum);
  return std::bit_cast<Quad>((is_negative(error) == is_negative(sum) ? bits : bits - 1) | 1);
}

// 113 bits place every quotient and root of two doubles on the right side of every 54-bit number.
Quad quad_root(Quad x) {
  if (x == 0 || x != x) return x;
  if (is_negative(x)) return Quad(NAN);
  if (!is_finite(x)) return x;
  const int half_exponent = (exponent_of(x) - (exponent_of(x) & 1)) / 2;
  const Quad scaled = x * power_of_two(-2 * half_exponent);
  Quad root = std::sqrt(static_cast<double>(scaled));
  if (root * root != scaled) {
    for (int i = 0; i < 3; ++i) root = (root + scaled / root) / 2;
  }
  return root * power_of_two(half_exponent);
}

// Adds what IEEE 754-2019, 7.2 says of NaNs: signaling operands and NaNs out of numbers are invalid.
template <FloatBits F, class... Operand>
Outcome with_invalid(Outcome outcome, Operand... operands) {
  const bool nan_operand = (is_nan(operands) || ...);
  if ((is_signaling(operands) || ...) || (outcome.value == kCanonicalNan<F> && !nan_operand)) {
    outcome.flags |= kInvalid;
  }
  return outcome;
}

template <class Integer, FloatBits F>
Outcome quad_to_integer(F a, Rounding mode) {
  using Limits = std::numeric_limits<Integer>;
  const Quad x = value_of(a);
  if (x == x && absolute(x) < power_of_two(64)) {
    bool inexact = false;
    const u64 size = round_integer(absolute(x), is_negative(x), mode, inexact);
    const Quad rounded = is_negative(x) ? -static_cast<Quad>(size) : static_cast<Quad>(size);
    if (rounded >= static_cast<Quad>(Limits::min()) && rounded <= static_cast<Quad>(Limits::max())) {
      return {is_negative(x) ? 0 - size : size, inexact ? kInexact : Flags{0}};
    }
  }
  return {static_cast<u64>(x < 0 ? Limits::min() : Limits::max()), kInvalid};
}

template <FloatBits F>
Outcome quad_extremum(F a, F b, bool want_max) {
  const Flags flags = is_signaling(a) || is_signaling(b) ? kInvalid : Flags{0};
  const Quad x = value_of(a), y = value_of(b);
  if (x != x && y != y) return {kCanonicalNan<F>, flags};
  if (x != x || y != y) return {x != x ? b : a, flags};
  const bool a_is_less = x < y || (x == y && is_negative(x));
  return {a_is_less != want_max ? a : b, flags};
}

template <FloatBits F>
Outcome quad_compare(F a, F b, bool signaling, bool result) {
  const bool invalid = signaling ? is_nan(a) || is_nan(b) : is_signaling(a) || is_signaling(b);
  return {result, invalid ? kInvalid : Flags{0}};
}

template <FloatBits F>
Outcome quad_class(F a) {
  const Quad x = value_of(a);
  if (x != x) return {u64{is_signaling(a) ? 0x100u : 0x200u}, 0};
  const bool normal = absolute(x) >= power_of_two(kMinExponent<F>);
  const u64 negative_class = !is_finite(x) ? 0x1 : x == 0 ? 0x8 : normal ? 0x2 : 0x4;
  const u64 positive_class = !is_finite(x) ? 0x80 : x == 0 ? 0x10 : normal ? 0x40 : 0x20;
  return {is_negative(x) ? negative_class : positive_class, 0};
}

// ---- the host oracle ----

template <FloatBits F> using HostFloat = std::conditional_t<sizeof(F) == 4, float, double>;
template <FloatBits F> HostFloat<F> host_value(u64 value) {
  return std::bit_cast<HostFloat<F>>(static_cast<F>(value));
}

// Runs `compute` in the mode; its operands must be volatile, so that it stays between the calls.
template <class Compute>
auto on_host(Rounding mode, Flags& flags, Compute compute) {
  constexpr int kHostModes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  std::fesetround(kHostModes[static_cast<int>(mode)]);
  std::feclearexcept(FE_ALL_EXCEPT);
  volatile auto result = compute();
  const int raised = std::fetestexcept(FE_ALL_EXCEPT);
  std::fesetround(FE_TONEAREST);
  constexpr std::pair<int, Flags> kExceptions[] = {{FE_INEXACT, kInexact},
                                                   {FE_UNDERFLOW, kUnderflow},
                                                   {FE_OVERFLOW, kOverflow},
                                                   {FE_DIVBYZERO, kDivideByZero},
                                                   {FE_INVALID, kInvalid}};
  for (const auto& [exception, flag] : kExceptions) {
    if (raised & exception) flags |= flag;
  }
  return +result;
}

template <FloatBits To, class Compute>
Outcome host_float(Rounding mode, Compute compute) {
  Flags flags = 0;
  const HostFloat<To> result = static_cast<HostFloat<To>>(on_host(mode, flags, compute));
  return {result != result ? kCanonicalNan<To> : std::bit_cast<To>(result), flags};
}

template <class Integer, FloatBits F>
Outcome host_to_integer(F a, Rounding mode) {
  using Limits = std::numeric_limits<Integer>;
  if (is_nan(a)) return {static_cast<u64>(Limits::max()), kInvalid};
  volatile long double x = std::bit_cast<HostFloat<F>>(a);
  Flags flags = 0;
  const long double rounded = on_host(mode, flags, [&] { return std::rint(x); });
  if (rounded < Limits::min()) return {static_cast<u64>(Limits::min()), kInvalid};
  if (rounded > Limits::max()) return {static_cast<u64>(Limits::max()), kInvalid};
  return {static_cast<u64>(static_cast<Integer>(rounded)), flags};
}

// ---- the operations ----

template <FloatBits F> F unbox(u64 value) { return static_cast<F>(value); }
template <FloatBits F> u64 box(u64 value) {
  return sizeof(F) == 8 ? value : value | ~u64{0} << (8 * sizeof(F) % 64);
}
template <FloatBits F> Outcome boxed(Outcome outcome) { return {box<F>(outcome.value), outcome.flags}; }
template <class Integer> u64 as_register(Integer value) {
  return static_cast<u64>(static_cast<std::int64_t>(static_cast<std::make_signed_t<Integer>>(value)));
}
template <class Integer> Outcome in_register(Outcome outcome) {
  return {as_register(static_cast<Integer>(outcome.value)), outcome.flags};
}

// The register and the flags that `compute` leaves.
template <class Compute>
Outcome accrue(Compute compute) {
  Outcome outcome{0, 0};
  outcome.value = compute(outcome.flags);
  return outcome;
}

template <FloatBits F> constexpr std::uint32_t kFmt = sizeof(F) == 2 ? 2 : sizeof(F) == 4 ? 0 : 1;
template <FloatBits F> constexpr const char* kSuffix = sizeof(F) == 2 ? ".h" : sizeof(F) == 4 ? ".s" : ".d";

// OP-FP with rd = 10 and rs1 = 10.
constexpr std::uint32_t encode(unsigned funct5, unsigned fmt, unsigned rs2, unsigned funct3) {
  return funct5 << 27 | fmt << 25 | rs2 << 20 | 10u << 15 | funct3 << 12 | 10u << 7 | 0x53;
}

template <FloatBits F>
class OperationList {
 public:
  std::vector<Operation> list;

  OperationList() {
    using H = HostFloat<F>;
    binary("fadd", 0, [](F a, F b, Rounding m, Flags& f) { return add(a, b, m, f); },
           [](F a, F b, Rounding m) { return quad_sum(value_of(a), value_of(b), m); },
           [](volatile H& a, volatile H& b) -> H { return a + b; });
    binary("fsub", 1, [](F a, F b, Rounding m, Flags& f) { return sub(a, b, m, f); },
           [](F a, F b, Rounding m) { return quad_sum(value_of(a), -value_of(b), m); },
           [](volatile H& a, volatile H& b) -> H { return a - b; });
    binary("fmul", 2, [](F a, F b, Rounding m, Flags& f) { return mul(a, b, m, f); },
           [](F a, F b, Rounding) { return value_of(a) * value_of(b); },
           [](volatile H& a, volatile H& b) -> H { return a * b; });
    binary("fdiv", 3, [](F a, F b, Rounding m, Flags& f) { return div(a, b, m, f); },
           [](F a, F b, Rounding) { return value_of(a) / value_of(b); },
           [](volatile H& a, volatile H& b) -> H { return a / b; });
    square_root();
    multiply_add();
    extrema();
    comparisons();
    conversion<Half>();
    conversion<Single>();
    conversion<Double>();
    integers<std::int32_t>(0, "w");
    integers<std::uint32_t>(1, "wu");
    integers<std::int64_t>(2, "l");
    integers<std::uint64_t>(3, "lu");
  }

 private:
  static constexpr bool kHost = sizeof(F) != 2;

  Operation& append(std::string name, Operation::Source source, bool rounds, bool float_result,
                    std::uint32_t word) {
    return list.emplace_back(Operation{std::move(name), source, rounds, float_result, word, {}, {}, {}});
  }

  template <class Soft, class Exact, class Host>
  void binary(std::string name, unsigned funct5, Soft soft, Exact exact, Host host) {
    const bool divides = name == "fdiv";
    Operation& op = append(name + kSuffix<F>, Operation::kBinary, true, true, encode(funct5, kFmt<F>, 11, 0));
    op.soft = [=](const Operands& in, Rounding mode) {
      return accrue([&](Flags& f) { return box<F>(soft(unbox<F>(in.a), unbox<F>(in.b), mode, f)); });
    };
    op.quad = [=](const Operands& in, Rounding mode) {
      const F a = unbox<F>(in.a), b = unbox<F>(in.b);
      Outcome out = with_invalid<F>(round_quad<F>(exact(a, b, mode), mode), a, b);
      const bool finite_over_zero = value_of(b) == 0 && is_finite(value_of(a)) && value_of(a) != 0;
      if (divides && finite_over_zero) out.flags |= kDivideByZero;
      return boxed<F>(out);
    };
    if constexpr (kHost) {
      op.host = [=](const Operands& in, Rounding mode) {
        volatile auto a = host_value<F>(in.a), b = host_value<F>(in.b);
        return boxed<F>(host_float<F>(mode, [&] { return host(a, b); }));
      };
    }
  }

  void square_root() {
    Operation& op =
        append(std::string("fsqrt") + kSuffix<F>, Operation::kUnary, true, true, encode(11, kFmt<F>, 0, 0));
    op.soft = [](const Operands& in, Rounding mode) {
      return accrue([&](Flags& f) { return box<F>(sqrt(unbox<F>(in.a), mode, f)); });
    };
    op.quad = [](const Operands& in, Rounding mode) {
      const F a = unbox<F>(in.a);
      return boxed<F>(with_invalid<F>(round_quad<F>(quad_root(value_of(a)), mode), a));
    };
    if constexpr (kHost) {
      op.host = [](const Operands& in, Rounding mode) {
        volatile auto a = host_value<F>(in.a);
        return boxed<F>(host_float<F>(mode, [&] { return std::sqrt(a); }));
      };
    }
  }

  void multiply_add() {
    const std::uint32_t word = 12u << 27 | kFmt<F> << 25 | 11u << 20 | 10u << 15 | 10u << 7 | 0x43;
    Operation& op = append(std::string("fmadd") + kSuffix<F>, Operation::kTernary, true, true, word);
    // Where IEEE 754 lets implementations choose, RISC-V raises invalid and x86 does not.
    const auto zero_times_infinity = [](F a, F b) {
      return !is_nan(a) && !is_nan(b) && value_of(a) * value_of(b) != value_of(a) * value_of(b);
    };
    op.soft = [](const Operands& in, Rounding mode) {
      const F a = unbox<F>(in.a), b = unbox<F>(in.b), c = unbox<F>(in.c);
      return accrue([&](Flags& f) { return box<F>(fma(a, b, c, mode, f)); });
    };
    op.quad = [=](const Operands& in, Rounding mode) {
      const F a = unbox<F>(in.a), b = unbox<F>(in.b), c = unbox<F>(in.c);
      const Quad exact = quad_sum(value_of(a) * value_of(b), value_of(c), mode);
      Outcome out = with_invalid<F>(round_quad<F>(exact, mode), a, b, c);
      if (zero_times_infinity(a, b)) out.flags |= kInvalid;
      return boxed<F>(out);
    };
    if constexpr (kHost) {
      op.host = [=](const Operands& in, Rounding mode) {
        volatile auto a = host_value<F>(in.a), b = host_value<F>(in.b),
                      c = host_value<F>(in.c);
        Outcome out = host_float<F>(mode, [&] { return std::fma(a, b, c); });
        if (zero_times_infinity(unbox<F>(in.a), unbox<F>(in.b))) out.flags |= kInvalid;
        return boxed<F>(out);
      };
    }
  }

  void extrema() {
    for (const bool want_max : {false, true}) {
      Operation& op = append(std::string(want_max ? "fmax" : "fmin") + kSuffix<F>, Operation::kBinary, false,
                             true, encode(5, kFmt<F>, 11, want_max));
      op.soft = [=](const Operands& in, Rounding) {
        const F a = unbox<F>(in.a), b = unbox<F>(in.b);
        return accrue([&](Flags& f) { return box<F>(want_max ? max(a, b, f) : min(a, b, f)); });
      };
      op.quad = [=](const Operands& in, Rounding) {
        return boxed<F>(quad_extremum(unbox<F>(in.a), unbox<F>(in.b), want_max));
      };
    }
  }

  template <class Soft, class Exact>
  void comparison(std::string name, unsigned funct3, bool signaling, Soft soft, Exact exact) {
    Operation& op =
        append(name + kSuffix<F>, Operation::kBinary, false, false, encode(20, kFmt<F>, 11, funct3));
    op.soft = [=](const Operands& in, Rounding) {
      return accrue([&](Flags& f) { return soft(unbox<F>(in.a), unbox<F>(in.b), f); });
    };
    op.quad = [=](const Operands& in, Rounding) {
      const F a = unbox<F>(in.a), b = unbox<F>(in.b);
      return quad_compare(a, b, signaling, exact(value_of(a), value_of(b)));
    };
  }

  void comparisons() {
    comparison("feq", 2, false, [](F a, F b, Flags& f) { return eq(a, b, f); },
               [](Quad a, Quad b) { return a == b; });
    comparison("flt", 1, true, [](F a, F b, Flags& f) { return lt(a, b, f); },
               [](Quad a, Quad b) { return a < b; });
    comparison("fle", 0, true, [](F a, F b, Flags& f) { return le(a, b, f); },
               [](Quad a, Quad b) { return a <= b; });
    Operation& op =
        append(std::string("fclass") + kSuffix<F>, Operation::kUnary, false, false,
               encode(28, kFmt<F>, 0, 1));
    op.soft = [](const Operands& in, Rounding) { return Outcome{classify(unbox<F>(in.a)), 0}; };
    op.quad = [](const Operands& in, Rounding) { return quad_class(unbox<F>(in.a)); };
  }

  template <FloatBits To>
  void conversion() {
    if constexpr (!std::same_as<F, To>) {
      Operation& op = append(std::string("fcvt") + kSuffix<To> + kSuffix<F>, Operation::kUnary, true, true,
                             encode(8, kFmt<To>, kFmt<F>, 0));
      op.soft = [](const Operands& in, Rounding mode) {
        return accrue([&](Flags& f) { return box<To>(convert<To>(unbox<F>(in.a), mode, f)); });
      };
      op.quad = [](const Operands& in, Rounding mode) {
        const F a = unbox<F>(in.a);
        return boxed<To>(with_invalid<To>(round_quad<To>(value_of(a), mode), a));
      };
      if constexpr (kHost && sizeof(To) != 2) {
        op.host = [](const Operands& in, Rounding mode) {
          volatile auto a = host_value<F>(in.a);
          return boxed<To>(host_float<To>(mode, [&] { return static_cast<HostFloat<To>>(a); }));
        };
      }
    }
  }

  template <class Integer>
  void integers(unsigned selector, const char* name) {
    Operation& to = append(std::string("fcvt.") + name + kSuffix<F>, Operation::kUnary, true, false,
                           encode(24, kFmt<F>, selector, 0));
    to.soft = [](const Operands& in, Rounding mode) {
      return accrue([&](Flags& f) { return as_register(to_integer<Integer>(unbox<F>(in.a), mode, f)); });
    };
    to.quad = [](const Operands& in, Rounding mode) {
      return in_register<Integer>(quad_to_integer<Integer>(unbox<F>(in.a), mode));
    };

    Operation& from = append(std::string("fcvt") + kSuffix<F> + "." + name, Operation::kInteger, true, true,
                             encode(26, kFmt<F>, selector, 0));
    from.soft = [](const Operands& in, Rounding mode) {
      return accrue([&](Flags& f) { return box<F>(from_integer<F>(static_cast<Integer>(in.a), mode, f)); });
    };
    from.quad = [](const Operands& in, Rounding mode) {
      return boxed<F>(round_quad<F>(static_cast<Quad>(static_cast<Integer>(in.a)), mode));
    };
    if constexpr (kHost) {
      list[list.size() - 2].host = [](const Operands& in, Rounding mode) {
        return in_register<Integer>(host_to_integer<Integer>(unbox<F>(in.a), mode));
      };
      from.host = [](const Operands& in, Rounding mode) {
        volatile long double value = static_cast<Integer>(in.a);  // exact
        return boxed<F>(host_float<F>(mode, [&] { return static_cast<HostFloat<F>>(value); }));
      };
    }
  }
};

// ---- the operands ----

template <FloatBits F>
std::vector<F> edge_values() {
  constexpr int kP = kPrecision<F>;
  constexpr u64 kHidden = u64{1} << (kP - 1), kInfinity = kInfinityBits<F>, kNan = kCanonicalNan<F>;
  const auto power = [](int exponent) { return static_cast<u64>(exponent + kMaxExponent<F>) << (kP - 1); };
  const u64 positive[] = {
      0, 1, 2, 3, kHidden / 2, kHidden - 1,                                    // zero, subnormal
      kHidden, kHidden + 1, 2 * kHidden - 1, 2 * kHidden,                      // the smallest normal ones
      power(0) - 1, power(0), power(0) + 1, power(-1), power(1) + kHidden / 2,  // about 1, and 3
      power(-kP), power(-kP) + 1, power(kP - 1), power(kP - 2) + 1,            // half an ulp of 1; n + 1/2
      kInfinity - kHidden, kInfinity - 2, kInfinity - 1, kInfinity,            // the largest ones
      kInfinity + 1, kNan, kNan + 1};
  std::vector<F> all;
  for (const u64 value : positive) {
    all.insert(all.end(), {static_cast<F>(value), static_cast<F>(value | kSignBit<F>)});
  }
  return all;
}

class Generator {
 public:
  // A number that is likely to round in an interesting way: few bits set, or all but few, or any; its
  // exponent near that of `neighbour` or anywhere.
  template <FloatBits F>
  F number(F neighbour) {
    constexpr F kFraction = static_cast<F>((F{1} << (kPrecision<F> - 1)) - 1);
    F fraction = static_cast<F>(random_());
    if (pick(2) == 0) {
      fraction = static_cast<F>((F{1} << pick(kPrecision<F>)) | (F{1} << pick(kPrecision<F>)));
      if (pick(2) == 0) fraction = static_cast<F>(~fraction);
    }
    constexpr int kExponents = 2 * kMaxExponent<F> + 2;
    constexpr int kReach = kPrecision<F> + 2;
    const int near =
        static_cast<int>(neighbour >> (kPrecision<F> - 1)) % kExponents + pick(2 * kReach) - kReach;
    const int exponent = pick(2) == 0 ? pick(kExponents) : std::clamp(near, 0, kExponents - 1);
    return static_cast<F>((fraction & kFraction) | static_cast<F>(F(exponent) << (kPrecision<F> - 1)) |
                          (pick(2) ? kSignBit<F> : F{0}));
  }

  // Powers of two give or take a little, of either sign, and any number of random bits.
  u64 integer() {
    const u64 near_power = (u64{1} << pick(64)) + static_cast<u64>(pick(5)) - 2;
    const u64 size = pick(2) ? near_power : random_() >> pick(64);
    return pick(2) ? size : 0 - size;
  }

  int pick(int count) { return static_cast<int>(random_() % static_cast<u64>(count)); }

 private:
  std::mt19937_64 random_{20};
};

template <FloatBits F>
std::vector<Operands> operands_for(const Operation& op, int random_count) {
  static const std::vector<F> edges = edge_values<F>();
  constexpr F kOne = static_cast<F>(F{kMaxExponent<F>} << (kPrecision<F> - 1));
  std::vector<Operands> all;
  Generator generate;
  const auto push = [&](F a, F b, F c) { all.push_back({box<F>(a), box<F>(b), box<F>(c)}); };
  if (op.source == Operation::kInteger) {
    for (int i = 0; i < 64; ++i) {
      const u64 power = u64{1} << i;
      for (const u64 value : {power - 1, power, power + 1}) {
        all.insert(all.end(), {{value, 0, 0}, {0 - value, 0, 0}});
      }
    }
    for (int i = 0; i < random_count; ++i) all.push_back({generate.integer(), 0, 0});
    return all;
  }
  for (const F a : edges) {
    if (op.source == Operation::kUnary) push(a, 0, 0);
    for (const F b : edges) {
      if (op.source == Operation::kBinary) push(a, b, 0);
      if (op.source != Operation::kTernary) continue;
      // One third of all triples, not the same one for each a and b.
      for (int i = generate.pick(3); i < std::ssize(edges); i += 3) push(a, b, edges[static_cast<u64>(i)]);
    }
  }
  for (int i = 0; i < random_count; ++i) {
    const F a = generate.number(kOne), b = generate.number(a);
    // Aims c at the product of a and b, so that it cancels or lands in its lowest bits.
    Flags ignored = 0;
    push(a, b, generate.number(mul(a, b, Rounding::kTowardZero, ignored)));
  }
  return all;
}

std::string describe(const Operation& op, Rounding mode, const Operands& in, const Outcome& got,
                     const Outcome& want) {
  return fmt::format("{} {} a={:016x} b={:016x} c={:016x}: got {:016x} flags {:02x}, want {:016x} {:02x}",
                     op.name, kModeNames[static_cast<int>(mode)], in.a, in.b, in.c, got.value, got.flags,
                     want.value, want.flags);
}

// Compares `soft` with one oracle, in all the modes that it knows; one failure for each operation.
template <FloatBits F>
void compare(Operation::Function Operation::*oracle, int mode_count, int random_count) {
  for (const Operation& op : OperationList<F>().list) {
    if (!(op.*oracle)) continue;
    const std::vector<Operands> operands = operands_for<F>(op, random_count);
    const auto differs = [&](Rounding mode) {
      for (const Operands& in : operands) {
        const Outcome got = op.soft(in, mode), want = (op.*oracle)(in, mode);
        if (got != want) return ADD_FAILURE() << describe(op, mode, in, got, want), true;
      }
      return false;
    };
    for (int mode = 0; mode < (op.rounds ? mode_count : 1) && !differs(kModes[mode]);) ++mode;
  }
}

TEST(SoftFloat, HalfMatchesQuadArithmetic) { compare<Half>(&Operation::quad, 5, 4000); }
TEST(SoftFloat, SingleMatchesQuadArithmetic) { compare<Single>(&Operation::quad, 5, 4000); }
TEST(SoftFloat, DoubleMatchesQuadArithmetic) { compare<Double>(&Operation::quad, 5, 4000); }

TEST(SoftFloat, SingleMatchesHost) { compare<Single>(&Operation::host, 4, 20000); }
TEST(SoftFloat, DoubleMatchesHost) { compare<Double>(&Operation::host, 4, 20000); }

// ---- QEMU ----

bool succeeds(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }

template <FloatBits F>
void compare_with_qemu(const std::string& run, const std::filesystem::path& folder) {
  struct Case {
    const Operation* op;
    Rounding mode;
    Operands in;
  };
  struct Answer {
    u64 f, x, flags;
  };
  const OperationList<F> operations;
  std::vector<Case> cases;
  std::ofstream input(folder / "in", std::ios::binary);
  const auto write = [&](const auto& value) {  // plain integers or structs of them
    input.write(reinterpret_cast<const char*>(&value), sizeof value);
  };
  for (const Operation& op : operations.list) {
    const std::vector<Operands> operands = operands_for<F>(op, 2000);
    for (const Rounding mode : kModes) {
      if (!op.rounds && mode != Rounding::kNearestEven) continue;
      write(op.word | static_cast<std::uint32_t>(mode) << 12);
      write(static_cast<std::uint32_t>(operands.size()));
      for (const Operands& in : operands) write(in), cases.push_back({&op, mode, in});
    }
  }
  input.close();
  const std::string command = run + " <" + (folder / "in").string() + " >" + (folder / "out").string();
  ASSERT_EQ(std::system(command.c_str()), 0) << command;

  std::ifstream output(folder / "out", std::ios::binary);
  const Operation* failed = nullptr;
  for (const auto& [op, mode, in] : cases) {
    Answer answer;
    ASSERT_TRUE(output.read(reinterpret_cast<char*>(&answer), sizeof answer));
    const Outcome got = op->soft(in, mode);
    const Outcome want{op->float_result ? answer.f : answer.x, static_cast<Flags>(answer.flags)};
    if (got == want || op == failed) continue;
    ADD_FAILURE() << describe(*op, mode, in, got, want);
    failed = op;
  }
}

TEST(SoftFloat, MatchesQemu) {
  for (const char* tool : {"riscv64-linux-gnu-gcc", "qemu-riscv64"}) {
    if (!succeeds(std::string(tool) + " --version")) GTEST_SKIP() << tool << " is not installed";
  }
  std::string name = (std::filesystem::temp_directory_path() / "softfloat.XXXXXX").string();
  ASSERT_NE(mkdtemp(name.data()), nullptr);
  const std::filesystem::path folder = name;
  struct Cleaner {
    const std::filesystem::path& folder;
    ~Cleaner() { std::filesystem::remove_all(folder); }
  } const cleaner{folder};

  const std::string guest = (folder / "guest").string();
  const auto source = std::filesystem::path(__FILE__).parent_path() / "softfloat_guest.c";
  const std::string compile = "riscv64-linux-gnu-gcc -O2 -static -o " + guest + " " + source.string();
  ASSERT_EQ(std::system(compile.c_str()), 0) << compile;
  // The property's name changed its case after version 7.
  for (const char* property : {"Zfh=true", "zfh=true"}) {
    const std::string run = std::string("qemu-riscv64 -cpu rv64,") + property + " " + guest;
    if (!succeeds(run + " </dev/null")) continue;
    compare_with_qemu<Half>(run, folder);
    compare_with_qemu<Single>(run, folder);
    compare_with_qemu<Double>(run, folder);
    return;
  }
  GTEST_SKIP() << "this qemu-riscv64 has no half precision";
}

// ---- promises of the interface that no oracle shows ----

TEST(SoftFloat, AccruesFlags) {
  Flags flags = kDivideByZero;
  EXPECT_EQ(add(Single{0x3f800000}, Single{1}, Rounding::kNearestEven, flags), 0x3f800000u);
  EXPECT_EQ(flags, kDivideByZero | kInexact);
}

TEST(SoftFloat, IgnoresAndKeepsTheHostState) {
  std::fesetround(FE_UPWARD);
  std::feclearexcept(FE_ALL_EXCEPT);
  Flags flags = 0;
  const Double one = 0x3ff0000000000000, three = 0x4008000000000000;
  const Double third = div(one, three, Rounding::kTowardZero, flags);
  const int raised = std::fetestexcept(FE_ALL_EXCEPT);
  const int mode = std::fegetround();
  std::fesetround(FE_TONEAREST);
  EXPECT_EQ(third, 0x3fd5555555555555u);
  EXPECT_EQ(flags, kInexact);
  EXPECT_EQ(raised, 0);
  EXPECT_EQ(mode, FE_UPWARD);
}

}  // namespace
}  // namespace doppel::softfloat
