// timed NAME COPIES COMMAND...: runs so many copies of COMMAND at once, and says when the first begins and, by this
// machine's clock, how long it took until the last has ended. The harness holds that against its own clock.
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  printf("begin %s\n", argv[1]), fflush(stdout);
  double begin = now();
  for (int i = 0; i < atoi(argv[2]); i++) {
    if (fork() == 0) {
      execvp(argv[3], argv + 3);
      _exit(127);
    }
  }
  int failed = 0, status;
  while (wait(&status) > 0) failed |= status != 0;
  printf("%s %s %.4f\n", failed ? "failed" : "end", argv[1], now() - begin), fflush(stdout);
  return failed;
}
