// The GDB server with a target that runs nothing, over packets that are the lines of the input. "!" makes the target
// stop, as if something had happened.
//
// The oracle: the server survives, and after a lost connection the target runs, free of points.
#include <sys/socket.h>

#include <array>

#include "debug/fake_target.h"
#include "debug/gdb_server.h"
#include "input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace doppel;
  using namespace doppel::debug;
  std::array<int, 2> ends{};
  DOPPEL_FUZZ_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()) == 0);
  UniqueFd peer(ends[0]);
  EventLoop loop;
  FakeTarget target;
  const auto server = GdbServer::serve(loop, UniqueFd(ends[1]));
  server->attach(target);
  const auto run_loop = [&loop] {
    // What is posted runs after what is ready was handled.
    loop.post([&loop] { loop.post([&loop] { loop.stop(); }); });
    loop.run();
  };

  // A char may alias any byte.
  GdbFields lines({reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 4096)});
  std::array<char, 65536> answers;
  while (!lines.empty()) {
    const std::string_view line = lines.until('\n');
    if (line == "!" && target.running) {
      target.stop({StopEvent::Kind::kSignal, 2, kSignalTrap, {}, 0});
    } else {
      const std::string packet = gdb_packet(line);
      if (::send(peer.get(), packet.data(), packet.size(), MSG_NOSIGNAL) < 0) break;
      if (line.ends_with('c')) ::send(peer.get(), "\x03", 1, MSG_NOSIGNAL);
    }
    run_loop();
    while (::recv(peer.get(), answers.data(), answers.size(), 0) > 0) {
    }
  }
  peer = UniqueFd();
  run_loop();
  run_loop();
  DOPPEL_FUZZ_CHECK(target.killed || target.running);
  DOPPEL_FUZZ_CHECK(target.killed || target.points.empty());
  return 0;
}
