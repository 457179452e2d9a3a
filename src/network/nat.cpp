#include "network/nat.h"

#include <arpa/inet.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <utility>

#include "base/io_vector.h"

namespace doppel {
namespace {

// Frames that wait for the guest; TCP's windows keep it far lower, and UDP expects losses.
constexpr std::size_t kMaxWaitingFrames = 1024;

std::uint32_t to_interest(int wanted) {
  return ((wanted & SLIRP_POLL_IN) != 0 ? EventLoop::kReadable : 0u) |
         ((wanted & SLIRP_POLL_OUT) != 0 ? EventLoop::kWritable : 0u);
}

int from_readiness(std::uint32_t readiness) {
  return ((readiness & EventLoop::kReadable) != 0 ? SLIRP_POLL_IN : 0) |
         ((readiness & EventLoop::kWritable) != 0 ? SLIRP_POLL_OUT : 0) |
         ((readiness & EventLoop::kHangup) != 0 ? SLIRP_POLL_HUP | SLIRP_POLL_ERR : 0);
}

in_addr address4(const char* text) {
  in_addr address{};
  ::inet_pton(AF_INET, text, &address);
  return address;
}

in6_addr address6(const char* text) {
  in6_addr address{};
  ::inet_pton(AF_INET6, text, &address);
  return address;
}

struct SlirpTimer {
  std::unique_ptr<EventLoop::Timer> timer;
};

}  // namespace

const SlirpCb& Nat::callbacks() {
  static const SlirpCb table = [] {
    SlirpCb callbacks{};
    callbacks.send_packet = [](const void* frame, std::size_t size, void* opaque) -> ssize_t {
      from(opaque).keep({static_cast<const std::byte*>(frame), size});
      return static_cast<ssize_t>(size);
    };
    callbacks.guest_error = [](const char* message, void* opaque) {
      log_limited(from(opaque).log_limit_, "network: the guest sent what no network takes: {}", message);
    };
    callbacks.clock_get_ns = [](void*) -> std::int64_t {
      return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
    };
    callbacks.timer_new = [](SlirpTimerCb function, void* argument, void* opaque) -> void* {
      Nat& nat = from(opaque);
      return new SlirpTimer{nat.loop_.make_timer([&nat, function, argument] {
        function(argument);
        nat.settle_soon();
      })};
    };
    callbacks.timer_free = [](void* timer, void*) { delete static_cast<SlirpTimer*>(timer); };
    callbacks.timer_mod = [](void* timer, std::int64_t expiry_ms, void*) {
      static_cast<SlirpTimer*>(timer)->timer->arm(HostTime(std::chrono::milliseconds(expiry_ms)));
    };
    callbacks.register_poll_fd = [](int, void*) {};  // update_polls() sees it
    callbacks.unregister_poll_fd = [](int fd, void* opaque) {
      // It is closed next, and its number may come back as another socket.
      Nat& nat = from(opaque);
      if (nat.watches_.erase(fd) != 0) nat.loop_.unwatch(fd);
    };
    callbacks.notify = [](void* opaque) { from(opaque).settle_soon(); };
    return callbacks;
  }();
  return table;
}

Result<std::unique_ptr<NetworkBackend>> Nat::open(const NatOptions& options, EventLoop& loop) {
  std::unique_ptr<Nat> nat(new Nat(loop));
  if (auto started = nat->start(options); !started) return std::unexpected(started.error());
  return nat;
}

Nat::Nat(EventLoop& loop) : loop_(loop), self_(std::make_shared<Nat*>(this)) {
  deadline_ = loop_.make_timer([this] { settle(); });
}

Result<void> Nat::start(const NatOptions& options) {
  SlirpConfig config{};
  config.version = SLIRP_CONFIG_VERSION_MAX;
  config.in_enabled = true;
  config.vnetwork = address4("10.0.2.0");
  config.vnetmask = address4("255.255.255.0");
  config.vhost = address4("10.0.2.2");
  config.vdhcp_start = address4("10.0.2.15");
  config.vnameserver = address4("10.0.2.3");
  config.in6_enabled = options.ipv6;
  config.vprefix_addr6 = address6("fec0::");
  config.vprefix_len = 64;
  config.vhost6 = address6("fec0::2");
  config.vnameserver6 = address6("fec0::3");
  slirp_ = ::slirp_new(&config, &callbacks(), this);
  if (slirp_ == nullptr) return fail("libslirp refuses to start the user network");
  for (const ForwardRule& forward : options.forwards) {
    const bool udp = forward.protocol == ForwardRule::Protocol::kUdp;
    if (::slirp_add_hostfwd(slirp_, udp ? SLIRP_HOSTFWD_UDP : 0, forward.host_address, forward.host_port,
                            forward.guest_address, forward.guest_port) != 0) {
      return fail_errno(errno, "--net: cannot forward {}", forward.text());
    }
  }
  update_polls();
  return {};
}

Nat::~Nat() {
  for (const auto& [fd, watch] : watches_) loop_.unwatch(fd);
  watches_.clear();
  if (slirp_ != nullptr) ::slirp_cleanup(slirp_);
}

void Nat::send(std::span<const iovec> frame) {
  // Into memory of our own: the guest may change its own while libslirp looks at it.
  sending_.resize(total_bytes(frame));
  gather(frame, sending_);
  tell_time();
  // libslirp declares bytes; std::byte may alias them.
  ::slirp_input(slirp_, reinterpret_cast<const std::uint8_t*>(sending_.data()), static_cast<int>(sending_.size()));
  settle_soon();
}

// libslirp knows the time of its last poll only. By a stale one it would give what this frame opens a life that
// is over already. "Error" means: no socket has anything to say.
void Nat::tell_time() {
  constexpr int kError = 1;
  ::slirp_pollfds_poll(slirp_, kError, [](int, void*) { return 0; }, this);
}

void Nat::set_receiver(Receiver receiver) {
  receiver_ = std::move(receiver);
  receiver_full_ = false;
}

void Nat::resume() {
  receiver_full_ = false;
  if (!frames_.empty()) settle_soon();
}

void Nat::keep(std::span<const std::byte> frame) {
  if (!receiver_ || frames_.size() == kMaxWaitingFrames) return;
  Frame kept;
  if (!spare_.empty()) {
    kept = std::move(spare_.back());
    spare_.pop_back();
  }
  kept.assign(frame.begin(), frame.end());
  frames_.push_back(std::move(kept));
  settle_soon();
}

void Nat::settle_soon() {
  if (std::exchange(settling_soon_, true)) return;
  loop_.post([weak = std::weak_ptr(self_)] {
    if (const auto self = weak.lock()) (*self)->settle();
  });
}

// Once a turn: tells libslirp what happened, hands out what it made of that, and asks what it waits for next.
void Nat::settle() {
  settling_soon_ = false;
  // Also when nothing happened: this is where libslirp sends what waited for the guest's address.
  ::slirp_pollfds_poll(
      slirp_, 0,
      [](int index, void* opaque) { return from(opaque).polls_[static_cast<std::size_t>(index)].happened; }, this);
  deliver();
  update_polls();
}

void Nat::deliver() {
  while (!frames_.empty() && !receiver_full_) {
    if (receiver_ && !receiver_(frames_.front())) {
      receiver_full_ = true;
      return;
    }
    spare_.push_back(std::move(frames_.front()));
    frames_.pop_front();
  }
}

void Nat::happened(int fd, std::uint32_t readiness) {
  for (Poll& poll : polls_) {
    if (poll.fd == fd) poll.happened |= from_readiness(readiness);
  }
  settle_soon();
}

void Nat::update_polls() {
  constexpr std::uint32_t kForever = std::numeric_limits<std::uint32_t>::max();
  std::uint32_t timeout_ms = kForever;
  polls_.clear();
  ::slirp_pollfds_fill(
      slirp_, &timeout_ms,
      [](int fd, int wanted, void* opaque) {
        from(opaque).polls_.push_back({fd, wanted, 0});
        return static_cast<int>(from(opaque).polls_.size()) - 1;
      },
      this);

  for (auto& [fd, watch] : watches_) watch.wanted = false;
  for (const Poll& poll : polls_) {
    const auto [entry, added] = watches_.try_emplace(poll.fd);
    Watch& watch = entry->second;
    const std::uint32_t interest = to_interest(poll.wanted);
    if (added) {
      loop_.watch(poll.fd, interest, [this, fd = poll.fd](std::uint32_t readiness) { happened(fd, readiness); });
    } else if (watch.interest != interest) {
      loop_.change_interest(poll.fd, interest);
    }
    watch = {interest, true};
  }
  std::erase_if(watches_, [this](const auto& entry) {
    if (!entry.second.wanted) loop_.unwatch(entry.first);
    return !entry.second.wanted;
  });

  if (timeout_ms == kForever) {
    deadline_->cancel();
  } else {
    deadline_->arm(std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms));
  }
}

}  // namespace doppel
