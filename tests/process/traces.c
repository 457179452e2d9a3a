// What one process sees of others by ptrace(): run natively and by Doppel, the outputs must be equal.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ptrace.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __riscv
typedef struct {
  uint64_t pc, x[31];  // x1 and on
} Registers;
#define PC(r) (r).pc
#define RESULT(r) (r).x[9]
#define NUMBER(r) (r).x[16]
#define BREAKPOINT 0x9002
#define BREAKPOINT_BYTES 2
#define BREAKPOINT_CODE TRAP_BRKPT
#define BEHIND_BREAKPOINT 0
#else
#include <sys/user.h>
typedef struct user_regs_struct Registers;
#define PC(r) (r).rip
#define RESULT(r) (r).rax
#define NUMBER(r) (r).orig_rax
#define BREAKPOINT 0xcc
#define BREAKPOINT_BYTES 1
#define BREAKPOINT_CODE SI_KERNEL
#define BEHIND_BREAKPOINT 1
#endif

static struct {
  volatile long count, quit, value;
  volatile pid_t threads[3];
} *shared;

static long trace(long request, pid_t pid, void* address, void* data) {
  return syscall(SYS_ptrace, request, pid, address, data);
}
#define NUMBER_AS_POINTER(n) ((void*)(uintptr_t)(n))

static void say(const char* what, long result) {
  printf("%s %ld%s%s\n", what, result, result < 0 ? " " : "", result < 0 ? strerrorname_np(errno) : "");
}

static const char* event_name(int event) {
  static const char* const names[] = {"", "fork", "vfork", "clone", "exec", "vfork-done", "exit"};
  return event == PTRACE_EVENT_STOP ? "stop" : event <= 6 ? names[event] : "?";
}

// Waits, and tells what came.
static int wait_for(const char* what, pid_t pid) {
  int status = 0;
  const pid_t got = waitpid(pid, &status, __WALL);
  printf("%s: ", what);
  if (got < 0) {
    printf("%s\n", strerrorname_np(errno));
  } else if (WIFSTOPPED(status)) {
    const int number = WSTOPSIG(status);
    printf("stopped %s%s %s\n", sigabbrev_np(number & 0x7f), number & 0x80 ? "!" : "", event_name(status >> 16));
  } else if (WIFSIGNALED(status)) {
    printf("killed %s\n", sigabbrev_np(WTERMSIG(status)));
  } else {
    printf("exited %d\n", WEXITSTATUS(status));
  }
  return status;
}

static long go_on(long request, pid_t pid, int number) { return trace(request, pid, 0, NUMBER_AS_POINTER(number)); }

static Registers registers(pid_t pid) {
  Registers r;
  struct iovec io = {&r, sizeof r};
  const long failed = trace(PTRACE_GETREGSET, pid, NUMBER_AS_POINTER(NT_PRSTATUS), &io);
  if (failed != 0 || io.iov_len != sizeof r) say("registers", -1);
  return r;
}

static void set_registers(pid_t pid, Registers r) {
  struct iovec io = {&r, sizeof r};
  if (trace(PTRACE_SETREGSET, pid, NUMBER_AS_POINTER(NT_PRSTATUS), &io) != 0) say("set registers", -1);
}

static long message(pid_t pid) {
  unsigned long value = 0;
  trace(PTRACE_GETEVENTMSG, pid, 0, &value);
  return (long)value;
}

// A child that asks to be traced and stops.
static pid_t start(void (*body)(void), long options) {
  fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    trace(PTRACE_TRACEME, 0, 0, 0);
    raise(SIGSTOP);
    body();
    _exit(0);
  }
  wait_for("start", pid);
  if (options != 0) say("options", trace(PTRACE_SETOPTIONS, pid, 0, NUMBER_AS_POINTER(options)));
  return pid;
}

static void nap(int milliseconds) {
  const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
  nanosleep(&time, NULL);
}

// --- New programs.

static char* self;

static void wait_for_ever(void) {
  for (;;) {
    shared->count = shared->count + 1;
    nap(1);
  }
}

static void exec_self(void) { execl(self, self, "seven", NULL); }

