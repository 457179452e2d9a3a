// Clocks: every line printed is the same on any Linux. Compiled for the host, this is its own oracle. The vDSO's clocks are
// between two that the kernel shows.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long nanoseconds(struct timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }

static long long asked(clockid_t id) {
  struct timespec now;
  syscall(SYS_clock_gettime, id, &now);
  return nanoseconds(now);
}

static long long read_clock(clockid_t id) {
  struct timespec now;
  clock_gettime(id, &now);
  return nanoseconds(now);
}

static int agrees(clockid_t id) {
  // Another clock's offset is measured, and ticks are coarse.
  const long long kNear = 5000;
  for (int i = 0; i < 1000; ++i) {
    const long long before = asked(id), now = read_clock(id), after = asked(id);
    if (now < before - kNear || now > after + kNear) return 0;
  }
  return 1;
}

int main(int argc, char** argv) {
  if (argc > 1) {  // how many system calls it takes is for the caller to count
    for (int i = 0; i < 20000; ++i) read_clock(CLOCK_MONOTONIC);
    return 0;
  }
  const Elf64_Ehdr* vdso = (const Elf64_Ehdr*)getauxval(AT_SYSINFO_EHDR);
  printf("a vDSO %d, shared object %d\n", memcmp(vdso->e_ident, ELFMAG, SELFMAG) == 0, vdso->e_type == ET_DYN);
  printf("real %d, monotonic %d, boot %d\n", agrees(CLOCK_REALTIME), agrees(CLOCK_MONOTONIC), agrees(CLOCK_BOOTTIME));
  printf("of the process %d\n", read_clock(CLOCK_PROCESS_CPUTIME_ID) > 0);
  struct timespec now;
  printf("no such clock %d\n", clock_gettime(99, &now) < 0 && errno == EINVAL);
  printf("resolution %d\n", clock_getres(CLOCK_MONOTONIC, &now) == 0 && now.tv_sec == 0);
  int back = 0;
  for (long long last = 0, i = 0; i < 100000; ++i) {
    const long long next = read_clock(CLOCK_MONOTONIC);
    back += next < last;
    last = next;
  }
  printf("never back %d\n", back == 0);
  struct timeval day;
  gettimeofday(&day, 0);
  const long long apart = asked(CLOCK_REALTIME) / 1000 - (day.tv_sec * 1000000LL + day.tv_usec);
  printf("gettimeofday %d, time %d\n", apart > -10 && apart < 1000000, time(0) - day.tv_sec <= 1);
  const long long start = read_clock(CLOCK_MONOTONIC);
  const struct timespec a_while = {0, 20000000};
  nanosleep(&a_while, 0);
  printf("slept long enough %d\n", read_clock(CLOCK_MONOTONIC) - start >= 20000000);
  unsigned cpu, node;
  printf("getcpu %d\n", getcpu(&cpu, &node));
  fflush(stdout);
  if (fork() == 0) _exit(agrees(CLOCK_REALTIME) && agrees(CLOCK_MONOTONIC));
  int status;
  wait(&status);
  printf("in a child %d\n", WEXITSTATUS(status));
  return 0;
}
