// Small programs in one, for the bench harness: each kernel does fixed work and prints its name and the seconds
// that it took. Built static for the guest and for the host from this same file.
#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;  // keeps results alive

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// Five bodies under gravity, in doubles: fused arithmetic, division, square root.
static void nbody(void) {
  enum { kBodies = 5 };
  double p[kBodies][3], v[kBodies][3], m[kBodies];
  for (int i = 0; i < kBodies; i++) {
    m[i] = 1.0 / (i + 1);
    for (int k = 0; k < 3; k++) p[i][k] = i * 1.7 + k * 0.3, v[i][k] = (i - k) * 0.01;
  }
  for (int step = 0; step < 1500000; step++) {
    for (int i = 0; i < kBodies; i++) {
      for (int j = i + 1; j < kBodies; j++) {
        double d[3], square = 0.01;
        for (int k = 0; k < 3; k++) d[k] = p[i][k] - p[j][k], square += d[k] * d[k];
        double f = 0.001 / (square * sqrt(square));
        for (int k = 0; k < 3; k++) v[i][k] -= d[k] * m[j] * f, v[j][k] += d[k] * m[i] * f;
      }
    }
    for (int i = 0; i < kBodies; i++)
      for (int k = 0; k < 3; k++) p[i][k] += 0.001 * v[i][k];
  }
  sink = (uint64_t)(p[0][0] * 1e6);
}

// Streams: copies and sums over 32 MiB.
static void stream(void) {
  enum { kWords = 4 << 20 };
  uint64_t* a = malloc(kWords * 8);
  uint64_t* b = malloc(kWords * 8);
  for (int i = 0; i < kWords; i++) a[i] = (uint64_t)i;
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < kWords; i++) b[i] = a[i] * 3 + 1;
    for (int i = 0; i < kWords; i++) a[i] += b[i];
  }
  sink = a[12345];
  free(a), free(b);
}

// Chases pointers through 64 MiB in random order: one dependent miss after another.
static void chase(void) {
  enum { kNodes = 1 << 20 };
  struct node { struct node* next; char rest[56]; };
  struct node* nodes = malloc(sizeof(struct node) * kNodes);
  uint32_t* order = malloc(4 * kNodes);
  for (uint32_t i = 0; i < kNodes; i++) order[i] = i;
  uint64_t random = 88172645463325252u;
  for (uint32_t i = kNodes - 1; i > 0; i--) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    uint32_t j = (uint32_t)(random % (i + 1)), t = order[i];
    order[i] = order[j], order[j] = t;
  }
  for (uint32_t i = 0; i < kNodes; i++) nodes[order[i]].next = &nodes[order[(i + 1) % kNodes]];
  struct node* at = nodes;
  for (int i = 0; i < 8 << 20; i++) at = at->next;
  sink = (uint64_t)(uintptr_t)at;
  free(nodes), free(order);
}

// Sieve, sort and hash: integer work with branches.
static void integer(void) {
  enum { kSize = 200000 };
  static uint32_t v[kSize];
  for (int round = 0; round < 20; round++) {
    uint32_t random = 12345 + (uint32_t)round;
    for (int i = 0; i < kSize; i++) random = random * 1664525 + 1013904223, v[i] = random;
    for (int gap = kSize / 2; gap > 0; gap /= 2)
      for (int i = gap; i < kSize; i++) {
        uint32_t x = v[i];
        int j = i;
        for (; j >= gap && v[j - gap] > x; j -= gap) v[j] = v[j - gap];
        v[j] = x;
      }
    for (int i = 0; i < kSize; i++) sink = sink * 31 + v[i];
  }
}

static void fork_exec(void) {
  for (int i = 0; i < 300; i++) {
    pid_t child = fork();
    if (child == 0) {
      execl("/proc/self/exe", "kernels", "nothing", (char*)0);
      _exit(127);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status) exit(1);
  }
}

static void ping_pong(void) {
  int there[2], back[2];
  if (pipe(there) || pipe(back)) exit(1);
  char byte = 1;
  if (fork() == 0) {
    while (read(there[0], &byte, 1) == 1 && byte) if (write(back[1], &byte, 1) != 1) break;
    _exit(0);
  }
  for (int i = 0; i < 20000; i++) {
    if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) exit(1);
  }
  byte = 0;
  if (write(there[1], &byte, 1) != 1) exit(1);
  wait(0);
}

static void system_call(void) {
  for (int i = 0; i < 2000000; i++) sink = (uint64_t)syscall(SYS_getppid);
}

static void map_touch(void) {
  for (int i = 0; i < 200; i++) {
    char* p = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int at = 0; at < 1 << 20; at += 4096) p[at] = 1;
    munmap(p, 1 << 20);
  }
}

// Calls through a table: indirect jumps and returns.
static uint64_t f0(uint64_t x) { return x + 1; }
static uint64_t f1(uint64_t x) { return x ^ 0x55; }
static uint64_t f2(uint64_t x) { return x * 3; }
static uint64_t f3(uint64_t x) { return x - (x >> 3); }
static uint64_t (*volatile table[4])(uint64_t) = {f0, f1, f2, f3};
static void indirect(void) {
  uint64_t x = 1;
  for (int i = 0; i < 40000000; i++) x = table[(x >> 2 ^ (uint64_t)i) & 3](x);
  sink = x;
}

static void nothing(void) {}

static const struct {
  const char* name;
  void (*run)(void);
} kKernels[] = {{"nbody", nbody},     {"stream", stream},         {"chase", chase},         {"integer", integer},
                {"indirect", indirect}, {"fork_exec", fork_exec}, {"ping_pong", ping_pong}, {"system_call", system_call},
                {"map_touch", map_touch}, {"nothing", nothing}};

int main(int argc, char** argv) {
  for (unsigned i = 0; i < sizeof kKernels / sizeof *kKernels; i++) {
    int wanted = argc == 1 && kKernels[i].run != nothing;
    for (int a = 1; a < argc; a++) wanted |= !strcmp(argv[a], kKernels[i].name);
    if (!wanted) continue;
    double begin = now();
    kKernels[i].run();
    if (kKernels[i].run != nothing) printf("kernel %s %.4f\n", kKernels[i].name, now() - begin), fflush(stdout);
  }
  return 0;
}