static void execs(void) {
  pid_t pid = start(exec_self, 0);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("plain", pid);
  siginfo_t info;
  say("info", trace(PTRACE_GETSIGINFO, pid, 0, &info));
  printf("%d %d\n", info.si_signo, info.si_code);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("end", pid);
  pid = start(exec_self, PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("event", pid);
  say("message", message(pid) == pid);
  trace(PTRACE_GETSIGINFO, pid, 0, &info);
  printf("%d %x\n", info.si_signo, info.si_code);
  go_on(PTRACE_SYSCALL, pid, 0);
  wait_for("end of call", pid);
  say("result", (long)RESULT(registers(pid)));
  go_on(PTRACE_CONT, pid, 0);
  wait_for("end", pid);
}

// --- System calls.

static void some_calls(void) {
  char text[] = "abc";
  syscall(SYS_close, -1);
  syscall(SYS_write, shared->value, text, 3);
  shared->value = syscall(SYS_getpid);
  shared->count = syscall(SYS_getppid);
  shared->quit = errno;
  syscall(SYS_exit_group, 5);
}

static void calls(void) {
  int ends[2];
  pipe(ends);
  shared->value = ends[1];
  const pid_t pid = start(some_calls, PTRACE_O_TRACESYSGOOD);
  struct ptrace_syscall_info info;
  memset(&info, 0, sizeof info);
  say("none", trace(PTRACE_GET_SYSCALL_INFO, pid, NUMBER_AS_POINTER(sizeof info), &info));
  printf("%d\n", info.op);
  // The stop came from within another call.
  go_on(PTRACE_SYSCALL, pid, 0);
  for (;;) {
    int status;
    waitpid(pid, &status, 0);
    memset(&info, 0, sizeof info);
    trace(PTRACE_GET_SYSCALL_INFO, pid, NUMBER_AS_POINTER(sizeof info), &info);
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_close) break;
    go_on(PTRACE_SYSCALL, pid, 0);
  }
  for (int i = 0; i < 12; ++i) {
    if (i != 0) {
      const int status = wait_for("call", pid);
      if (!WIFSTOPPED(status)) break;
      memset(&info, 0, sizeof info);
      const long bytes = trace(PTRACE_GET_SYSCALL_INFO, pid, NUMBER_AS_POINTER(sizeof info), &info);
      printf("%d bytes %ld message %ld\n", info.op, info.op == 1 ? bytes - 80 : bytes - 33, message(pid));
    }
    Registers r = registers(pid);
    const long number = (long)NUMBER(r);
    printf("pc %d\n", info.instruction_pointer == PC(r));
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
      printf("known %d, a0 %ld\n", info.entry.nr == (uint64_t)number, (long)RESULT(r));
      if (number == SYS_write) printf("write %d %ld\n", info.entry.args[0] == (uint64_t)ends[1], (long)info.entry.args[2]);
      if (number == SYS_getppid) {
        // Is skipped, with a result.
        NUMBER(r) = -1;
        RESULT(r) = -EXDEV;
        set_registers(pid, r);
      }
    } else {
      const int is_pid = info.exit.rval == pid;
      printf("error %d ", info.exit.is_error);
      if (!is_pid) printf("result %ld a0 %ld", (long)info.exit.rval, (long)RESULT(r));
      puts("");
      if (is_pid) {
        RESULT(r) = 4321;
        set_registers(pid, r);
      }
    }
    go_on(PTRACE_SYSCALL, pid, 0);
  }
  char text[4] = "";
  say("read", read(ends[0], text, 3));
  printf("%s %ld %ld %s\n", text, shared->value, shared->count, strerrorname_np((int)shared->quit));
  close(ends[0]);
  close(ends[1]);
}

