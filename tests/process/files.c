// What programs see of files, descriptors, sockets, shared memory and mappings: run natively and by Doppel, the outputs
// must be equal.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static void say(const char* what, long result) {
  printf("%s %ld%s%s\n", what, result, result < 0 ? " " : "", result < 0 ? strerrorname_np(errno) : "");
}

static void files(void) {
  say("mkdir", mkdir("d", 0750));
  say("mkdir again", mkdir("d", 0750));
  int fd = open("d/f", O_RDWR | O_CREAT | O_EXCL, 0640);
  say("open", fd >= 0);
  say("write", write(fd, "hello world", 11));
  struct stat s, l;
  say("fstat", fstat(fd, &s));
  printf("%o %ld %ld %d\n", s.st_mode, (long)s.st_size, (long)s.st_nlink, s.st_uid == getuid());
  say("symlink", symlink("f", "d/l"));
  say("lstat", lstat("d/l", &l));
  printf("%o %ld\n", l.st_mode, (long)l.st_size);
  say("stat", stat("d/l", &l));
  printf("%d %d\n", l.st_ino == s.st_ino, l.st_dev == s.st_dev);
  struct statx x;
  say("statx", statx(AT_FDCWD, "d/f", 0, STATX_ALL, &x));
  printf("%d %lu\n", x.stx_ino == s.st_ino, (unsigned long)x.stx_size);
  say("link", link("d/f", "d/h"));
  say("rename", rename("d/h", "d/g"));
  say("noreplace", renameat2(AT_FDCWD, "d/g", AT_FDCWD, "d/f", RENAME_NOREPLACE));
  char text[PATH_MAX];
  ssize_t length = readlink("d/l", text, sizeof text);
  printf("%.*s\n", (int)length, text);
  say("readlink of a file", readlink("d/f", text, sizeof text));
  say("truncate", truncate("d/f", 5));
  say("fallocate", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 8192));
  say("seek", lseek(fd, -2, SEEK_END));
  say("data", lseek(fd, 0, SEEK_DATA));
  struct iovec parts[2] = {{text, 2}, {text + 2, 10}};
  say("preadv", preadv(fd, parts, 2, 0));
  say("readv of a bad one", readv(fd, (struct iovec*)8, 2));
  say("readv of too many", readv(fd, parts, 5000));
  parts[1].iov_base = (void*)-4096l;
  say("preadv into nowhere", preadv(fd, parts + 1, 1, 0));
  say("flock", flock(fd, LOCK_EX | LOCK_NB));
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 4};
  say("F_SETLK", fcntl(fd, F_SETLK, &lock));
  say("F_OFD_GETLK", fcntl(fd, F_OFD_GETLK, &lock));
  say("utimensat", utimensat(AT_FDCWD, "d/f", (struct timespec[]){{7, 8}, {9, 10}}, 0));
  fstat(fd, &s);
  printf("%ld.%ld %ld.%ld\n", (long)s.st_atim.tv_sec, s.st_atim.tv_nsec, (long)s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
  say("chmod", chmod("d/f", 0600));
  say("access", access("d/f", R_OK));
  say("access to nothing", access("d/none", F_OK));
  say("faccessat2", faccessat(AT_FDCWD, "d/l", R_OK, AT_SYMLINK_NOFOLLOW | AT_EACCESS));
  say("getxattr", getxattr("d/f", "user.none", text, sizeof text) < 0 && (errno == ENODATA || errno == ENOTSUP));
  struct statfs fs;
  say("statfs", statfs("d", &fs));
  printf("%d %d\n", fs.f_bsize > 0, fs.f_namelen == 255);
  say("O_DIRECTORY", open("d/f", O_RDONLY | O_DIRECTORY));
  say("O_NOFOLLOW", open("d/l", O_RDONLY | O_NOFOLLOW));
  int path = open("d", O_PATH | O_DIRECTORY);
  int at = openat(path, "f", O_RDONLY | O_CLOEXEC);
  say("openat", at >= 0);
  printf("%d %x\n", fcntl(at, F_GETFD), fcntl(at, F_GETFL) & ~O_LARGEFILE);
  close(at);
  int names = 0;
  DIR* folder = opendir("d");
  for (struct dirent* each; (each = readdir(folder));) ++names;
  closedir(folder);
  printf("%d names\n", names);
  int copy = open("d/copy", O_RDWR | O_CREAT, 0600);
  off_t from = 0;
  say("sendfile", sendfile(copy, fd, &from, 100));
  printf("from %ld\n", (long)from);
  loff_t in = 1, out = 10;
  say("copy_file_range", copy_file_range(fd, &in, copy, &out, 3, 0));
  printf("%ld %ld\n", (long)in, (long)out);
  say("getcwd", getcwd(text, 1) != NULL);
  say("chdir", chdir("d"));
  say("fchdir", fchdir(path));
  say("unlink", unlink("copy"));
  say("chdir", chdir(".."));
  say("rmdir", rmdir("d"));
  for (const char* const* name = (const char*[]){"d/f", "d/g", "d/l", 0}; *name; ++name) unlink(*name);
  say("rmdir", rmdir("d"));
  close(fd), close(copy), close(path);
  say("close twice", close(fd));
  say("open a bad pointer", open((char*)1, O_RDONLY));
  say("the lowest descriptor", dup(0));
  close(3);
  say("close_range", close_range(3, ~0u, 0));
  say("dup2 far", dup2(0, 500));
  close(500);
}

