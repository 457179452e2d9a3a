// Signals: every line printed is the same on any Linux. Compiled for the host, this is its own oracle.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t seen, depth, deepest, last_value, last_code;
static char order[64];

static void simple(int number) {
  ++seen;
  if (strlen(order) < 8) order[strlen(order)] = (char)('A' + number % 26);
}

static void nested(int number) {
  if (++depth > deepest) deepest = depth;
  if (number == SIGUSR1) raise(SIGUSR2);
  --depth;
}

static void queued(int number, siginfo_t* info, void* context) {
  ++seen;
  last_value = last_value * 10 + info->si_value.sival_int;
  last_code = info->si_code;
  (void)number, (void)context;
}

static void install(int number, void (*handler)(int), int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  sigaction(number, &action, 0);
}

static void install_info(int number, void (*handler)(int, siginfo_t*, void*), int flags) {
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
  sigaction(number, &action, 0);
}

static void mask(int how, int number) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  sigprocmask(how, &set, 0);
}

static void basics(void) {
  install(SIGUSR1, nested, 0);
  install(SIGUSR2, nested, 0);
  raise(SIGUSR1);
  printf("nested %d\n", deepest);

  seen = 0;
  install(SIGUSR1, simple, 0);
  mask(SIG_BLOCK, SIGUSR1);
  raise(SIGUSR1);
  raise(SIGUSR1);
  sigset_t pending;
  sigpending(&pending);
  printf("blocked: seen %d, pending %d", seen, sigismember(&pending, SIGUSR1));
  mask(SIG_UNBLOCK, SIGUSR1);
  printf(", then %d\n", seen);

  install(SIGUSR1, simple, SA_RESETHAND);
  raise(SIGUSR1);
  struct sigaction now;
  sigaction(SIGUSR1, 0, &now);
  printf("reset %d\n", now.sa_handler == SIG_DFL);

  struct sigaction action = {.sa_handler = simple, .sa_flags = SA_RESTART | SA_NODEFER};
  sigaddset(&action.sa_mask, SIGALRM);
  sigaction(SIGUSR1, &action, 0);
  sigaction(SIGUSR1, 0, &now);
  printf("kept %d %#x %d %d\n", now.sa_handler == simple, now.sa_flags & ~0x04000000,
         sigismember(&now.sa_mask, SIGALRM), sigismember(&now.sa_mask, SIGHUP));
  printf("SIGKILL refused %d, 65 refused %d\n", sigaction(SIGKILL, &action, 0) < 0 && errno == EINVAL,
         sigaction(65, &action, 0) < 0 && errno == EINVAL);
}

static void real_time(void) {
  install_info(SIGRTMIN + 1, queued, 0);
  mask(SIG_BLOCK, SIGRTMIN + 1);
  seen = last_value = 0;
  for (int i = 1; i <= 4; ++i) sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
  mask(SIG_UNBLOCK, SIGRTMIN + 1);
  printf("queued %d, values %d, code %d\n", seen, last_value, last_code);
  // Lower numbers first; each handler is then interrupted by the next.
  install(SIGRTMIN + 2, simple, 0);
  install(SIGRTMIN + 5, simple, 0);
  install(64, simple, 0);
  memset(order, 0, sizeof order);
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before);
  raise(64);
  raise(SIGRTMIN + 5);
  raise(SIGRTMIN + 2);
  sigprocmask(SIG_SETMASK, &before, 0);
  printf("order %s\n", order);
}

static stack_t alternate;
static char alternate_memory[65536];
static volatile int on_alternate, reported;
static void where(int number) {
  char local;
  on_alternate = &local >= alternate_memory && &local < alternate_memory + sizeof alternate_memory;
  stack_t now;
  sigaltstack(0, &now);
  reported = now.ss_flags;
  stack_t other = {.ss_sp = alternate_memory, .ss_size = 4096};
  seen = sigaltstack(&other, 0) < 0 ? errno : 0;
  (void)number;
}

static void alternate_stack(void) {
  alternate = (stack_t){.ss_sp = alternate_memory, .ss_size = sizeof alternate_memory};
  stack_t old;
  sigaltstack(&alternate, &old);
  printf("alternate stack: before %d", old.ss_flags == SS_DISABLE);
  install(SIGUSR1, where, SA_ONSTACK);
  raise(SIGUSR1);
  printf(", on it %d, reported %d, change refused %d", on_alternate, reported == SS_ONSTACK, seen == EPERM);
  install(SIGUSR1, where, 0);
  raise(SIGUSR1);
  printf(", not on it %d %d\n", on_alternate, reported);
  stack_t small = {.ss_sp = alternate_memory, .ss_size = 100};
  printf("too small %d", sigaltstack(&small, 0) < 0 && errno == ENOMEM);
  stack_t wrong = {.ss_sp = alternate_memory, .ss_size = 65536, .ss_flags = 77};
  printf(", wrong %d", sigaltstack(&wrong, 0) < 0 && errno == EINVAL);
  stack_t disarm = {.ss_sp = alternate_memory, .ss_size = 65536, .ss_flags = (int)(1u << 31)};
  sigaltstack(&disarm, 0);
  install(SIGUSR1, where, SA_ONSTACK);
  raise(SIGUSR1);
  sigaltstack(0, &old);
  printf(", disarmed inside %d, armed again %d\n", reported == SS_DISABLE, old.ss_flags == (int)(1u << 31));
  stack_t off = {.ss_flags = SS_DISABLE};
  sigaltstack(&off, 0);
}