// A call that waits, and a signal that is kept from it.
static void sleeps_long(void) {
  struct timespec from, to;
  clock_gettime(CLOCK_MONOTONIC, &from);
  nap(600);
  clock_gettime(CLOCK_MONOTONIC, &to);
  shared->value = (to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000;
}

static int op_of(pid_t pid, struct ptrace_syscall_info* info) {
  memset(info, 0, sizeof *info);
  trace(PTRACE_GET_SYSCALL_INFO, pid, NUMBER_AS_POINTER(sizeof *info), info);
  if (info->op == PTRACE_SYSCALL_INFO_EXIT) printf("result %ld, ", (long)info->exit.rval);
  if (info->op == PTRACE_SYSCALL_INFO_ENTRY) printf("restart %d, ", info->entry.nr == SYS_restart_syscall);
  return info->op;
}

static void interrupted_call(void) {
  const pid_t pid = start(sleeps_long, PTRACE_O_TRACESYSGOOD);
  struct ptrace_syscall_info info;
  for (;;) {
    go_on(PTRACE_SYSCALL, pid, 0);
    waitpid(pid, NULL, 0);
    memset(&info, 0, sizeof info);
    trace(PTRACE_GET_SYSCALL_INFO, pid, NUMBER_AS_POINTER(sizeof info), &info);
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) continue;
    if (info.entry.nr == SYS_nanosleep || info.entry.nr == SYS_clock_nanosleep) break;
  }
  go_on(PTRACE_SYSCALL, pid, 0);
  nap(100);
  kill(pid, SIGUSR1);
  wait_for("end", pid);
  printf("op %d\n", op_of(pid, &info));
  go_on(PTRACE_SYSCALL, pid, 0);
  wait_for("signal", pid);
  printf("%d\n", op_of(pid, &info));
  go_on(PTRACE_SYSCALL, pid, 0);
  wait_for("again", pid);
  printf("op %d\n", op_of(pid, &info));
  go_on(PTRACE_SYSCALL, pid, 0);
  wait_for("end", pid);
  printf("op %d\n", op_of(pid, &info));
  go_on(PTRACE_CONT, pid, 0);
  wait_for("end", pid);
  printf("slept %d\n", shared->value >= 600 && shared->value < 690);
}

// --- Registers and memory.

static volatile long global = 0x1122334455667788;
static const long constant = 17;
static volatile double number_seen;

static void stops_with_values(void) {
  raise(SIGSTOP);
#ifdef __riscv
  register double held asm("fs3") = 2.5;
  asm volatile("ebreak\n .option push\n .option norvc\n nop\n .option pop" : "+f"(held));
  number_seen = held;
#else
  number_seen = 7;
#endif
  _exit(global == 99 && *(volatile const long*)&constant == 18 ? (int)number_seen + 1 : 2);
}

static void values(void) {
  const pid_t pid = start(stops_with_values, 0);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("stop", pid);
  unsigned long word = 0;
  say("peek", trace(PTRACE_PEEKDATA, pid, (void*)&global, &word));
  printf("%lx\n", word);
  say("peek text", trace(PTRACE_PEEKTEXT, pid, (void*)&values, &word));
  printf("%d\n", memcmp(&word, (void*)&values, sizeof word));
  say("peek nothing", trace(PTRACE_PEEKDATA, pid, (void*)8, &word));
  say("poke", trace(PTRACE_POKEDATA, pid, (void*)&global, (void*)98));
  say("poke constant", trace(PTRACE_POKEDATA, pid, (void*)&constant, (void*)18));
  long read_value = 0;
  const struct iovec ours = {&read_value, sizeof read_value}, theirs = {(void*)&global, sizeof global};
  say("process_vm_readv", process_vm_readv(pid, &ours, 1, &theirs, 1, 0));
  printf("%ld\n", read_value++);
  say("process_vm_writev", process_vm_writev(pid, &ours, 1, &theirs, 1, 0));
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/mem", pid);
  const int fd = open(path, O_RDWR);
  say("pread", pread(fd, &read_value, sizeof read_value, (off_t)(uintptr_t)&global));
  printf("%ld\n", read_value);
  say("pwrite", pwrite(fd, &read_value, sizeof read_value, (off_t)(uintptr_t)&global));
  close(fd);
  struct iovec io = {&word, sizeof word};
  say("unknown registers", trace(PTRACE_GETREGSET, pid, (void*)0x777, &io));
  say("nowhere", trace(PTRACE_GETREGSET, pid, (void*)NT_PRSTATUS, (void*)8));
  io.iov_len = 7;
  say("part of a register", trace(PTRACE_GETREGSET, pid, (void*)NT_PRSTATUS, &io));
  io.iov_len = 8;
  say("one register", trace(PTRACE_GETREGSET, pid, (void*)NT_PRSTATUS, &io));
  say("unknown options", trace(PTRACE_SETOPTIONS, pid, 0, (void*)0x40000000));
  say("unknown signal", go_on(PTRACE_CONT, pid, 65));
  say("unknown request", trace(0x5555, pid, 0, 0));
  say("not one of ours", go_on(PTRACE_CONT, 1, 0));
  uint64_t mask = 1;
  say("mask", trace(PTRACE_GETSIGMASK, pid, (void*)8, &mask));
  printf("%lx\n", (unsigned long)mask);
  go_on(PTRACE_CONT, pid, 0);
#ifdef __riscv
  int status;
  waitpid(pid, &status, 0);
  struct {
    double f[32];
    uint32_t fcsr, padding;
  } floating;
  io.iov_base = &floating;
  io.iov_len = sizeof floating + 100 * 8;
  const long failed = trace(PTRACE_GETREGSET, pid, (void*)NT_FPREGSET, &io);
  if (failed != 0 || io.iov_len != 264 || floating.f[19] != 2.5) puts("floating");
  floating.f[19] = 7;
  trace(PTRACE_SETREGSET, pid, (void*)NT_FPREGSET, &io);
  if (trace(PTRACE_SINGLESTEP, pid, 0, 0) != -1 || errno != EIO) puts("steps");
  Registers r = registers(pid);
  PC(r) += 4;
  // Whichever EBREAK the assembler made, NOPs follow.
  unsigned long at = 0;
  trace(PTRACE_PEEKTEXT, pid, (void*)(PC(r) - 4), &at);
  if ((at & 3) != 3) PC(r) -= 2;
  set_registers(pid, r);
  go_on(PTRACE_CONT, pid, 0);
#endif
  wait_for("end", pid);
}

