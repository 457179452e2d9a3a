// cost RESULT ROOT COUNT COMMAND... : runs COMMAND COUNT times, one after another, with ROOT as its / unless that is
// "-", and writes the CPU seconds and the seconds that one took to the file RESULT. Ends with the status of the first
// that failed. A small program, so that starting one costs next to nothing; standard input is read anew each time.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds(struct timeval t) { return (double)t.tv_sec + (double)t.tv_usec * 1e-6; }

int main(int argc, char** argv) {
  if (argc < 5) return 125;
  FILE* result = fopen(argv[1], "we");
  if (!result) return 125;
  if (strcmp(argv[2], "-") && (chroot(argv[2]) || chdir("/"))) return 125;
  int count = atoi(argv[3]);
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int i = 0; i < count; i++) {
    lseek(0, 0, SEEK_SET);
    pid_t child = vfork();
    if (child == 0) {
      execv(argv[4], argv + 4);
      _exit(127);
    }
    int status;
    if (waitpid(child, &status, 0) < 0) return 125;
    if (status) return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  struct rusage usage;
  getrusage(RUSAGE_CHILDREN, &usage);
  fprintf(result, "%.6f %.6f\n", (seconds(usage.ru_utime) + seconds(usage.ru_stime)) / count,
          ((double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9) / count);
  return fclose(result) ? 125 : 0;
}
