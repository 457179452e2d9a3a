// What gdb_test.py debugs: bare metal, in machine mode. Hart 0 works; the others count.
typedef unsigned long u64;

volatile u64 counter, limit = 10, total, others;
volatile double ratio = 1.5;
volatile unsigned ending;  // what to end with, in place of finish()'s code
char stacks[2 * 4096] __attribute__((aligned(16)));

__attribute__((noinline)) u64 square(u64 n) {
  return n * n;
}

__attribute__((noinline)) void sum(void) {
  for (u64 i = 1; i <= limit; ++i) {
    counter = i;
    total += square(i);
  }
}

__attribute__((noinline)) void finish(unsigned code) {
  *(volatile unsigned*)0x100000 = ending != 0 ? ending : code << 16 | (code != 0 ? 0x3333 : 0x5555);
  for (;;) __asm__("wfi");
}

void work(void) {
  sum();
  ratio = ratio * 2;
  finish(total == 385 ? 0 : 1);
}

void count(void) {
  for (;;) ++others;
}

__asm__(
    ".text\n"
    ".global _start\n"
    "_start:\n"
    "  li t0, 1 << 13\n"  // mstatus.FS
    "  csrs mstatus, t0\n"
    "  csrr t0, mhartid\n"
    "  la sp, stacks + 4096\n"
    "  slli t1, t0, 12\n"
    "  add sp, sp, t1\n"
    "  bnez t0, count\n"
    "  j work\n");