// What /proc shows of another process.
static void maps(void) {
  char* const code = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(code + 4096, 4096, PROT_READ);
  mprotect(code + 2 * 4096, 4096, PROT_NONE);
  int local;
  const pid_t pid = start(wait_for_ever, 0);
  const void* const places[] = {(void*)&maps, (void*)&global, code, code + 4096, code + 2 * 4096, &local};
  static const char* const files[] = {"maps", "smaps", "task/%d/maps"};
  for (int i = 0; i < 3; ++i) {
    char path[64], name[32], line[512];
    snprintf(name, sizeof name, files[i], pid);
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    FILE* const file = fopen(path, "r");
    unsigned long from, to;
    char protection[8];
    int stack = 0, vdso = 0;
    while (fgets(line, sizeof line, file) != NULL) {
      if (sscanf(line, "%lx-%lx %7s", &from, &to, protection) != 3) continue;
      stack |= strstr(line, "[stack]") != NULL;
      vdso |= strstr(line, "[vdso]") != NULL && strcmp(protection, "r-xp") == 0;
      for (unsigned j = 0; j < sizeof places / sizeof places[0]; ++j) {
        const unsigned long place = (uintptr_t)places[j];
        if (from <= place && place < to) printf("%d:%s ", j, protection);
      }
    }
    printf("%d %d\n", stack, vdso);
    fclose(file);
  }
  munmap(code, 3 * 4096);
  // Debuggers look for its symbols in sections.
  const Elf64_Ehdr* const vdso = (void*)getauxval(AT_SYSINFO_EHDR);
  const Elf64_Shdr* const sections = (void*)((char*)vdso + vdso->e_shoff);
  for (int i = 0; i < vdso->e_shnum; ++i) {
    if (sections[i].sh_type == SHT_DYNSYM) printf("symbols of %d bytes each\n", (int)sections[i].sh_entsize);
  }
  kill(pid, SIGKILL);
  wait_for("end", pid);
}

// --- Breakpoints.

__attribute__((noinline)) static long often(long n) {
  asm volatile("");
  return n + 1;
}

static void calls_often(void) {
  while (!shared->quit) shared->count = often(shared->count);
  _exit(9);
}

static void breakpoints(void) {
  shared->count = shared->quit = 0;
  const pid_t pid = start(calls_often, 0);
  go_on(PTRACE_CONT, pid, 0);
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/mem", pid);
  const int fd = open(path, O_RDWR);
  for (int i = 0; i < 4; ++i) {
    const long before = shared->count;
    // In full run.
    while (shared->count < before + 100000) nap(1);
    kill(pid, SIGSTOP);
    wait_for("stop", pid);
    unsigned long original = 0;
    trace(PTRACE_PEEKTEXT, pid, (void*)&often, &original);
    const unsigned long mask = (1ul << BREAKPOINT_BYTES * 8) - 1, planted = (original & ~mask) | BREAKPOINT;
    if (i % 2 == 0) {
      trace(PTRACE_POKETEXT, pid, (void*)&often, (void*)planted);
    } else {
      pwrite(fd, &planted, BREAKPOINT_BYTES, (off_t)(uintptr_t)&often);
    }
    go_on(PTRACE_CONT, pid, 0);
    wait_for("breakpoint", pid);
    Registers r = registers(pid);
    siginfo_t info;
    trace(PTRACE_GETSIGINFO, pid, 0, &info);
    printf("pc %ld code %d\n", (long)(PC(r) - (uintptr_t)&often - BEHIND_BREAKPOINT), info.si_code == BREAKPOINT_CODE);
    const long count = shared->count;
    // Once more.
    PC(r) = (uintptr_t)&often;
    set_registers(pid, r);
    go_on(PTRACE_CONT, pid, 0);
    wait_for("again", pid);
    printf("nothing ran %d\n", shared->count == count);
    set_registers(pid, r);
    trace(PTRACE_POKETEXT, pid, (void*)&often, (void*)original);
    go_on(PTRACE_CONT, pid, 0);
  }
  shared->quit = 1;
  wait_for("end", pid);
  close(fd);
}

