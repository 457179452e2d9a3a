#include "process/abi/debug_server.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "process/abi/signals.h"

namespace doppel::process {
namespace {

constexpr int kWake = SIGURG;

// Away from standard input, output and error, which may be closed.
Result<UniqueFd> beyond_standard(UniqueFd fd) {
  UniqueFd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  if (!moved) return fail_errno(errno, "--gdb");
  return moved;
}

}  // namespace

DebugServer::DebugServer(debug::GdbServer::Socket socket, UniqueFd memory)
    : socket_(std::move(socket)), memory_(std::move(memory)) {}

DebugServer::~DebugServer() {
  if (!socket_.path.empty()) ::unlink(socket_.path.c_str());
}

Result<std::shared_ptr<DebugServer>> DebugServer::listen(const std::string& where, bool changes_root) {
  auto socket = debug::GdbServer::open(where);
  if (!socket) return std::unexpected(socket.error());
  auto fd = beyond_standard(std::move(socket->fd));
  if (!fd) return std::unexpected(fd.error());
  UniqueFd memory(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
  if (!memory) return fail_errno(errno, "--gdb: /proc/self/mem");
  auto moved = beyond_standard(std::move(memory));
  if (!moved) return std::unexpected(moved.error());
  // The program may go elsewhere meanwhile.
  std::string path = socket->path.empty() || changes_root ? "" : std::filesystem::absolute(socket->path).string();
  return std::shared_ptr<DebugServer>(new DebugServer({std::move(*fd), std::move(path)}, std::move(*moved)));
}

void DebugServer::start(LinuxProcess& process) {
  const std::uint64_t mask = host_mask();
  set_host_mask(~std::uint64_t{0});
  std::thread([this, &process] { serve(process); }).detach();
  set_host_mask(mask);
  ready_.wait();
  // The thread has copies.
  ::close(socket_.fd.get());
  ::close(memory_.get());
}

void DebugServer::attach() {
  call([this] {
    server_ = debug::GdbServer::listen(*loop_, std::move(socket_));
    server_->attach(*threads_);
  });
}

// Those of the server become this thread's alone, and all others are closed, but for where the log goes.
void DebugServer::take_descriptors() const {
  if (::unshare(CLONE_FILES | CLONE_FS) != 0) {
    log_error("--gdb: {}", std::strerror(errno));
    ::_exit(125);
  }
  std::vector<int> kept{STDERR_FILENO, socket_.fd.get(), memory_.get()};
  if (log_descriptor() >= 0) kept.push_back(log_descriptor());
  std::ranges::sort(kept);
  int next = 0;
  for (const int fd : kept) {
    if (next < fd) ::syscall(SYS_close_range, next, fd - 1, 0);
    next = fd + 1;
  }
  ::syscall(SYS_close_range, next, ~0u, 0);
  // So that no descriptor to come is taken for one of these.
  for (int fd = 0; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0) ::dup2(socket_.fd.get(), fd);
  }
}

// A blocked signal to this thread alone says that there is something to call.
void DebugServer::watch_calls() {
  id_ = ::gettid();
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, kWake);
  wake_ = UniqueFd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  loop_->watch(wake_.get(), EventLoop::kReadable, [this](std::uint32_t) {
    signalfd_siginfo info{};
    while (::read(wake_.get(), &info, sizeof info) > 0) continue;
    std::vector<std::function<void()>> calls;
    {
      const std::lock_guard lock(mutex_);
      calls.swap(calls_);
    }
    for (const auto& function : calls) function();
  });
}

void DebugServer::call(std::function<void()> function) {
  {
    const std::lock_guard lock(mutex_);
    calls_.push_back(std::move(function));
  }
  ::syscall(SYS_tgkill, ::getpid(), id_, kWake);
}

void DebugServer::serve(LinuxProcess& process) {
  take_descriptors();
  loop_ = std::make_unique<EventLoop>();
  watch_calls();
  threads_ = std::make_unique<DebugThreads>(
      process, [this](std::function<void()> function) { call(std::move(function)); },
      [this] {
        call([this] {
          end();
          ::kill(::getpid(), SIGKILL);
        });
      },
      memory_.get());
  ready_.count_down();
  loop_->run();
  over_.count_down();
  // The process may go on to end by its threads, one after the other, and the C library shall not mistake this for the
  // last.
  for (;;) ::syscall(SYS_exit, 0);
}

void DebugServer::end() {
  server_.reset();
  loop_->stop();
}

void DebugServer::stop() {
  call([this] { end(); });
  over_.wait();
}

}  // namespace doppel::process
