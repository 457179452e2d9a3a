// Runs under qemu-riscv64 as an oracle: reads jobs from stdin, each an image of the data area followed by
// code, calls the code and writes the data area back. The code saves and restores what C needs.
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

struct Header { uint64_t code, code_bytes, data, data_bytes; };

static void* map(uint64_t address, uint64_t bytes) {
  return mmap((void*)address, bytes + 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

int main(void) {
  struct Header header;
  void *code = NULL, *data = NULL;
  while (fread(&header, sizeof header, 1, stdin) == 1) {
    if (code == NULL) {
      code = map(header.code, 1 << 16);
      data = map(header.data, header.data_bytes);
      if (code == MAP_FAILED || data == MAP_FAILED) return 1;
    }
    if (fread(data, header.data_bytes, 1, stdin) != 1 || fread(code, header.code_bytes, 1, stdin) != 1) return 1;
    __asm__ volatile("fence.i" ::: "memory");
    ((void (*)(void))code)();
    if (fwrite(data, header.data_bytes, 1, stdout) != 1) return 1;
    fflush(stdout);  // a program that crashes must not take earlier results along
  }
  return 0;
}
