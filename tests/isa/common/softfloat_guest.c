// Runs under qemu-riscv64 as an oracle: reads batches from stdin, each one instruction word, a count and
// that many operand triples, executes the word on fa0, fa1, fa2 and a0 (= the first operand's bits), and
// writes fa0, a0 and fflags for each triple.
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

struct Batch { uint32_t word, count; };
struct Operands { uint64_t a, b, c; };
struct Results { uint64_t f, x, flags; };

static struct Results execute(const uint32_t* code, struct Operands in) {
  struct Results out;
  register uint64_t a0 __asm__("a0") = in.a;
  __asm__ volatile(
      "fmv.d.x fa0, %[a]\n fmv.d.x fa1, %[b]\n fmv.d.x fa2, %[c]\n"
      "fsflags zero\n jalr %[code]\n frflags %[flags]\n fmv.x.d %[f], fa0"
      : "+r"(a0), [f] "=&r"(out.f), [flags] "=&r"(out.flags)
      : [a] "r"(in.a), [b] "r"(in.b), [c] "r"(in.c), [code] "r"(code)
      : "ra", "fa0", "fa1", "fa2", "memory");
  out.x = a0;
  return out;
}

int main(void) {
  uint32_t* code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (code == MAP_FAILED) return 1;
  struct Batch batch;
  while (fread(&batch, sizeof batch, 1, stdin) == 1) {
    code[0] = batch.word;
    code[1] = 0x00008067;  // ret
    __asm__ volatile("fence.i" ::: "memory");
    for (uint32_t i = 0; i < batch.count; ++i) {
      struct Operands in;
      if (fread(&in, sizeof in, 1, stdin) != 1) return 1;
      const struct Results out = execute(code, in);
      if (fwrite(&out, sizeof out, 1, stdout) != 1) return 1;
    }
  }
  return fflush(stdout) != 0;
}
