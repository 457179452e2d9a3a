// Serves gdb with one process, on a thread of its own.
//
// That thread takes no signals, and has a table of descriptors of its own: the guest cannot see, close or pass on to its
// children what it holds, and what the guest closes is closed.
#pragma once

#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "debug/gdb_server.h"
#include "process/abi/debug_threads.h"

namespace doppel::process {

class DebugServer {
 public:
  // Before the host's process changes its root. A socket that lies outside is not removed at the end.
  static Result<std::shared_ptr<DebugServer>> listen(const std::string& where, bool changes_root);
  // Only before start(): after it there is no end but the process's.
  ~DebugServer();

  // Serves `process`, of which no thread runs yet.
  void start(LinuxProcess& process);
  DebugThreads& threads() { return *threads_; }
  // Lets gdb come, once there is a thread.
  void attach();
  // Hangs up. On a guest's thread, as the last thing of the process.
  void stop();

 private:
  DebugServer(debug::GdbServer::Socket socket, UniqueFd memory);
  void serve(LinuxProcess& process);
  void take_descriptors() const;
  void watch_calls();
  void end();
  // Has the server's thread call `function` soon. Any thread: a loop's own way needs its descriptors.
  void call(std::function<void()> function);

  debug::GdbServer::Socket socket_;
  UniqueFd memory_;
  // Of the server's thread, after start().
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<DebugThreads> threads_;
  std::unique_ptr<debug::GdbServer> server_;
  UniqueFd wake_;
  pid_t id_ = 0;
  std::latch ready_{1}, over_{1};
  std::mutex mutex_;
  std::vector<std::function<void()>> calls_;  // guarded by mutex_
};

}  // namespace doppel::process
