// What debug_test.py debugs: two threads that count, signals, a child, and an end by status.
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

volatile int counter, limit = 3, total, status = 5, handled;
atomic_int others;
atomic_bool done;

__attribute__((noinline)) int square(int n) { return n * n; }

__attribute__((noinline)) int sum(void) {
  for (int i = 1; i <= limit; ++i) {
    total += square(i);
    ++counter;
  }
  return total;
}

__attribute__((noinline)) void count(void) { ++others; }

static void* other(void* unused) {
  while (!done) count();
  return unused;
}

static void handler(int number) { handled = number; }

__attribute__((noinline)) void signals(void) {
  signal(SIGUSR1, handler);
  raise(SIGUSR1);
}

__attribute__((noinline)) void hit(int n) { others += n; }

static void* storm(void* unused) {
  for (int i = 0; i < 100; ++i) {
    hit(1);
    usleep(100);
  }
  return unused;
}

// SIGALRM comes so often; 0: no more.
static void ring_every(long microseconds) {
  const struct itimerval timer = {{0, microseconds}, {0, microseconds}};
  signal(SIGALRM, handler);
  setitimer(ITIMER_REAL, &timer, NULL);
}

// Threads, system calls and signals at once.
static int storms(void) {
  ring_every(2000);
  pthread_t threads[4];
  for (int i = 0; i < 4; ++i) pthread_create(&threads[i], NULL, storm, NULL);
  for (int i = 0; i < 4; ++i) pthread_join(threads[i], NULL);
  ring_every(0);
  return others == 400 && handled == SIGALRM ? 0 : 1;
}

static void* brief(void* unused) {
  hit(1);
  return unused;
}

static void* makes_threads(void* unused) {
  for (int i = 0; i < 50; ++i) {
    pthread_t thread;
    pthread_create(&thread, NULL, brief, NULL);
    pthread_join(thread, NULL);
  }
  return unused;
}

// Threads begin all the time, while others come to breakpoints and signals come to any.
static int crowd(void) {
  ring_every(1000);
  pthread_t threads[20];
  for (int i = 0; i < 20; ++i) pthread_create(&threads[i], NULL, makes_threads, NULL);
  for (int i = 0; i < 20; ++i) pthread_join(threads[i], NULL);
  ring_every(0);
  return others == 1000 ? 0 : 1;
}

__attribute__((noinline)) int in_child(void) { return square(6); }

static int child(void) {
  const pid_t forked = fork();
  if (forked == 0) _exit(in_child());
  int how = 0;
  waitpid(forked, &how, 0);
  return WIFEXITED(how) ? WEXITSTATUS(how) : -WTERMSIG(how);
}

extern char** environ;

static int spawned(void) {
  char* const words[] = {"/bin/true", NULL};
  pid_t id = 0;
  int how = 0;
  if (posix_spawn(&id, words[0], NULL, NULL, words, environ) != 0) return -1;
  waitpid(id, &how, 0);
  return WEXITSTATUS(how);
}

int main(int argc, char** argv) {
  const char* what = argc > 1 ? argv[1] : "";
  if (strcmp(what, "signals") == 0) signals();
  if (strcmp(what, "abort") == 0) abort();
  if (strcmp(what, "fault") == 0) *(volatile int*)16 = 1;
  if (strcmp(what, "child") == 0) return child();
  if (strcmp(what, "spawn") == 0) return spawned() + square(2);
  if (strcmp(what, "storm") == 0) return storms();
  if (strcmp(what, "crowd") == 0) return crowd();
  if (strcmp(what, "sleep") == 0) for (;;) pause();
  pthread_t thread;
  pthread_create(&thread, NULL, other, NULL);
  while (others == 0) continue;
  const int result = sum();
  done = true;
  pthread_join(thread, NULL);
  printf("%d\n", result);
  fflush(stdout);
  if (strcmp(what, "threads") == 0) pthread_exit(NULL);
  return status;
}
