// Serves one gdb at a time, on a TCP port of the host itself or at a socket in the file system, with a Target.
//
// Everything happens on the event loop's thread. The target may come and go: a machine that resets is a new one, and
// the session goes on with it. A connection that is lost counts as a detach.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "debug/debug_target.h"
#include "debug/gdb_protocol.h"

namespace doppel::debug {

class GdbServer {
 public:
  struct Socket {
    UniqueFd fd;
    std::string path;  // to be removed at the end; empty: nothing is
  };
  // `where` is a port of 127.0.0.1, when it is a number, or the path of a socket.
  static Result<Socket> open(const std::string& where);
  static std::unique_ptr<GdbServer> listen(EventLoop& loop, Socket socket);
  // Serves `client` alone, then nobody.
  static std::unique_ptr<GdbServer> serve(EventLoop& loop, UniqueFd client);
  ~GdbServer();

  // `target` stands still. It stays so until a debugger lets it go; one that replaces a running target goes on by
  // itself, with the same points.
  void attach(Target& target);
  // The target is about to go; another may follow.
  void release_target();
  // The target has ended for good: tells the peer, and hangs up. `killed`: by signal `code`.
  void ended(unsigned code, bool killed = false);

 private:
  GdbServer(EventLoop& loop, Socket socket);

  void listen_again();
  void accept();
  void begin_session(UniqueFd client);
  void end_session();
  void detach();

  void on_readiness(std::uint32_t readiness);
  void receive();
  void flush();
  void send(std::string_view payload);
  void handle(const GdbInput& input);

  // Answers a packet. nullopt: no answer now.
  std::optional<std::string> answer(std::string_view packet);
  std::optional<std::string> answer_query(std::string_view packet);
  std::optional<std::string> answer_v(std::string_view packet);
  std::string supported(std::string_view features);
  std::string transfer(std::string_view packet);
  std::string monitor(std::string_view digits);
  std::string select_thread(std::string_view rest);
  std::string read_registers();
  std::string write_registers(std::string_view digits);
  std::string read_register(std::string_view rest);
  std::string write_register(std::string_view rest);
  std::string read_memory(std::string_view rest);
  std::string write_memory(std::string_view rest, bool binary);
  std::string change_point(std::string_view packet);
  std::optional<std::string> resume(std::string_view packet);
  std::optional<std::string> resume_threads(std::string_view actions);
  std::optional<std::string> go(std::vector<ResumeAction> actions);

  bool exists(ThreadId thread) const;
  ThreadId selected();
  void stopped(const StopEvent& event);
  std::string stop_reply(const StopEvent& event) const;
  void forget_points();

  EventLoop& loop_;
  UniqueFd socket_;
  const std::string path_;  // of the socket; empty when it has none
  UniqueFd client_;
  bool hang_up_ = false;  // once all is sent
  GdbDecoder decoder_;
  std::string output_;
  std::string last_packet_;
  bool acknowledge_ = true;
  bool stop_acknowledging_ = false;  // after the answer in hand
  bool knows_software_breaks_ = false, knows_hardware_breaks_ = false, knows_none_left_ = false;

  Target* target_ = nullptr;
  bool running_ = false;  // or would be, had it a target
  ThreadId general_thread_ = 0, resumed_thread_ = 0;  // 0: any
  StopEvent last_stop_;
  std::vector<Point> points_;
};

}  // namespace doppel::debug
