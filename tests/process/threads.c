// Threads: every line printed is the same on any Linux. Compiled for the host, this is its own oracle.
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static long counter;
static atomic_long atomic_counter;
static __thread int own = 5;

static void* count(void* argument) {
  own += (int)(intptr_t)argument;
  for (int i = 0; i < 20000; ++i) {
    pthread_mutex_lock(&mutex);
    ++counter;
    pthread_mutex_unlock(&mutex);
    atomic_fetch_add(&atomic_counter, 1);
  }
  return (void*)(intptr_t)own;
}

static void counters(void) {
  pthread_t threads[4];
  long sum = 0;
  for (intptr_t i = 0; i < 4; ++i) pthread_create(&threads[i], 0, count, (void*)i);
  for (int i = 0; i < 4; ++i) {
    void* result;
    pthread_join(threads[i], &result);
    sum += (intptr_t)result;
  }
  printf("counters %ld %ld, thread-local sum %ld, mine %d\n", counter, atomic_load(&atomic_counter), sum, own);
}

static int turn;
static void* player(void* argument) {
  const int self = (int)(intptr_t)argument;
  for (int i = 0; i < 500; ++i) {
    pthread_mutex_lock(&mutex);
    while (turn != self) pthread_cond_wait(&condition, &mutex);
    turn = !self;
    pthread_cond_broadcast(&condition);
    pthread_mutex_unlock(&mutex);
  }
  return 0;
}

static void ping_pong(void) {
  pthread_t a, b;
  pthread_create(&a, 0, player, (void*)0);
  pthread_create(&b, 0, player, (void*)1);
  pthread_join(a, 0);
  pthread_join(b, 0);
  printf("ping-pong ends at %d\n", turn);
}

static void* nothing(void* argument) { return argument; }

static void many(void) {
  int failed = 0;
  for (int i = 0; i < 300; ++i) {
    pthread_t thread;
    if (pthread_create(&thread, 0, nothing, 0) != 0 || pthread_join(thread, 0) != 0) ++failed;
  }
  printf("300 threads, %d failed\n", failed);
}

static void* ids(void* argument) {
  pid_t* result = argument;
  result[0] = getpid();
  result[1] = gettid();
  return 0;
}

static void identity(void) {
  pid_t other[2];
  pthread_t thread;
  pthread_create(&thread, 0, ids, other);
  pthread_join(thread, 0);
  printf("same process %d, other thread %d, first is leader %d\n", other[0] == getpid(), other[1] != gettid(),
         getpid() == gettid());
}

static atomic_int handled_by;
static void handler(int number) { atomic_store(&handled_by, gettid()); (void)number; }
static atomic_int waiting_tid;
static void* spin(void* argument) {
  atomic_store(&waiting_tid, gettid());
  while (atomic_load(&handled_by) == 0) {}
  return argument;
}

static void directed(void) {
  struct sigaction action = {.sa_handler = handler};
  sigaction(SIGUSR1, &action, 0);
  pthread_t thread;
  pthread_create(&thread, 0, spin, 0);
  while (atomic_load(&waiting_tid) == 0) sched_yield();
  pthread_kill(thread, SIGUSR1);
  pthread_join(thread, 0);
  printf("handled by the thread it was sent to %d\n", atomic_load(&handled_by) == atomic_load(&waiting_tid));
}

static void* cancelled(void* argument) {
  for (;;) pause();
  return argument;
}

static void* cancelled_busy(void* argument) {
  pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, 0);
  atomic_store((atomic_int*)argument, 1);
  for (;;) {}
}

static void cancel(void) {
  pthread_t thread;
  void* result = 0;
  pthread_create(&thread, 0, cancelled, 0);
  pthread_cancel(thread);
  pthread_join(thread, &result);
  printf("cancelled %d\n", result == PTHREAD_CANCELED);
  atomic_int ready = 0;
  pthread_create(&thread, 0, cancelled_busy, &ready);
  while (!atomic_load(&ready)) sched_yield();
  pthread_cancel(thread);
  pthread_join(thread, &result);
  printf("cancelled while busy %d\n", result == PTHREAD_CANCELED);
}

static void* die_holding(void* argument) {
  pthread_mutex_lock(argument);
  return 0;
}

static void robust(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_t lock;
  pthread_mutex_init(&lock, &attributes);
  pthread_t thread;
  pthread_create(&thread, 0, die_holding, &lock);
  pthread_join(thread, 0);
  const int first = pthread_mutex_lock(&lock);
  printf("robust: owner died %d, consistent %d", first == EOWNERDEAD, pthread_mutex_consistent(&lock));
  pthread_mutex_unlock(&lock);
  printf(", again %d\n", pthread_mutex_lock(&lock));

  // The same between processes.
  pthread_mutex_t* shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutex_init(shared, &attributes);
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    pthread_mutex_lock(shared);
    _exit(0);
  }
  waitpid(child, 0, 0);
  printf("robust between processes %d\n", pthread_mutex_lock(shared) == EOWNERDEAD);
}

