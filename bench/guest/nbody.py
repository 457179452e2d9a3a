# Five bodies under gravity, in doubles.
import math

bodies = [[i * 1.7 + k * 0.3 for k in range(3)] + [(i - k) * 0.01 for k in range(3)] + [1.0 / (i + 1)] for i in range(5)]
pairs = [(bodies[i], bodies[j]) for i in range(5) for j in range(i + 1, 5)]
for step in range(20000):
    for a, b in pairs:
        x, y, z = a[0] - b[0], a[1] - b[1], a[2] - b[2]
        square = x * x + y * y + z * z + 0.01
        force = 0.001 / (square * math.sqrt(square))
        for k, d in enumerate((x, y, z)):
            a[k + 3] -= d * b[6] * force
            b[k + 3] += d * a[6] * force
    for body in bodies:
        for k in range(3):
            body[k] += 0.001 * body[k + 3]
print(" ".join(f"{v:.9f}" for v in bodies[0]))
