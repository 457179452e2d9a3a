"""Writes a C file of 2,800 lines for the compiler to chew on; always the same one."""

import random
import sys

LINES = 2800
OPERATORS = ["+", "-", "*", "^", "&", "|"]


def expression(rng: random.Random, depth: int) -> str:
    if depth == 0:
        return rng.choice(["a", "b", "c", "d", "x[i & 15]", "y[(i + 3) & 15]", str(rng.randrange(1, 1000))])
    return f"({expression(rng, depth - 1)} {rng.choice(OPERATORS)} {expression(rng, depth - 1)})"


def function(rng: random.Random, number: int) -> list[str]:
    lines = [
        f"unsigned long f{number}(unsigned long *x, unsigned long *y, unsigned long a, unsigned long b) {{",
        "  unsigned long c = a ^ b, d = a + b, i = 0;",
        f"  for (i = 0; i < {rng.randrange(8, 64)}; i++) {{",
    ]
    for _ in range(rng.randrange(6, 12)):
        lines.append(f"    {rng.choice('abcd')} += {expression(rng, 5)};")
        if rng.random() < 0.4:
            lines.append(f"    if ({expression(rng, 2)} < {expression(rng, 2)}) {rng.choice('abcd')} ^= {expression(rng, 2)};")
    lines.append("    switch (c & 7) {")
    for case in range(5):
        lines.append(f"      case {case}: d = {expression(rng, 3)}; break;")
    lines += ["      default: x[i & 15] = d, y[d & 15] = c;", "    }", "  }"]
    if number:
        lines.append(f"  a += f{rng.randrange(number)}(y, x, c, d);")
    lines += ["  return a + b + c + d;", "}"]
    return lines


def main() -> None:
    rng = random.Random(1)
    lines, number = [], 0
    while len(lines) < LINES - 8:
        body = function(rng, number)
        if len(lines) + len(body) > LINES - 3:
            break
        lines += body
        number += 1
    lines.append("unsigned long entry(unsigned long *x, unsigned long *y, unsigned long a) {")
    lines.append(f"  return f{number - 1}(x, y, a, 1) + f{number // 2}(y, x, 2, a);")
    lines.append("}")
    lines += [f"// {i}" for i in range(LINES - len(lines))]
    sys.stdout.write("\n".join(lines) + "\n")


main()
