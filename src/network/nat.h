// Rootless network address translation: the guest's frames become ordinary sockets of this process, by libslirp.
//
// The guest is 10.0.2.15 (by DHCP), the host 10.0.2.2, its name server 10.0.2.3, as users of other virtual
// machines expect. libslirp is single-threaded, so everything happens on the event loop's thread; what it wants
// to poll and when it wants to be called is brought up to date once a turn of the loop.
#pragma once

#include <libslirp.h>

#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/result.h"
#include "network/forward.h"
#include "network/network_backend.h"

namespace doppel {

struct NatOptions {
  std::vector<ForwardRule> forwards = {};
  bool ipv6 = true;
};

class Nat final : public NetworkBackend {
 public:
  // Fails when a forwarded port of the host is taken or not allowed.
  static Result<std::unique_ptr<NetworkBackend>> open(const NatOptions& options, EventLoop& loop);
  ~Nat() override;

  void send(std::span<const iovec> frame) override;
  void set_receiver(Receiver receiver) override;
  void resume() override;

 private:
  using Frame = std::vector<std::byte>;

  struct Poll {  // what libslirp waits for, and what has come of it
    int fd;
    int wanted;
    int happened;
  };

  explicit Nat(EventLoop& loop);
  Result<void> start(const NatOptions& options);

  static const SlirpCb& callbacks();
  static Nat& from(void* opaque) { return *static_cast<Nat*>(opaque); }

  void settle_soon();
  void tell_time();
  void settle();
  void deliver();
  void update_polls();
  void happened(int fd, std::uint32_t readiness);
  void keep(std::span<const std::byte> frame);

  EventLoop& loop_;
  Slirp* slirp_ = nullptr;
  Receiver receiver_;

  std::deque<Frame> frames_;  // for the guest
  std::vector<Frame> spare_;  // their buffers, when empty
  bool receiver_full_ = false;
  std::vector<std::byte> sending_;

  std::vector<Poll> polls_;
  struct Watch {
    std::uint32_t interest = 0;
    bool wanted = false;
  };
  std::unordered_map<int, Watch> watches_;
  std::unique_ptr<EventLoop::Timer> deadline_;
  bool settling_soon_ = false;
  LogLimit log_limit_;
  std::shared_ptr<Nat*> self_;  // what is posted to the loop holds a weak reference to it
};

}  // namespace doppel