static void events(void) {
  int both[2], epoll = epoll_create1(EPOLL_CLOEXEC);
  say("pipe", pipe2(both, O_NONBLOCK));
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = 0x123456789abcdef0}, got[3];
  say("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, both[0], &event));
  say("epoll_ctl again", epoll_ctl(epoll, EPOLL_CTL_ADD, both[0], &event));
  int fd = eventfd(3, EFD_NONBLOCK);
  event.data.u64 = 77;
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  write(both[1], "x", 1);
  int count = epoll_wait(epoll, got, 3, 1000);
  printf("%d:", count);
  unsigned long sum = 0;
  for (int i = 0; i < count; ++i) printf(" %x", got[i].events), sum += got[i].data.u64;
  printf(" %lx\n", sum);
  say("EPOLL_CTL_DEL", epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL));
  say("epoll_wait for none", epoll_wait(epoll, got, 0, 0));
  unsigned long value = 0;
  say("eventfd", read(fd, &value, 8));
  printf("%lu\n", value);
  say("eventfd again", read(fd, &value, 8));
  struct pollfd polled[2] = {{both[0], POLLIN, 0}, {both[1], POLLOUT, 0}};
  say("poll", poll(polled, 2, 0));
  printf("%x %x\n", polled[0].revents, polled[1].revents);
  fd_set set;
  FD_ZERO(&set);
  FD_SET(both[0], &set);
  struct timeval timeout = {0, 1000};
  say("select", select(both[0] + 1, &set, NULL, NULL, &timeout));
  int available = 0;
  say("FIONREAD", ioctl(both[0], FIONREAD, &available));
  printf("%d\n", available);
  say("TIOCGWINSZ of a pipe", ioctl(both[0], TIOCGWINSZ, &set));
  int watch = inotify_init1(IN_NONBLOCK);
  mkdir("watched", 0700);
  say("inotify", inotify_add_watch(watch, "watched", IN_CREATE));
  close(open("watched/new", O_CREAT | O_WRONLY, 0600));
  struct inotify_event* note = (struct inotify_event*)(char[4096]){0};
  say("inotify event", read(watch, note, 4096) > 0 && strcmp(note->name, "new") == 0 && note->mask == IN_CREATE);
  unlink("watched/new"), rmdir("watched");
  int timer = timerfd_create(CLOCK_MONOTONIC, 0);
  timerfd_settime(timer, 0, &(struct itimerspec){.it_value.tv_nsec = 1000}, NULL);
  say("timerfd", read(timer, &value, 8));
  close(both[0]), close(both[1]), close(epoll), close(fd), close(watch), close(timer);
}