static sigjmp_buf escape;
static volatile int fault_code, fault_signal;
static void* volatile fault_address;
static void on_fault(int number, siginfo_t* info, void* context) {
  fault_signal = number;
  fault_code = info->si_code;
  fault_address = info->si_addr;
  (void)context;
  siglongjmp(escape, 1);
}

static void faults(void) {
  install_info(SIGSEGV, on_fault, 0);
  install_info(SIGBUS, on_fault, 0);
  install_info(SIGTRAP, on_fault, 0);
  install_info(SIGILL, on_fault, 0);
  if (sigsetjmp(escape, 1) == 0) *(volatile int*)0x128 = 1;
  printf("unmapped %d %d %p\n", fault_signal == SIGSEGV, fault_code == SEGV_MAPERR, fault_address);
  char* page = mmap(0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (sigsetjmp(escape, 1) == 0) *(volatile char*)(page + 100) = 1;
  printf("read-only %d %d %d\n", fault_signal == SIGSEGV, fault_code == SEGV_ACCERR, fault_address == page + 100);
  if (sigsetjmp(escape, 1) == 0) ((void (*)(void))page)();
  printf("not executable %d %d %d\n", fault_signal == SIGSEGV, fault_code == SEGV_ACCERR, fault_address == page);
  mprotect(page, 4096, PROT_NONE);
  if (sigsetjmp(escape, 1) == 0) fault_code = *(volatile char*)(page + 8);
  printf("no access %d %d %d\n", fault_signal == SIGSEGV, fault_code == SEGV_ACCERR, fault_address == page + 8);
  munmap(page, 8192);
  if (sigsetjmp(escape, 1) == 0) fault_code = *(volatile char*)(page + 8);
  printf("no more %d %d %d\n", fault_signal == SIGSEGV, fault_code == SEGV_MAPERR, fault_address == page + 8);
  // A mapping that is longer than its file.
  const int file = memfd_create("short", 0);
  if (ftruncate(file, 4096) != 0) return;
  page = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, file, 0);
  page[0] = 1;
  if (sigsetjmp(escape, 1) == 0) *(volatile char*)(page + 5000) = 1;
  printf("write beyond the file %d %d %d\n", fault_signal == SIGBUS, fault_code == BUS_ADRERR, fault_address == page + 5000);
  fault_signal = fault_code = 0;
  if (sigsetjmp(escape, 1) == 0) fault_code = *(volatile char*)(page + 5001);
  printf("read beyond the file %d %d %d\n", fault_signal == SIGBUS, fault_code == BUS_ADRERR, fault_address == page + 5001);
  if (sigsetjmp(escape, 1) == 0) __atomic_fetch_add((int*)(page + 6000), 1, __ATOMIC_SEQ_CST);
  printf("atomic beyond the file %d %d %d\n", fault_signal == SIGBUS, fault_code == BUS_ADRERR, fault_address == page + 6000);
  if (sigsetjmp(escape, 1) == 0) ((void (*)(void))(page + 4096))();
  printf("code beyond the file %d %d %d\n", fault_signal == SIGBUS, fault_code == BUS_ADRERR, fault_address == page + 4096);
  if (ftruncate(file, 8192) != 0) return;
  page[5000] = 3;
  printf("the file grew %d\n", page[5000]);
  munmap(page, 8192);
  close(file);
  if (sigsetjmp(escape, 1) == 0) {
#ifdef __riscv
    asm volatile("ebreak");
#else
    raise(SIGTRAP);
#endif
  }
  printf("breakpoint %d\n", fault_signal == SIGTRAP);
  if (sigsetjmp(escape, 1) == 0) {
#ifdef __riscv
    asm volatile(".word 0");
#else
    asm volatile("ud2");
#endif
  }
  printf("illegal %d\n", fault_signal == SIGILL);
}

