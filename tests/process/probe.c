// What riscv64's programs ask the machine, of the vDSO as of the system call: prints whether both answer alike. With an
// argument only the vDSO is asked, and what of it the system call has to answer is for the caller to count.
#define _GNU_SOURCE
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { kProbe = 258, kKeys = 10, kPairs = 24 };

struct pair {
  long long key;
  unsigned long long value;
};
typedef long probe(struct pair*, size_t, size_t, unsigned long*, unsigned);

static probe* find(const char* name) {
  const char* base = (const char*)getauxval(AT_SYSINFO_EHDR);
  const Elf64_Ehdr* header = (const Elf64_Ehdr*)base;
  const Elf64_Phdr* segments = (const Elf64_Phdr*)(base + header->e_phoff);
  const Elf64_Dyn* dynamic = 0;
  for (int i = 0; i < header->e_phnum; ++i)
    if (segments[i].p_type == PT_DYNAMIC) dynamic = (const Elf64_Dyn*)(base + segments[i].p_vaddr);
  const Elf64_Sym* symbols = 0;
  const char* texts = 0;
  const unsigned* hash = 0;
  for (; dynamic->d_tag != DT_NULL; ++dynamic) {
    const char* at = base + dynamic->d_un.d_ptr;
    if (dynamic->d_tag == DT_SYMTAB) symbols = (const Elf64_Sym*)at;
    if (dynamic->d_tag == DT_STRTAB) texts = at;
    if (dynamic->d_tag == DT_HASH) hash = (const unsigned*)at;
  }
  for (unsigned i = 1; i < hash[1]; ++i)
    if (strcmp(texts + symbols[i].st_name, name) == 0) return (probe*)(base + symbols[i].st_value);
  return 0;
}

static long by_kernel(struct pair* pairs, size_t count, size_t bytes, unsigned long* cpus, unsigned flags) {
  return syscall(kProbe, pairs, count, bytes, cpus, flags);
}

static int alike(probe* vdso, long long first, size_t count, size_t bytes, unsigned flags) {
  struct pair a[kPairs], b[kPairs];
  unsigned long of_a[16] = {1}, of_b[16] = {1};
  for (size_t i = 0; i < kPairs; ++i) a[i] = b[i] = (struct pair){first + (long long)i, i};
  const long ours = vdso(a, count, bytes, bytes != 0 ? of_a : 0, flags);
  const long theirs = by_kernel(b, count, bytes, bytes != 0 ? of_b : 0, flags);
  return (ours == 0) == (theirs == 0) && memcmp(a, b, sizeof a) == 0 && memcmp(of_a, of_b, sizeof of_a) == 0;
}

int main(int argc, char** argv) {
  (void)argv;
  probe* vdso = find("__vdso_riscv_hwprobe");
  printf("found %d\n", vdso != 0);
  if (vdso == 0) return 1;
  if (argc > 1) {
    struct pair pairs[kKeys];
    for (long long i = 0; i < kKeys; ++i) pairs[i] = (struct pair){i, 0};
    return vdso(pairs, kKeys, 0, 0, 0) != 0 || vdso(pairs, 0, 0, 0, 0) != 0;
  }
  printf("none %d\n", alike(vdso, 0, 0, 0, 0));
  int each = 1;
  for (long long key = -2; key < 40; ++key) each &= alike(vdso, key, 1, 0, 0);
  printf("each %d\n", each);
  printf("all %d, with keys that are none %d\n", alike(vdso, 0, kKeys, 0, 0), alike(vdso, -4, kPairs, 0, 0));
  printf("of processors %d, which %d\n", alike(vdso, 0, kKeys, sizeof(long), 0), alike(vdso, 0, 3, sizeof(long), 1));
  printf("no such flag %d\n", alike(vdso, 0, 1, 0, 2));
  struct pair base = {3, 0};
  printf("base %d, %llu\n", vdso(&base, 1, 0, 0, 0) == 0, base.value);
  return 0;
}
