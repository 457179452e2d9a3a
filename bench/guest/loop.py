# loop.py [TIMES] : a loop as people write it: integers, a list, a dictionary, a call.
import sys


def step(value, index):
    return (value * 31 + index) % 1000003


value, counts, recent = 1, {}, [0] * 16
for index in range(200000 * int(sys.argv[1] if len(sys.argv) > 1 else 1)):
    value = step(value, index)
    counts[value & 255] = counts.get(value & 255, 0) + 1
    recent[index & 15] = value
print(value, len(counts), sum(recent))