// --- Signals.

static volatile int handled, handled_value;

static void on_user(int number, siginfo_t* info, void* context) {
  handled = handled * 10 + (number == SIGUSR1 ? 1 : 2);
  handled_value = info->si_value.sival_int;
}

static void gets_signals(void) {
  struct sigaction action = {.sa_sigaction = on_user, .sa_flags = SA_SIGINFO};
  sigaction(SIGUSR1, &action, NULL);
  sigaction(SIGUSR2, &action, NULL);
  signal(SIGHUP, SIG_IGN);
  raise(SIGUSR1);  // suppressed
  raise(SIGUSR1);
  raise(SIGUSR1);  // becomes SIGUSR2
  raise(SIGHUP);
  raise(SIGCHLD);
  sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 5});  // changed
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  raise(SIGUSR1);
  shared->count = 1;
  sigprocmask(SIG_UNBLOCK, &set, NULL);
  shared->value = handled * 100 + handled_value;
  raise(SIGWINCH);
  *(volatile int*)16 = 0;
}

static void signals(void) {
  shared->count = 0;
  const pid_t pid = start(gets_signals, 0);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("first", pid);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("second", pid);
  go_on(PTRACE_CONT, pid, SIGUSR1);
  wait_for("third", pid);
  go_on(PTRACE_CONT, pid, SIGUSR2);
  wait_for("ignored", pid);
  go_on(PTRACE_CONT, pid, SIGHUP);
  wait_for("default", pid);
  go_on(PTRACE_CONT, pid, SIGCHLD);
  wait_for("queued", pid);
  siginfo_t info;
  say("info", trace(PTRACE_GETSIGINFO, pid, 0, &info));
  printf("%d %d %d\n", info.si_code, info.si_value.sival_int, info.si_pid == pid);
  info.si_value.sival_int = 44;
  say("set info", trace(PTRACE_SETSIGINFO, pid, 0, &info));
  go_on(PTRACE_CONT, pid, SIGUSR1);
  wait_for("unblocked", pid);
  printf("after %ld\n", shared->count);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("window", pid);
  printf("%ld\n", shared->value);
  go_on(PTRACE_CONT, pid, SIGWINCH);
  for (int i = 0; i < 2; ++i) {
    wait_for("fault", pid);
    trace(PTRACE_GETSIGINFO, pid, 0, &info);
    printf("%d %lx\n", info.si_code, (long)info.si_addr);
    go_on(PTRACE_CONT, pid, i == 0 ? 0 : SIGSEGV);
  }
  wait_for("end", pid);
}

static void stops_for_jobs(void) {
  raise(SIGTSTP);
  raise(SIGTERM);
}

static void jobs(void) {
  const pid_t pid = start(stops_for_jobs, 0);
  go_on(PTRACE_CONT, pid, SIGSTOP);
  wait_for("group", pid);
  siginfo_t info;
  say("info", trace(PTRACE_GETSIGINFO, pid, 0, &info));
  go_on(PTRACE_CONT, pid, 0);
  wait_for("terminal", pid);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("term", pid);
  go_on(PTRACE_CONT, pid, SIGTERM);
  wait_for("end", pid);
  say("gone", go_on(PTRACE_CONT, pid, 0));
}

// --- New processes and threads.

static void* thread_body(void* argument) {
  shared->threads[1] = gettid();
  return argument;
}

static void makes_others(void) {
  pid_t child = fork();
  if (child == 0) _exit(3);
  waitpid(child, NULL, 0);
  child = vfork();
  if (child == 0) _exit(4);
  waitpid(child, NULL, 0);
  pthread_t thread;
  pthread_create(&thread, NULL, thread_body, NULL);
  pthread_join(thread, NULL);
  _exit(6);
}