static void sockets(void) {
  int pair[2];
  say("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  // A descriptor and bytes from two places.
  int null = open("/dev/null", O_RDONLY);
  char control[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec parts[2] = {{"abc", 3}, {"defg", 4}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  *header = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  memcpy(CMSG_DATA(header), &null, sizeof null);
  say("sendmsg", sendmsg(pair[0], &message, 0));
  char text[64] = {0};
  struct iovec into = {text, sizeof text};
  memset(control, 0, sizeof control);
  message = (struct msghdr){.msg_iov = &into, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  say("recvmsg", recvmsg(pair[1], &message, 0));
  int passed = -1;
  memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof passed);
  printf("%s %zu %x %d\n", text, message.msg_controllen, message.msg_flags, fcntl(passed, F_GETFD));
  message.msg_iov = (void*)8;
  say("sendmsg of a bad one", sendmsg(pair[0], &message, 0));
  message.msg_iovlen = 10000;
  say("sendmsg of too many", sendmsg(pair[0], &message, 0));
  struct mmsghdr many[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = parts + 1, .msg_iovlen = 1}}};
  say("sendmmsg", sendmmsg(pair[0], many, 2, 0));
  printf("%u %u\n", many[0].msg_len, many[1].msg_len);
  many[0].msg_hdr.msg_iov = &into;
  say("recvmmsg", recvmmsg(pair[1], many, 1, MSG_DONTWAIT, NULL));
  printf("%u %.7s\n", many[0].msg_len, text);
  int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  say("SO_REUSEADDR", setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  say("bind", bind(server, (struct sockaddr*)&address, size));
  say("listen", listen(server, 1));
  say("getsockname", getsockname(server, (struct sockaddr*)&address, &size));
  int client = socket(AF_INET, SOCK_STREAM, 0);
  say("connect", connect(client, (struct sockaddr*)&address, size));
  int peer = accept4(server, NULL, NULL, SOCK_NONBLOCK);
  say("accept", peer >= 0);
  say("send", send(client, "ping", 4, MSG_NOSIGNAL));
  say("recv", recv(peer, text, sizeof text, 0));
  say("recv of nothing", recv(peer, text, sizeof text, 0));
  int type = 0;
  size = sizeof type;
  say("getsockopt", getsockopt(client, SOL_SOCKET, SO_TYPE, &type, &size));
  printf("%d %u\n", type, size);
  say("shutdown", shutdown(client, SHUT_WR));
  say("end", recv(peer, text, sizeof text, 0));
  close(client), close(peer), close(server), close(pair[0]), close(pair[1]), close(null), close(passed);
}

static void shared(void) {
  int id = shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600);
  char* memory = shmat(id, NULL, 0);
  say("shmat", memory != (void*)-1);
  char* twice = shmat(id, NULL, SHM_RDONLY);
  strcpy(memory, "shared");
  printf("%s\n", twice);
  struct shmid_ds status;
  say("IPC_STAT", shmctl(id, IPC_STAT, &status));
  printf("%zu %lu\n", status.shm_segsz, status.shm_nattch);
  say("shmat over another", shmat(id, memory, 0) != (void*)-1);
  say("shmdt", shmdt(memory));
  say("shmdt again", shmdt(memory));
  say("shmdt", shmdt(twice));
  say("IPC_RMID", shmctl(id, IPC_RMID, NULL));
  id = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
  say("SETALL", semctl(id, 0, SETALL, (unsigned short[]){4, 5}));
  say("semop", semop(id, &(struct sembuf){1, -2, 0}, 1));
  say("GETVAL", semctl(id, 1, GETVAL));
  struct semid_ds semaphores;
  say("IPC_STAT", semctl(id, 0, IPC_STAT, &semaphores));
  printf("%lu %o %d\n", semaphores.sem_nsems, semaphores.sem_perm.mode, semaphores.sem_ctime > 1000);
  semaphores.sem_perm.mode = 0640;
  say("IPC_SET", semctl(id, 0, IPC_SET, &semaphores));
  semctl(id, 0, IPC_STAT, &semaphores);
  printf("%o\n", semaphores.sem_perm.mode);
  say("IPC_RMID", semctl(id, 0, IPC_RMID));
  id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
  struct { long type; char text[8]; } sent = {5, "letter"}, got = {0};
  say("msgsnd", msgsnd(id, &sent, sizeof sent.text, 0));
  say("msgrcv", msgrcv(id, &got, sizeof got.text, 5, IPC_NOWAIT));
  struct msqid_ds queue;
  say("IPC_STAT", msgctl(id, IPC_STAT, &queue));
  printf("%s %lu %d\n", got.text, queue.msg_qnum, queue.msg_lrpid == getpid());
  msgctl(id, IPC_RMID, NULL);
}

static volatile char sink;

static void grow(int depth) {
  char block[100000];
  memset(block, depth, sizeof block);
  sink = block[depth];
  if (depth > 0) grow(depth - 1);
}

static void memory(void) {
  const long page = 4096;
  char* p = mmap(NULL, 8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  say("mmap", p != MAP_FAILED);
  say("length 0", mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
  say("too long", mmap(NULL, 1ul << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
  say("noreplace", mmap(p, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != MAP_FAILED);
  say("bad descriptor", mmap(NULL, page, PROT_READ, MAP_PRIVATE, 99, 0) != MAP_FAILED);
  say("odd offset", mmap(NULL, page, PROT_READ, MAP_PRIVATE, 0, 1) != MAP_FAILED);
  say("mprotect", mprotect(p + 2 * page, page, PROT_READ));
  say("read into what is read-only", read(open("/dev/zero", O_RDONLY), p + 2 * page, 1));
  say("munmap", munmap(p + 5 * page, page));
  say("munmap again", munmap(p + 5 * page, page));
  say("odd munmap", munmap(p + 1, page));
  say("mprotect over a hole", mprotect(p, 8 * page, PROT_READ | PROT_WRITE));
  say("msync over a hole", msync(p, 8 * page, MS_ASYNC));
  unsigned char present[8];
  p[0] = 1;
  say("mincore", mincore(p, page, present));
  printf("%d\n", present[0] & 1);
  say("mincore of a hole", mincore(p + 5 * page, page, present));
  say("madvise", madvise(p, page, MADV_DONTNEED));
  printf("%d\n", p[0]);
  say("bad advice", madvise(p, page, 12345));
  say("mlock", mlock(p, page));
  say("munlock", munlock(p, page));
  p[3 * page] = 9;
  char* moved = mremap(p + 3 * page, page, 3 * page, MREMAP_MAYMOVE);
  say("mremap", moved != MAP_FAILED);
  printf("%d\n", moved[0]);
  say("mremap of nothing", mremap(p + 5 * page, page, 2 * page, MREMAP_MAYMOVE) != MAP_FAILED);
  say("mremap without MAYMOVE", mremap(p, page, 1 << 20, 0) != MAP_FAILED);
  int fd = memfd_create("m", MFD_CLOEXEC);
  ftruncate(fd, page);
  char* file = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  file[5] = 'x';
  char c = 0;
  say("pread", pread(fd, &c, 1, 5));
  printf("%c\n", c);
  const pid_t child = fork();
  if (child == 0) file[6] = 'y', _exit(0);
  waitpid(child, NULL, 0);
  printf("%c\n", file[6]);
  close(fd);
  char* start = sbrk(0);
  say("sbrk", sbrk(100000) == start);
  start[99999] = 3;
  say("sbrk", sbrk(-100000) == start + 100000);
  grow(60);
  printf("grown\n");
  char from[4] = "abc", into[4] = "";
  struct iovec local = {into, 4}, remote = {from, 4};
  say("process_vm_readv", process_vm_readv(getpid(), &local, 1, &remote, 1, 0));
  printf("%s\n", into);
  struct rlimit limit;
  say("getrlimit", getrlimit(RLIMIT_NOFILE, &limit));
  printf("%lu\n", limit.rlim_cur);
  const struct rlimit tight = {1ul << 30, 1ul << 31};
  say("setrlimit", setrlimit(RLIMIT_AS, &tight));
  getrlimit(RLIMIT_AS, &limit);
  printf("%lu %lu\n", limit.rlim_cur, limit.rlim_max);
  say("mmap beyond it", mmap(NULL, 3ul << 29, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
}

static void in_proc(const char* self) {
  char link[PATH_MAX] = "", real[PATH_MAX], line[PATH_MAX];
  readlink("/proc/self/exe", link, sizeof link);
  printf("%d\n", strcmp(link, realpath(self, real)) == 0);
  struct stat a, b;
  stat("/proc/self/exe", &a), stat(self, &b);
  lstat("/proc/self/exe", &b);
  printf("%d %d\n", a.st_ino == b.st_ino, S_ISLNK(b.st_mode));
  const pid_t child = fork();
  if (child == 0) pause();
  char name[64], other[PATH_MAX] = "";
  snprintf(name, sizeof name, "/proc/%d/exe", child);
  readlink(name, other, sizeof other);
  printf("%d\n", strcmp(other, real) == 0);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  FILE* maps = fopen("/proc/self/maps", "r");
  int program = 0, stack = 0, heap = 0, wrong = 0;
  unsigned long start, end, last = 0, here = (unsigned long)&start;
  malloc(10);
  while (fgets(line, sizeof line, maps)) {
    char protection[5];
    sscanf(line, "%lx-%lx %4s", &start, &end, protection);
    if (start < last || end <= start) ++wrong;
    last = end;
    if (strstr(line, real) && strcmp(protection, "r-xp") == 0) ++program;
    if (strstr(line, "[stack]") && start <= here && here < end && strcmp(protection, "rw-p") == 0) ++stack;
    if (strstr(line, "[heap]")) ++heap;
  }
  fclose(maps);
  printf("program %d, stack %d, heap %d, wrong %d\n", program, stack, heap, wrong);
  // The same by other ways.
  char here_was[PATH_MAX];
  getcwd(here_was, sizeof here_was);
  const int folder = open("/proc/self", O_RDONLY | O_DIRECTORY);
  char by_descriptor[64];
  snprintf(by_descriptor, sizeof by_descriptor, "/proc/self/fd/%d/maps", folder);
  chdir("/proc/self/task");
  static const char* const ways[] = {"maps", NULL, "../maps", "/proc/self/./task/../maps", "/proc/../proc/self/maps"};
  for (int i = 0; i < 5; ++i) {
    const int fd = i == 0 ? openat(folder, ways[i], O_RDONLY) : open(ways[i] ? ways[i] : by_descriptor, O_RDONLY);
    maps = fdopen(fd, "r");
    while (fgets(line, sizeof line, maps)) {
      if (strstr(line, real) && strstr(line, " r-xp ")) printf("way %d\n", i);
    }
    fclose(maps);
  }
  chdir("/proc");
  memset(link, 0, sizeof link);
  say("readlink", readlinkat(folder, "exe", link, sizeof link) == (ssize_t)strlen(real));
  printf("%d\n", strcmp(link, real) == 0);
  stat(real, &a);
  fstatat(folder, "exe", &b, 0);
  printf("%d\n", a.st_ino == b.st_ino);
  stat("self/exe", &b);
  printf("%d\n", a.st_ino == b.st_ino);
  say("exe of a file", readlinkat(folder, "maps/exe", link, sizeof link));
  say("exe of nothing", open("self/fd/999/exe", O_RDONLY));
  say("exe of no directory", openat(999, "exe", O_RDONLY));
  close(folder);
  chdir(here_was);
  FILE* file = fopen("/proc/self/cmdline", "r");
  fread(line, 1, sizeof line, file);
  fclose(file);
  printf("%d\n", strcmp(line, self) == 0);
  file = fopen("/proc/self/comm", "r");
  fgets(line, sizeof line, file);
  fclose(file);
  line[strcspn(line, "\n")] = 0;
  printf("%d\n", strncmp(strrchr(self, '/') + 1, line, 15) == 0);
  unsigned long entry[2];
  int page = 0, fd = open("/proc/self/auxv", O_RDONLY);
  while (read(fd, entry, 16) == 16 && entry[0] != 0) page |= entry[0] == 6 && entry[1] == 4096;
  close(fd);
  printf("%d\n", page);
}

// What runs cannot be written, and what is written cannot run.
static void busy(const char* self) {
  struct stat s, after;
  stat(self, &s);
  say("write to oneself", open(self, O_WRONLY));
  say("and truncate", open(self, O_RDWR | O_TRUNC));
  stat(self, &after);
  say("size", after.st_size == s.st_size);
  int in = open(self, O_RDONLY), out = open("copy", O_RDWR | O_CREAT | O_TRUNC, 0755);
  say("copy", sendfile(out, in, 0, (size_t)s.st_size) == s.st_size);
  char* const command[] = {"copy", "wait", 0};
  char* const environment[] = {0};
  say("run what is written", execve("copy", command, environment));
  close(in), close(out);
  int pipes[2];
  pipe(pipes);
  pid_t child = vfork();
  if (child == 0) {
    dup2(pipes[1], 1);
    execve("copy", command, environment);
    _exit(1);
  }
  char byte;
  say("it runs", read(pipes[0], &byte, 1));
  say("write to another one", open("copy", O_RDWR));
  say("read it", open("copy", O_RDONLY) >= 0);
  kill(child, SIGKILL);
  waitpid(child, 0, 0);
  // Who ends is gone a moment before its files are.
  while ((out = open("copy", O_WRONLY | O_TRUNC)) < 0 && errno == ETXTBSY) usleep(1000);
  say("write to what ran", out >= 0 && fstat(out, &after) == 0 && after.st_size == 0);
  close(out);
  say("unlink", unlink("copy"));
}

int main(int count, char** arguments) {
  if (count > 1 && !strcmp(arguments[1], "wait")) return (int)write(1, "x", 1) + pause();
  char folder[PATH_MAX];
  snprintf(folder, sizeof folder, "%s", arguments[0]);
  *strrchr(folder, '/') = 0;
  chdir(folder);
  files();
  events();
  sockets();
  shared();
  in_proc(arguments[0]);
  memory();
  busy(arguments[0]);
  say("a call that is none", syscall(1000));
}
