// What a program with one thread asks of a process VM. Each line printed stands in run_test.py.
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "exit") == 0) return 42;
  if (argc > 1 && strcmp(argv[1], "fault") == 0) *(volatile int*)8 = 1;
  struct utsname name;
  uname(&name);
  struct stat status;
  printf("%s %d\n", name.machine, stat("/", &status) == 0 && S_ISDIR(status.st_mode));
  char* block = malloc(1 << 22);
  memset(block, 7, 1 << 22);
  block = realloc(block, 1 << 24);
  printf("realloc %d\n", block[(1 << 22) - 1]);
  char* page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  page[0] = 3;
  printf("mmap %d %d\n", page[0], munmap(page, 4096));
  printf("bad pointer %d\n", write(1, (void*)16, 1) < 0 && errno == EFAULT);
  double sum = 0;
  for (int i = 1; i < 1000; ++i) sum += 1.0 / i;
  printf("sum %.12f\n", sum);
  fflush(stdout);
  int result = 0;
  const pid_t child = fork();
  if (child == 0) {
    execl(argv[0], argv[0], "exit", (char*)0);
    _exit(1);
  }
  waitpid(child, &result, 0);
  printf("child %d\n", WEXITSTATUS(result));
  return 7;
}
