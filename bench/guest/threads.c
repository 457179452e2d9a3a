// threads N : N threads, each doing the same integer work; prints how long all of them took.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void* work(void* result) {
  uint32_t table[1024] = {0}, random = 12345;
  for (int i = 0; i < 200000000; i++) {
    random = random * 1664525 + 1013904223;
    table[random >> 22] += random ^ table[i & 1023];
  }
  *(uint32_t*)result = table[7];
  return 0;
}

int main(int argc, char** argv) {
  pthread_t threads[16];
  uint32_t results[16];
  int count = argc > 1 ? atoi(argv[1]) : 1;
  if (count < 1 || count > 16) return 2;
  double begin = now();
  for (int i = 0; i < count; i++)
    if (pthread_create(&threads[i], 0, work, &results[i])) return 1;
  for (int i = 0; i < count; i++) pthread_join(threads[i], 0);
  printf("end threads%d %.4f\n", count, now() - begin);
  return 0;
}