static void inherit_priority(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
  pthread_mutex_init(&mutex, &attributes);
  counter = 0;
  pthread_t threads[2];
  for (int i = 0; i < 2; ++i) pthread_create(&threads[i], 0, count, 0);
  for (int i = 0; i < 2; ++i) pthread_join(threads[i], 0);
  printf("priority inheritance %ld\n", counter);
}

static void shared_futex(void) {
  sem_t* semaphores = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  sem_init(&semaphores[0], 1, 0);
  sem_init(&semaphores[1], 1, 0);
  fflush(stdout);
  const pid_t child = fork();
  for (int i = 0; i < 200; ++i) {
    sem_post(&semaphores[child != 0]);
    sem_wait(&semaphores[child == 0]);
  }
  if (child == 0) _exit(9);
  int status;
  waitpid(child, &status, 0);
  printf("shared semaphores, child %d\n", WEXITSTATUS(status));
}

static void times_out(void) {
  int word = 0;
  struct timespec limit = {0, 2000000};
  const long r = syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &limit, 0, 0);
  printf("futex times out %d", r < 0 && errno == ETIMEDOUT);
  printf(", differs %d", syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, 0, 0, 0) < 0 && errno == EAGAIN);
  printf(", bad address %d\n", syscall(SYS_futex, (void*)64, FUTEX_WAIT, 1, 0, 0, 0) < 0 && errno == EFAULT);
}

static void* fork_in_thread(void* argument) {
  const pid_t child = fork();
  if (child == 0) {
    pthread_t thread;
    void* result = 0;
    pthread_create(&thread, 0, nothing, (void*)3);
    pthread_join(thread, &result);
    _exit((int)(intptr_t)result + (gettid() == getpid()));
  }
  int status;
  waitpid(child, &status, 0);
  *(int*)argument = WEXITSTATUS(status);
  return 0;
}

static void fork_from_thread(void) {
  int status = 0;
  fflush(stdout);
  pthread_t thread;
  pthread_create(&thread, 0, fork_in_thread, &status);
  pthread_join(thread, 0);
  printf("fork in a thread, child %d\n", status);
}

static void* exit_process(void* argument) {
  usleep(1000);
  exit(*(int*)argument);
}

static void* late(void* argument) {
  // The status is of whoever ends last, which takes the leader as long as it takes.
  for (char state = 0; state != 'Z';) {
    usleep(1000);
    FILE* stat = fopen("/proc/self/stat", "r");
    fscanf(stat, "%*d (%*[^)]) %c", &state);
    fclose(stat);
  }
  printf("the last thread\n");
  fflush(stdout);
  syscall(SYS_exit, 0);
  return argument;
}

static void ends(void) {
  int status;
  fflush(stdout);
  if (fork() == 0) {
    int code = 23;
    pthread_t thread;
    pthread_create(&thread, 0, exit_process, &code);
    for (;;) pause();
  }
  wait(&status);
  printf("a thread ends the process: %d\n", WEXITSTATUS(status));
  fflush(stdout);
  if (fork() == 0) {
    pthread_t thread;
    pthread_create(&thread, 0, late, 0);
    syscall(SYS_exit, 31);
  }
  wait(&status);
  printf("the status when the leader ends first: %d\n", WEXITSTATUS(status));
}

// Each thread has to change its own, for which the C library sends it a signal of its own.
static void* groups(void* argument) {
  sem_post(&((sem_t*)argument)[0]);
  sem_wait(&((sem_t*)argument)[1]);
  return (void*)(intptr_t)getegid();
}

static void set_ids(void) {
  sem_t semaphores[2];
  sem_init(&semaphores[0], 0, 0);
  sem_init(&semaphores[1], 0, 0);
  pthread_t thread;
  void* result;
  pthread_create(&thread, 0, groups, semaphores);
  sem_wait(&semaphores[0]);
  const int failed = setegid(getegid());
  sem_post(&semaphores[1]);
  pthread_join(thread, &result);
  printf("group set %d, of the thread %d\n", failed, (intptr_t)result == getegid());
}

static volatile int flag;
static void* toggle(void* argument) {
  flag = 1;
  return argument;
}

// Code that one thread writes and another runs.
static void clear_cache_elsewhere(void) {
  pthread_t thread;
  pthread_create(&thread, 0, toggle, 0);
  while (!flag) {}
  pthread_join(thread, 0);
  printf("a plain store is seen %d\n", flag);
}

int main(void) {
  counters();
  ping_pong();
  many();
  identity();
  directed();
  cancel();
  robust();
  inherit_priority();
  shared_futex();
  times_out();
  fork_from_thread();
  ends();
  set_ids();
  clear_cache_elsewhere();
  return 0;
}