// To the next stop that is no SIGCHLD.
static int next_event(const char* what, pid_t pid) {
  for (;;) {
    siginfo_t info;
    if (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOWAIT | __WALL) != 0) break;
    if (info.si_code != CLD_TRAPPED || info.si_status != SIGCHLD) break;
    waitpid(pid, NULL, __WALL);
    go_on(PTRACE_CONT, pid, SIGCHLD);
  }
  return wait_for(what, pid);
}

static void others(void) {
  const pid_t pid = start(makes_others, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                                            PTRACE_O_TRACEVFORKDONE | PTRACE_O_TRACEEXIT | PTRACE_O_TRACESYSGOOD);
  for (int i = 0; i < 3; ++i) {
    go_on(PTRACE_CONT, pid, 0);
    next_event("makes", pid);
    const pid_t other = (pid_t)message(pid);
    wait_for("new", other);
    say("result", (long)RESULT(registers(other)));
    if (i == 0) {
      struct ptrace_syscall_info info;
      go_on(PTRACE_SYSCALL, other, 0);
      wait_for("first call", other);
      printf("op %d\n", op_of(other, &info));
    }
    if (i == 2) {
      // Let alone.
      say("detach", go_on(PTRACE_DETACH, other, 0));
      break;
    }
    go_on(PTRACE_CONT, other, 0);
    wait_for("exits", other);
    printf("status %lx\n", message(other));
    go_on(PTRACE_CONT, other, 0);
    wait_for("end", other);
    if (i == 1) {
      go_on(PTRACE_CONT, pid, 0);
      next_event("done", pid);
      printf("of it %d\n", message(pid) == other);
    }
  }
  go_on(PTRACE_CONT, pid, 0);
  next_event("exits", pid);
  printf("status %lx\n", message(pid));
  go_on(PTRACE_CONT, pid, 0);
  wait_for("end", pid);
  printf("ran %d\n", shared->threads[1] > 0);
}

// Processes and threads come and go at once, in whatever order the tracer hears of it.
enum { kMany = 60 };

static void* makes_threads(void* argument) {
  for (int i = 0; i < kMany; ++i) {
    pthread_t thread;
    pthread_create(&thread, NULL, thread_body, NULL);
    pthread_join(thread, NULL);
  }
  return argument;
}

static void makes_many(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, makes_threads, NULL);
  for (int i = 0; i < kMany; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0);
  }
  pthread_join(thread, NULL);
  _exit(12);
}

static void many(void) {
  shared->quit = 0;
  fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    while (!shared->quit) nap(1);
    makes_many();
  }
  say("seize", trace(PTRACE_SEIZE, pid, 0, (void*)(PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE)));
  shared->quit = 1;
  int made = 0, begun = 0, ended = 0, status = 0;
  for (;;) {
    const pid_t got = waitpid(-1, &status, __WALL);
    if (got == pid && !WIFSTOPPED(status)) break;
    if (!WIFSTOPPED(status)) {
      ++ended;
      continue;
    }
    const int event = status >> 16;
    begun += event == PTRACE_EVENT_STOP;
    made += event != 0 && event != PTRACE_EVENT_STOP;
    go_on(PTRACE_CONT, got, event == 0 ? WSTOPSIG(status) : 0);
  }
  printf("made %d begun %d ended %d status %d\n", made, begun, ended, WEXITSTATUS(status));
}

// Another thread than the first becomes a program.
static void* exec_thread(void* argument) {
  shared->threads[1] = gettid();
  exec_self();
  return argument;
}

static void exec_by_thread(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, exec_thread, NULL);
  pthread_join(thread, NULL);
}

