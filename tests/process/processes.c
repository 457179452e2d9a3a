// Processes: every line printed is the same on any Linux. Compiled for the host, this is its own oracle.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char** environ;
static const char* self;

static int run(const char* const* arguments) {
  pid_t child;
  const int failed = posix_spawn(&child, arguments[0], 0, 0, (char* const*)arguments, environ);
  if (failed != 0) return -failed;
  int status;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void spawns(void) {
  printf("spawn: exit %d", run((const char*[]){self, "exit", "12", 0}));
  printf(", signal %d", run((const char*[]){self, "signal", "15", 0}));
  printf(", not there %d", run((const char*[]){"/nonexistent/program", 0}) == -ENOENT);
  printf(", not allowed %d\n", run((const char*[]){"/etc/passwd", 0}) == -EACCES);
  printf("system %d\n", WEXITSTATUS(system("exit 5")));
  FILE* pipe = popen("echo from the pipe", "r");
  char line[64] = "";
  if (fgets(line, sizeof line, pipe) == 0) line[0] = 0;
  printf("popen %d %s", pclose(pipe), line);
}

static int shared = 1;
static void vforks(void) {
  volatile int local = 1;
  const pid_t child = vfork();
  if (child == 0) {
    shared = 2;
    local = 3;
    _exit(4);
  }
  int status;
  waitpid(child, &status, 0);
  printf("vfork: child %d, wrote %d %d\n", WEXITSTATUS(status), shared, local);
  for (int i = 0; i < 50; ++i) {
    const pid_t next = vfork();
    if (next == 0) {
      execl(self, self, "exit", "0", (char*)0);
      _exit(99);
    }
    waitpid(next, &status, 0);
    if (WEXITSTATUS(status) != 0) printf("vfork and exec: %d\n", WEXITSTATUS(status));
  }
  const pid_t killed = vfork();
  if (killed == 0) {
    kill(getpid(), SIGKILL);
    _exit(1);
  }
  waitpid(killed, &status, 0);
  printf("killed %d\n", WTERMSIG(status));
}

static void forks(void) {
  int ends[2];
  if (pipe(ends) != 0) return;
  shared = 10;
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    shared = 20;
    const int told[2] = {getppid(), shared};
    if (write(ends[1], told, sizeof told) < 0) _exit(1);
    _exit(3);
  }
  int told[2];
  if (read(ends[0], told, sizeof told) < 0) return;
  siginfo_t info;
  struct rusage usage;
  memset(&info, 0, sizeof info);
  waitid(P_PID, child, &info, WEXITED | WNOWAIT);
  printf("fork: its parent %d, its own %d, mine %d; waitid %d %d %d\n", told[0] == getpid(), told[1], shared,
         info.si_pid == child, info.si_status, info.si_code == CLD_EXITED);
  int status;
  printf("wait4 %d", wait4(child, &status, 0, &usage) == child);
  printf(", time is valid %d\n", usage.ru_stime.tv_usec < 1000000);
  printf("no child %d\n", wait4(-1, &status, 0, 0) < 0 && errno == ECHILD);
  close(ends[0]);
  close(ends[1]);
}

static int child_main(void* argument) { return *(int*)argument + getpid() - (int)syscall(SYS_getpid); }

// Both run at once, and see each other's writes.
static int share_main(void* argument) {
  *(volatile int*)&shared = 1;
  while (*(volatile int*)&shared != 2) sched_yield();
  return *(int*)argument;
}

static void clones(void) {
  static char stack[65536] __attribute__((aligned(16)));
  int value = 6, status;
  const pid_t child = clone(child_main, stack + sizeof stack, SIGCHLD, &value);
  waitpid(child, &status, 0);
  printf("clone %d", WEXITSTATUS(status));
  value = 7;
  const pid_t vforked = clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &value);
  waitpid(vforked, &status, 0);
  printf(", sharing %d", WEXITSTATUS(status));
  value = 8;
  shared = 0;
  const pid_t beside = clone(share_main, stack + sizeof stack, CLONE_VM | SIGCHLD, &value);
  while (!*(volatile int*)&shared) sched_yield();
  *(volatile int*)&shared = 2;
  waitpid(beside, &status, 0);
  printf(", beside %d", WEXITSTATUS(status));
  const pid_t ended = clone(share_main, stack + sizeof stack, CLONE_VM | SIGCHLD, &value);
  while (*(volatile int*)&shared != 1) sched_yield();
  kill(ended, SIGTERM);
  waitpid(ended, &status, 0);
  printf(", ended %d", WTERMSIG(status));
  pid_t ids[2] = {0, 0};
  int pidfd = -1;
  struct clone_args arguments = {.flags = CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CLEAR_SIGHAND,
                                 .pidfd = (uintptr_t)&pidfd, .parent_tid = (uintptr_t)&ids[0], .exit_signal = SIGCHLD};
  signal(SIGUSR1, (void (*)(int))(intptr_t)child_main);
  const pid_t third = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
  if (third == 0) {
    struct sigaction action;
    sigaction(SIGUSR1, 0, &action);
    _exit(action.sa_handler == SIG_DFL ? 8 : 9);
  }
  siginfo_t info;
  memset(&info, 0, sizeof info);
  waitid((idtype_t)3, (id_t)pidfd, &info, WEXITED);
  printf(", clone3 %d %d %d\n", info.si_status, ids[0] == third, pidfd >= 0);
  close(pidfd);
  printf("refused %d", syscall(SYS_clone, CLONE_THREAD | SIGCHLD, 0, 0, 0, 0) < 0 && errno == EINVAL);
  printf(" %d", syscall(SYS_clone3, &arguments, 8) < 0 && errno == EINVAL);
  arguments.exit_signal = 200;
  printf(" %d\n", syscall(SYS_clone3, &arguments, sizeof arguments) < 0 && errno == EINVAL);
}