// A fault whose handler sees the registers, changes them, and goes on after the instruction.
static void repair(int number, siginfo_t* info, void* raw) {
  ucontext_t* context = raw;
#ifdef __riscv
  context->uc_mcontext.__gregs[REG_PC] += 4;
  context->uc_mcontext.__gregs[REG_A0] += context->uc_mcontext.__gregs[REG_A0 + 1];
  context->uc_mcontext.__fpregs.__d.__f[10] = 0x4000000000000000;  // fa0 = 2.0
#endif
  (void)number, (void)info, (void)context;
}

static void precise(void) {
  install_info(SIGSEGV, repair, 0);
  long sum = 42;
  double value = 2.0;
#ifdef __riscv
  register long a0 asm("a0") = 40;
  register long a1 asm("a1") = 2;
  register double fa0 asm("fa0") = 1.0;
  asm volatile(".option push\n.option norvc\nsw zero, 16(zero)\n.option pop" : "+r"(a0), "+f"(fa0) : "r"(a1) : "memory");
  sum = a0;
  value = fa0;
#endif
  printf("repaired %ld %.1f\n", sum, value);
}

// Again and again, as one that came before the call it is for would be the last.
static int alarm_in(int milliseconds) {
  struct itimerval timer = {.it_value = {0, milliseconds * 1000}, .it_interval = {0, milliseconds * 1000}};
  return setitimer(ITIMER_REAL, &timer, 0);
}

// After some signals, however long these take.
static void* poke(void* argument) {
  do usleep(20000);
  while (seen < 4);
  if (write(*(int*)argument, "x", 1) != 1) abort();
  return 0;
}

static void restarts(void) {
  int ends[2];
  char byte;
  if (pipe(ends) != 0) return;
  seen = 0;
  install(SIGALRM, simple, 0);
  alarm_in(5);
  const long got = read(ends[0], &byte, 1);
  printf("read interrupted %d %d\n", got < 0 && errno == EINTR, seen > 0);
  install(SIGALRM, simple, SA_RESTART);
  pthread_t thread;
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGALRM);
  pthread_sigmask(SIG_BLOCK, &set, &before);
  pthread_create(&thread, 0, poke, &ends[1]);
  pthread_sigmask(SIG_SETMASK, &before, 0);
  alarm_in(5);
  printf("read restarted %ld", (long)read(ends[0], &byte, 1));
  printf(", seen %d\n", seen > 1);
  pthread_join(thread, 0);
  struct timespec wait = {10, 0}, left = {0, 0};
  const int slept = nanosleep(&wait, &left);
  printf("nanosleep interrupted %d, left %d\n", slept < 0 && errno == EINTR, left.tv_sec >= 8);
  struct pollfd poller = {ends[0], POLLIN, 0};
  printf("poll interrupted %d\n", poll(&poller, 1, 10000) < 0 && errno == EINTR);
  printf("pause interrupted %d\n", pause() < 0 && errno == EINTR);
  alarm_in(0);
  // A flood: each read ends, each signal is counted.
  install(SIGALRM, simple, SA_RESTART);
  pthread_sigmask(SIG_BLOCK, &set, 0);
  seen = 0;
  pthread_create(&thread, 0, poke, &ends[1]);
  pthread_sigmask(SIG_SETMASK, &before, 0);
  struct itimerval often = {{0, 200}, {0, 200}};
  setitimer(ITIMER_REAL, &often, 0);
  const long under = read(ends[0], &byte, 1);
  memset(&often, 0, sizeof often);
  setitimer(ITIMER_REAL, &often, 0);
  printf("read under fire %ld, enough %d\n", under, seen > 3);
  pthread_join(thread, 0);
  close(ends[0]);
  close(ends[1]);
}

static void masks_of_waits(void) {
  install(SIGUSR1, simple, 0);
  mask(SIG_BLOCK, SIGUSR1);
  seen = 0;
  raise(SIGUSR1);
  sigset_t empty;
  sigemptyset(&empty);
  const int suspended = sigsuspend(&empty);
  printf("sigsuspend %d, seen %d", suspended < 0 && errno == EINTR, seen);
  sigset_t now;
  sigprocmask(SIG_SETMASK, 0, &now);
  printf(", mask is back %d\n", sigismember(&now, SIGUSR1));
  raise(SIGUSR1);
  struct timespec limit = {5, 0};
  const int polled = ppoll(0, 0, &limit, &empty);
  printf("ppoll %d, seen %d\n", polled < 0 && errno == EINTR, seen);
  raise(SIGUSR1);
  const int selected = pselect(0, 0, 0, 0, &limit, &empty);
  printf("pselect %d, seen %d\n", selected < 0 && errno == EINTR, seen);

  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  siginfo_t info;
  raise(SIGUSR1);
  printf("sigtimedwait %d", sigtimedwait(&set, &info, &limit) == SIGUSR1);
  printf(" %d", info.si_pid == getpid());
  struct timespec short_time = {0, 1000000};
  printf(", nothing %d, seen %d\n", sigtimedwait(&set, &info, &short_time) < 0 && errno == EAGAIN, seen);
  const int file = signalfd(-1, &set, 0);
  raise(SIGUSR1);
  struct signalfd_siginfo told;
  printf("signalfd %d", read(file, &told, sizeof told) == sizeof told);
  printf(" %d\n", told.ssi_signo == SIGUSR1);
  close(file);
  mask(SIG_UNBLOCK, SIGUSR1);
}

