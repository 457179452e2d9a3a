// What programs get of an address space that is larger than Sv39's (`--address-bits`): each line is what it should be.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char* what, long result) {
  printf("%s %ld%s%s\n", what, result, result < 0 ? " " : "", result < 0 ? strerrorname_np(errno) : "");
}

enum { kPage = 4096 };
#define LOW (1ul << 38)
#define PLAIN (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

static char* map(unsigned long at, unsigned long bytes, int protection, int flags) {
  return mmap((void*)at, bytes, protection, PLAIN | flags, -1, 0);
}

int main(int count, char** arguments) {
  const int larger = count > 1;
  const int both = PROT_READ | PROT_WRITE;
  char* const usual = map(0, kPage, both, 0);
  say("low by default", (unsigned long)usual < LOW);
  char* const hinted = map(1ul << 40, kPage, both, 0);
  say("hint", larger ? hinted == (char*)(1ul << 40) : (unsigned long)hinted < LOW);
  char* const fixed = map(1ul << 41, 4 * kPage, both, MAP_FIXED);
  if (!larger) {
    say("fixed", (long)fixed);
    return 0;
  }
  say("fixed", fixed == (char*)(1ul << 41));
  strcpy(fixed + kPage, "far away");
  say("again", map(1ul << 41, kPage, both, MAP_FIXED) == fixed);
  say("not again", (long)map(1ul << 41, kPage, both, MAP_FIXED_NOREPLACE));
  say("across both", map((1ul << 41) + 2 * kPage, 8 * kPage, PROT_READ, MAP_FIXED) == fixed + 2 * kPage);
  printf("%s\n", fixed + kPage);
  // More than Sv39 has.
  char* const vast = map(0, 1ul << 40, both, 0);
  say("vast", vast != MAP_FAILED);
  vast[1ul << 39] = 5;
  say("stays", vast[1ul << 39]);
  say("unmap", munmap(vast + (1ul << 39), 1ul << 39));
  say("protect what is not there", mprotect(vast + (1ul << 39), kPage, both));
  char* const moved = mremap(fixed, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, (void*)(3ul << 41));
  printf("%d %s\n", moved == (char*)(3ul << 41), moved + kPage);
  char* const grown = mremap(moved, 2 * kPage, 64 * kPage, MREMAP_MAYMOVE);
  printf("%s\n", grown + kPage);
  // Calls, with what is there and what is not.
  int ends[2];
  pipe(ends);
  say("write", write(ends[1], grown + kPage, 8));
  say("read", read(ends[0], hinted, 8));
  printf("%.8s\n", hinted);
  say("write from nowhere", write(ends[1], (void*)(1ul << 42), 8));
  // Where Doppel itself is, most likely.
  for (unsigned long at = 0x555555554000; at < 0x7ffffffff000; at += 1ul << 36) {
    if (at + (64ul << 20) > (unsigned long)vast && at < (unsigned long)vast + (1ul << 40)) continue;
    if (write(ends[1], (void*)at, 1) != -1 || errno != EFAULT) printf("%lx can be read\n", at);
    if (map(at, 64ul << 20, both, MAP_FIXED) != MAP_FAILED && munmap((void*)at, 64ul << 20) != 0) printf("%lx stays\n", at);
  }
  say("the very end", (long)map((1ul << 47) - kPage, 2 * kPage, both, MAP_FIXED));
  // Code.
  unsigned* const code = (unsigned*)map(5ul << 40, kPage, both | PROT_EXEC, MAP_FIXED);
  code[0] = 0x02a00513;  // li a0, 42
  code[1] = 0x00008067;  // ret
  __builtin___clear_cache((char*)code, (char*)(code + 2));
  int sum = 0;
  for (int i = 0; i < 1000; ++i) sum += ((int (*)(void))code)();
  say("code", sum);
  code[0] = 0x00700513;  // li a0, 7
  __builtin___clear_cache((char*)code, (char*)(code + 2));
  say("changed", ((int (*)(void))code)());
  char line[512];
  FILE* const maps = fopen("/proc/self/maps", "r");
  unsigned long start, end, highest = 0;
  int seen = 0;
  while (fgets(line, sizeof line, maps)) {
    sscanf(line, "%lx-%lx", &start, &end);
    if (start < highest) puts("not in order");
    highest = end;
    if (start == 5ul << 40 && strstr(line, " rwxp ")) ++seen;
    if (strstr(line, "doppel")) puts(line);
  }
  fclose(maps);
  say("maps", seen);
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) _exit(((int (*)(void))code)() + (strcmp(grown + kPage, "far away") == 0));
  int status;
  waitpid(child, &status, 0);
  say("child", WEXITSTATUS(status));
  fflush(stdout);
  if (count == 2) execl(arguments[0], arguments[0], "again", "once", NULL);
  return 0;
}