static volatile sig_atomic_t children;
static void on_child(int number) {
  int status;
  while (waitpid(-1, &status, WNOHANG) > 0) ++children;
  (void)number;
}

static void child_signals(void) {
  struct sigaction action = {.sa_handler = on_child, .sa_flags = SA_RESTART};
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigaction(SIGCHLD, &action, 0);
  sigprocmask(SIG_BLOCK, &set, &before);
  fflush(stdout);
  for (int i = 0; i < 5; ++i) {
    if (fork() == 0) _exit(0);
  }
  while (children < 5) sigsuspend(&before);
  sigprocmask(SIG_SETMASK, &before, 0);
  printf("SIGCHLD told of %d\n", children);
  signal(SIGCHLD, SIG_IGN);
  if (fork() == 0) _exit(0);
  int status;
  printf("nobody to wait for %d\n", wait(&status) < 0 && errno == ECHILD);
  signal(SIGCHLD, SIG_DFL);
}

static void jobs(void) {
  int status;
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    raise(SIGSTOP);
    _exit(getpgid(0) == getpid() ? 17 : 18);
  }
  waitpid(child, &status, WUNTRACED);
  printf("stopped %d", WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
  kill(child, SIGCONT);
  waitpid(child, &status, WCONTINUED);
  printf(", continued %d", WIFCONTINUED(status));
  waitpid(child, &status, 0);
  printf(", exit %d\n", WEXITSTATUS(status));
  const pid_t other = fork();
  if (other == 0) {
    setsid();
    kill(0, SIGTERM);
    for (;;) pause();
  }
  waitpid(other, &status, 0);
  printf("a group of one is ended by %d\n", WTERMSIG(status));
}

static void inherits(void) {
  // Ignored signals and the mask survive exec, handlers do not.
  signal(SIGUSR1, SIG_IGN);
  signal(SIGSEGV, SIG_IGN);
  signal(SIGUSR2, on_child);
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGBUS);
  sigprocmask(SIG_BLOCK, &set, &before);
  printf("exec keeps %d\n", run((const char*[]){self, "dispositions", 0}));
  sigprocmask(SIG_SETMASK, &before, 0);
  signal(SIGUSR1, SIG_DFL);
  signal(SIGSEGV, SIG_DFL);
}

static int dispositions(void) {
  struct sigaction action;
  sigset_t mask;
  int kept = 0;
  sigaction(SIGUSR1, 0, &action);
  kept |= action.sa_handler == SIG_IGN ? 1 : 0;
  sigaction(SIGSEGV, 0, &action);
  kept |= action.sa_handler == SIG_IGN ? 2 : 0;
  sigaction(SIGUSR2, 0, &action);
  kept |= action.sa_handler == SIG_DFL ? 4 : 0;
  sigprocmask(SIG_SETMASK, 0, &mask);
  kept |= sigismember(&mask, SIGTERM) ? 8 : 0;
  kept |= sigismember(&mask, SIGBUS) ? 16 : 0;
  kept |= sigismember(&mask, SIGUSR1) ? 32 : 0;
  return kept;
}

static void attributes(void) {
  char name[17] = "";
  prctl(PR_SET_NAME, "a name of more than 15");
  prctl(PR_GET_NAME, name);
  printf("name %s\n", name);
  int signal_of_death = 0, reaper = 0;
  prctl(PR_SET_PDEATHSIG, SIGHUP);
  prctl(PR_GET_PDEATHSIG, &signal_of_death);
  prctl(PR_SET_PDEATHSIG, 0);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  prctl(PR_GET_CHILD_SUBREAPER, &reaper);
  printf("death signal %d, reaper %d, dumpable %d", signal_of_death, reaper, prctl(PR_GET_DUMPABLE));
  printf(", no new privileges %d", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  printf(" %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
  struct rlimit limit = {100, 200}, now;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &now);
  printf("limit %d %d\n", (int)now.rlim_cur, (int)now.rlim_max);
}

int main(int argc, char** argv) {
  self = argv[0];
  if (argc > 2 && strcmp(argv[1], "exit") == 0) return atoi(argv[2]);
  if (argc > 2 && strcmp(argv[1], "signal") == 0) raise(atoi(argv[2]));
  if (argc > 1 && strcmp(argv[1], "dispositions") == 0) return dispositions();
  spawns();
  vforks();
  forks();
  clones();
  child_signals();
  jobs();
  inherits();
  attributes();
  return 0;
}