static void from_outside_segv(void) {
  install(SIGSEGV, simple, 0);
  seen = 0;
  kill(getpid(), SIGSEGV);
  printf("SIGSEGV by kill %d", seen);
  mask(SIG_BLOCK, SIGSEGV);
  raise(SIGSEGV);
  sigset_t pending;
  sigpending(&pending);
  printf(", blocked %d, pending %d", seen, sigismember(&pending, SIGSEGV));
  mask(SIG_UNBLOCK, SIGSEGV);
  printf(", then %d\n", seen);
  install(SIGSEGV, SIG_IGN, 0);
  raise(SIGSEGV);
  printf("ignored\n");
  install(SIGSEGV, SIG_DFL, 0);
}

static void posix_timer(void) {
  install_info(SIGRTMIN + 3, queued, 0);
  seen = last_value = 0;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 3, .sigev_value.sival_int = 7};
  timer_t timer;
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) return;
  const struct itimerspec soon = {{0, 3000000}, {0, 3000000}};  // again, as alarm_in()
  timer_settime(timer, 0, &soon, 0);
  while (seen == 0) pause();
  printf("timer %d %d\n", last_value, last_code == SI_TIMER);
  timer_delete(timer);
}

static int dies_by(void (*function)(void)) {
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    function();
    _exit(0);
  }
  int status;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

static void do_abort(void) { abort(); }
static void do_fault(void) { *(volatile int*)8 = 1; }
static void do_blocked_fault(void) {
  mask(SIG_BLOCK, SIGSEGV);
  install(SIGSEGV, simple, 0);
  *(volatile int*)8 = 1;
}
static void do_ignored_fault(void) {
  install(SIGSEGV, SIG_IGN, 0);
  *(volatile int*)8 = 1;
}
static void do_term(void) { kill(getpid(), SIGTERM); }
static void do_real_time(void) { raise(SIGRTMAX - 1); }
static void do_spin_alarm(void) {
  install(SIGALRM, SIG_DFL, 0);
  alarm_in(5);
  for (;;) {}
}
static void recurse_on_stack(int number) {
  (void)number;
  *(volatile int*)8 = 1;
}
static void do_double_fault(void) {
  install(SIGSEGV, recurse_on_stack, 0);
  *(volatile int*)8 = 1;
}
static void do_no_room(void) {
  install(SIGUSR1, simple, SA_ONSTACK);
  stack_t bad = {.ss_sp = (void*)4096, .ss_size = 65536};
  sigaltstack(&bad, 0);
  raise(SIGUSR1);
}
static void do_ignored_term(void) {
  signal(SIGTERM, SIG_IGN);
  raise(SIGTERM);
}

static void deaths(void) {
  printf("abort %d\n", dies_by(do_abort));
  printf("fault %d\n", dies_by(do_fault));
  printf("blocked fault %d\n", dies_by(do_blocked_fault));
  printf("ignored fault %d\n", dies_by(do_ignored_fault));
  printf("fault in the handler %d\n", dies_by(do_double_fault));
  printf("no room for the frame %d\n", dies_by(do_no_room));
  printf("terminated %d\n", dies_by(do_term));
  printf("real-time %d\n", dies_by(do_real_time) == SIGRTMAX - 1);
  printf("alarm in a loop %d\n", dies_by(do_spin_alarm));
  printf("ignored %d\n", dies_by(do_ignored_term));
}

static void loop_interrupted(void) {
  install(SIGALRM, simple, 0);
  seen = 0;
  struct itimerval often = {{0, 100}, {0, 100}};
  setitimer(ITIMER_REAL, &often, 0);
  volatile double sum = 0;
  long steps = 0;
  while (seen < 50) {
    sum += 1.0;
    ++steps;
  }
  memset(&often, 0, sizeof often);
  setitimer(ITIMER_REAL, &often, 0);
  printf("interrupted loop is right %d\n", sum == (double)steps);
}

int main(void) {
  basics();
  real_time();
  alternate_stack();
  faults();
  precise();
  restarts();
  masks_of_waits();
  from_outside_segv();
  posix_timer();
  deaths();
  loop_interrupted();
  return 0;
}