static void thread_execs(void) {
  const pid_t pid = start(exec_by_thread, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("makes", pid);
  const pid_t other = (pid_t)message(pid);
  wait_for("new", other);
  go_on(PTRACE_CONT, other, 0);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("exec", pid);
  printf("by it %d %d\n", message(pid) == other, other == shared->threads[1]);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("end", pid);
}

// --- Attaching.

static void* spins(void* argument) {
  shared->threads[1] = gettid();
  while (!shared->quit) shared->count = shared->count + 1;
  return argument;
}

static int wait_pipe[2];

static void* waits(void* argument) {
  shared->threads[2] = gettid();
  char byte;
  if (read(wait_pipe[0], &byte, 1) != 1) shared->value = errno;
  return argument;
}

static pid_t start_threads(void) {
  memset((void*)shared, 0, sizeof *shared);
  pipe(wait_pipe);
  fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    pthread_t threads[2];
    pthread_create(&threads[0], NULL, spins, NULL);
    pthread_create(&threads[1], NULL, waits, NULL);
    shared->threads[0] = gettid();
    for (int i = 0; i < 2; ++i) pthread_join(threads[i], NULL);
    _exit(8);
  }
  while (shared->threads[0] == 0 || shared->threads[1] == 0 || shared->threads[2] == 0) nap(1);
  nap(20);
  return pid;
}

static void goes_on(void) {
  const long before = shared->count;
  for (int i = 0; i < 5000 && shared->count == before; ++i) nap(1);
  printf("goes on %d\n", shared->count != before);
}

static void end_threads(pid_t pid) {
  shared->quit = 1;
  write(wait_pipe[1], "x", 1);
  wait_for("end", pid);
  printf("undisturbed %d\n", shared->value == 0);
  close(wait_pipe[0]);
  close(wait_pipe[1]);
}

static void attaches(void) {
  const pid_t pid = start_threads();
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 3; ++i) {
      say("attach", trace(PTRACE_ATTACH, shared->threads[i], 0, 0));
      wait_for("stop", shared->threads[i]);
      siginfo_t info;
      trace(PTRACE_GETSIGINFO, shared->threads[i], 0, &info);
      printf("%d %d\n", info.si_signo, info.si_code);
    }
    say("twice", trace(PTRACE_ATTACH, pid, 0, 0));
    const long before = shared->count;
    nap(20);
    printf("stands %d\n", shared->count == before);
    Registers r = registers(shared->threads[1]);
    const uintptr_t distance = PC(r) - (uintptr_t)&spins;
    printf("there %d\n", distance < 200);
    for (int i = 0; i < 3; ++i) say("detach", go_on(PTRACE_DETACH, shared->threads[i], 0));
    goes_on();
  }
  say("detached", go_on(PTRACE_CONT, pid, 0));
  say("nobody", trace(PTRACE_ATTACH, 0x3fffff, 0, 0));
  end_threads(pid);
}

static void seizes(void) {
  const pid_t pid = start_threads();
  for (int i = 1; i < 3; ++i) {
    const pid_t id = shared->threads[i];
    say("address", trace(PTRACE_SEIZE, id, (void*)1, 0));
    say("seize", trace(PTRACE_SEIZE, id, 0, (void*)PTRACE_O_TRACESYSGOOD));
    say("running", go_on(PTRACE_CONT, id, 0));
    goes_on();
    for (int round = 0; round < 2; ++round) {
      say("interrupt", trace(PTRACE_INTERRUPT, id, 0, 0));
      wait_for("interrupted", id);
      siginfo_t info;
      trace(PTRACE_GETSIGINFO, id, 0, &info);
      printf("%d %x\n", info.si_signo, info.si_code);
      go_on(PTRACE_CONT, id, 0);
    }
    goes_on();
  }
  for (int i = 1; i < 3; ++i) {
    trace(PTRACE_INTERRUPT, shared->threads[i], 0, 0);
    wait_for("interrupted", shared->threads[i]);
    say("detach", go_on(PTRACE_DETACH, shared->threads[i], 0));
  }
  goes_on();
  end_threads(pid);
}

static void count_up(void) {
  for (;;) shared->count = shared->count + 1;
}

static void listens(void (*body)(void)) {
  shared->count = 0;
  fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    body();
    _exit(1);
  }
  while (shared->count == 0) nap(1);
  say("seize", trace(PTRACE_SEIZE, pid, 0, 0));
  kill(pid, SIGSTOP);
  wait_for("signal", pid);
  say("not yet", trace(PTRACE_LISTEN, pid, 0, 0));
  go_on(PTRACE_CONT, pid, SIGSTOP);
  wait_for("group", pid);
  say("listen", trace(PTRACE_LISTEN, pid, 0, 0));
  const long before = shared->count;
  nap(50);
  printf("stands %d\n", shared->count == before);
  say("nothing", waitpid(pid, NULL, WNOHANG | __WALL));
  kill(pid, SIGCONT);
  wait_for("goes on", pid);
  go_on(PTRACE_CONT, pid, 0);
  wait_for("signal", pid);
  go_on(PTRACE_CONT, pid, SIGCONT);
  goes_on();
  kill(pid, SIGKILL);
  wait_for("end", pid);
}

// --- Ends.

static void tracer_ends(long options) {
  shared->count = shared->quit = 0;
  fflush(stdout);
  int ends[2];
  pipe(ends);
  const pid_t tracee = fork();
  if (tracee == 0) {
    close(ends[0]);
    while (!shared->quit) shared->count = shared->count + 1;
    raise(SIGUSR1);
    _exit(0);
  }
  close(ends[1]);
  while (shared->count == 0) nap(1);
  const pid_t tracer = fork();
  if (tracer == 0) {
    say("seize", trace(PTRACE_SEIZE, tracee, 0, NUMBER_AS_POINTER(options)));
    trace(PTRACE_INTERRUPT, tracee, 0, 0);
    wait_for("stop", tracee);
    go_on(PTRACE_SYSCALL, tracee, 0);
    nap(20);
    trace(PTRACE_INTERRUPT, tracee, 0, 0);
    wait_for("stop", tracee);
    fflush(stdout);
    _exit(0);
  }
  waitpid(tracer, NULL, 0);
  if (options == 0) goes_on();
  shared->quit = 1;
  wait_for("tracee", tracee);
  close(ends[0]);
}

// The next one has nothing to do with what the last one wanted.
static void next_tracer(void) {
  int ends[2];
  pipe(ends);
  shared->count = 0;
  fflush(stdout);
  const pid_t tracee = fork();
  if (tracee == 0) {
    char byte;
    shared->count = 1;
    _exit(read(ends[0], &byte, 1) == 1 ? 5 : 6);
  }
  while (shared->count == 0) nap(1);
  nap(20);
  for (int i = 0; i < 2; ++i) {
    const pid_t tracer = fork();
    if (tracer == 0) {
      trace(PTRACE_SEIZE, tracee, 0, (void*)PTRACE_O_TRACESYSGOOD);
      trace(PTRACE_INTERRUPT, tracee, 0, 0);
      wait_for("stop", tracee);
      go_on(PTRACE_SYSCALL, tracee, 0);
      wait_for("again", tracee);
      go_on(PTRACE_SYSCALL, tracee, 0);
      nap(20);
      fflush(stdout);
      _exit(0);
    }
    waitpid(tracer, NULL, 0);
  }
  write(ends[1], "x", 1);
  wait_for("tracee", tracee);
  close(ends[0]);
  close(ends[1]);
}

static void kills(void) {
  const pid_t pid = start(wait_for_ever, 0);
  kill(pid, SIGKILL);
  wait_for("killed where it stood", pid);
  fflush(stdout);
  const pid_t other = fork();
  if (other == 0) {
    trace(PTRACE_TRACEME, 0, 0, 0);
    abort();
  }
  siginfo_t info;
  say("look", waitid(P_PID, (id_t)other, &info, WSTOPPED | WEXITED | WNOWAIT));
  printf("%d %d\n", info.si_code, info.si_status);
  wait_for("abort", other);
  go_on(PTRACE_CONT, other, SIGABRT);
  wait_for("end", other);
}

int main(int count, char** arguments) {
  if (count > 1 && strcmp(arguments[1], "seven") == 0) return 7;
  setvbuf(stdout, NULL, _IOLBF, 1 << 16);
  self = arguments[0];
  shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  static const struct {
    const char* name;
    void (*run)(void);
  } parts[] = {{"exec", execs},           {"calls", calls},   {"interrupted", interrupted_call}, {"values", values}, {"maps", maps},
               {"breakpoints", breakpoints}, {"signals", signals}, {"jobs", jobs},                 {"others", others}, {"many", many},
               {"thread execs", thread_execs}, {"attach", attaches}, {"seize", seizes},            {"kill", kills},
               {"next tracer", next_tracer}};
  for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; ++i) {
    if (count > 1 && strcmp(arguments[1], parts[i].name) != 0) continue;
    printf("--- %s\n", parts[i].name);
    parts[i].run();
    fflush(stdout);
  }
  if (count > 1) return 0;
  puts("--- listen");
  listens(count_up);
  listens(wait_for_ever);
  puts("--- tracer ends");
  tracer_ends(0);
  tracer_ends(PTRACE_O_EXITKILL);
  return 0;
}
