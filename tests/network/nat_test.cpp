// The user network, with a guest made of hand-written frames.
#include "network/nat.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <functional>
#include <string>

#include "base/unique_fd.h"

namespace doppel {
namespace {

using ::testing::HasSubstr;

// Byte strings, as they stand on the wire.
std::string be16(unsigned value) { return {static_cast<char>(value >> 8), static_cast<char>(value)}; }
unsigned get16(std::string_view bytes, std::size_t at) {
  return static_cast<unsigned>(static_cast<std::uint8_t>(bytes[at]) << 8 | static_cast<std::uint8_t>(bytes[at + 1]));
}
std::string ip(unsigned a, unsigned b, unsigned c, unsigned d) {
  return {static_cast<char>(a), static_cast<char>(b), static_cast<char>(c), static_cast<char>(d)};
}

const std::string kGuestMacBytes("\x52\x54\x00\x12\x34\x56", 6);
const std::string kBroadcast(6, '\xff');
const std::string kGuestIp = ip(10, 0, 2, 15), kHostIp = ip(10, 0, 2, 2), kNoIp = ip(0, 0, 0, 0);

unsigned checksum(std::string_view bytes) {
  unsigned sum = 0;
  for (std::size_t at = 0; at + 1 < bytes.size(); at += 2) sum += get16(bytes, at);
  if (bytes.size() % 2 != 0) sum += static_cast<unsigned>(static_cast<std::uint8_t>(bytes.back()) << 8);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

std::string udp_frame(const std::string& to_mac, const std::string& from_ip, const std::string& to_ip, unsigned from_port,
                      unsigned to_port, const std::string& payload) {
  const std::string udp =
      be16(from_port) + be16(to_port) + be16(static_cast<unsigned>(8 + payload.size())) + be16(0) + payload;
  const auto header = [&](unsigned sum) {
    return std::string("\x45\x00", 2) + be16(static_cast<unsigned>(20 + udp.size())) + std::string("\0\0\0\0\x40\x11", 6) +
           be16(sum) + from_ip + to_ip;
  };
  return to_mac + kGuestMacBytes + be16(0x0800) + header(checksum(header(0))) + udp;
}

std::string arp_frame(unsigned operation, const std::string& to_mac, const std::string& to_ip) {
  return (operation == 1 ? kBroadcast : to_mac) + kGuestMacBytes + be16(0x0806) +
         std::string("\0\1\x08\0\6\4", 6) + be16(operation) + kGuestMacBytes + kGuestIp + to_mac + to_ip;
}

class NatTest : public ::testing::Test {
 protected:
  void open(const NatOptions& options) {
    auto nat = Nat::open(options, loop_);
    ASSERT_TRUE(nat) << nat.error().message;
    nat_ = std::move(*nat);
    nat_->set_receiver([this](std::span<const std::byte> frame) {
      if (!taking_) return false;
      frames_.emplace_back(reinterpret_cast<const char*>(frame.data()), frame.size());
      if (on_frame_) on_frame_(frames_.back());
      return true;
    });
  }
  void send(std::string frame) {
    const std::size_t half = frame.size() / 2;
    const iovec parts[] = {{frame.data(), half}, {frame.data() + half, frame.size() - half}};
    nat_->send(parts);
  }
  // Runs the loop until a frame matches; the answer is that frame.
  std::string wait_for(const std::function<bool(std::string_view)>& matches) {
    std::string found;
    on_frame_ = [&](std::string_view frame) {
      if (found.empty() && matches(frame)) {
        found = frame;
        loop_.stop();
      }
    };
    loop_.run();
    on_frame_ = {};
    return found;
  }
  // As wait_for(), sending a datagram again and again meanwhile: libslirp drops one whose receiver has not
  // told its address within a second, which a busy machine may take.
  std::string wait_for_datagram(const std::function<void()>& send_datagram,
                                const std::function<bool(std::string_view)>& matches) {
    std::unique_ptr<EventLoop::Timer> again;
    const std::function<void()> repeat = [&] {
      send_datagram();
      again->arm(HostTime::clock::now() + std::chrono::milliseconds(200));
    };
    again = loop_.make_timer(repeat);
    repeat();
    return wait_for(matches);
  }
  void run_what_is_due() {
    for (int turn = 0; turn < 4; ++turn) {
      loop_.stop();
      loop_.run();
    }
  }

  EventLoop loop_;
  std::unique_ptr<NetworkBackend> nat_;
  bool taking_ = true;
  std::vector<std::string> frames_;
  std::function<void(std::string_view)> on_frame_;
};

bool is_arp(std::string_view frame, unsigned operation) {
  return frame.size() >= 42 && get16(frame, 12) == 0x0806 && get16(frame, 20) == operation;
}
bool is_udp(std::string_view frame, unsigned to_port) {
  return frame.size() >= 42 && get16(frame, 12) == 0x0800 && frame[23] == 17 && get16(frame, 36) == to_port;
}

// A socket of the host's loopback interface on a port of the kernel's choice.
struct HostSocket {
  explicit HostSocket(int type) : fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0)) {
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    socklen_t size = sizeof address;
    EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  }
  std::uint16_t port() const { return ntohs(address.sin_port); }

  UniqueFd fd;
  sockaddr_in address{};
};

TEST_F(NatTest, HostAnswersForItsAddress) {
  open({});
  send(arp_frame(1, std::string(6, '\0'), kHostIp));
  const std::string answer = wait_for([](std::string_view frame) { return is_arp(frame, 2); });
  EXPECT_EQ(answer.substr(28, 4), kHostIp);
}

TEST_F(NatTest, DhcpOffersTheUsualAddress) {
  open({});
  std::string discover = std::string("\1\1\6\0\x12\x34\x56\x78", 8) + std::string(20, '\0') + kGuestMacBytes;
  discover.resize(236, '\0');
  discover += std::string("\x63\x82\x53\x63\x35\x01\x01\xff", 8);
  send(udp_frame(kBroadcast, kNoIp, ip(255, 255, 255, 255), 68, 67, discover));
  const std::string offer = wait_for([](std::string_view frame) { return is_udp(frame, 68); });
  EXPECT_EQ(offer.substr(42 + 16, 4), kGuestIp);
}

TEST_F(NatTest, GuestReachesTheHostsSocketsAndIsAnswered) {
  open({});
  const HostSocket socket(SOCK_DGRAM);
  send(udp_frame(std::string("\x52\x55\x0a\x00\x02\x02", 6), kGuestIp, kHostIp, 4000, socket.port(), "ping"));
  run_what_is_due();
  char text[16];
  sockaddr_in from{};
  socklen_t size = sizeof from;
  ASSERT_EQ(::recvfrom(socket.fd.get(), text, sizeof text, 0, reinterpret_cast<sockaddr*>(&from), &size), 4);
  EXPECT_EQ(std::string_view(text, 4), "ping");

  const auto pong = [&] {
    ASSERT_EQ(::sendto(socket.fd.get(), "pong", 4, 0, reinterpret_cast<sockaddr*>(&from), size), 4);
  };
  // libslirp asks who the guest is before it sends to it.
  const std::string answer = wait_for_datagram(pong, [this](std::string_view frame) {
    if (is_arp(frame, 1)) send(arp_frame(2, std::string(frame.substr(6, 6)), kHostIp));
    return is_udp(frame, 4000);
  });
  EXPECT_EQ(answer.substr(42, 4), "pong");
  EXPECT_EQ(answer.substr(26, 4), kHostIp);
}

TEST_F(NatTest, ForwardedUdpPortReachesTheGuest) {
  std::uint16_t port = 0;
  {
    const HostSocket probe(SOCK_DGRAM);
    port = probe.port();
  }
  open({.forwards = {*parse_forward("udp:" + std::to_string(port) + ":7")}});
  const HostSocket client(SOCK_DGRAM);
  sockaddr_in to = client.address;
  to.sin_port = htons(port);
  const auto hello = [&] {
    ASSERT_EQ(::sendto(client.fd.get(), "hello", 5, 0, reinterpret_cast<sockaddr*>(&to), sizeof to), 5);
  };
  const std::string frame = wait_for_datagram(hello, [this](std::string_view seen) {
    if (is_arp(seen, 1)) send(arp_frame(2, std::string(seen.substr(6, 6)), kHostIp));
    return is_udp(seen, 7);
  });
  EXPECT_EQ(frame.substr(42, 5), "hello");
}

TEST_F(NatTest, ForwardedTcpPortCallsTheGuest) {
  std::uint16_t port = 0;
  {
    const HostSocket probe(SOCK_STREAM);
    port = probe.port();
  }
  open({.forwards = {*parse_forward("tcp:" + std::to_string(port) + ":80")}});
  const HostSocket client(SOCK_STREAM);
  sockaddr_in to = client.address;
  to.sin_port = htons(port);
  ASSERT_EQ(::connect(client.fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  const std::string call = wait_for([this](std::string_view frame) {
    if (is_arp(frame, 1)) send(arp_frame(2, std::string(frame.substr(6, 6)), kHostIp));
    return frame.size() >= 54 && get16(frame, 12) == 0x0800 && frame[23] == 6;
  });
  EXPECT_EQ(call.substr(30, 4), kGuestIp);
  EXPECT_EQ(get16(call, 36), 80u);
  EXPECT_EQ(call[47] & 2, 2) << "a SYN";
}

TEST_F(NatTest, PortThatIsTakenIsNamed) {
  const HostSocket taken(SOCK_STREAM);
  ASSERT_EQ(::listen(taken.fd.get(), 1), 0);
  const auto nat = Nat::open({.forwards = {*parse_forward("tcp:" + std::to_string(taken.port()) + ":80")}}, loop_);
  ASSERT_FALSE(nat);
  EXPECT_THAT(nat.error().message, HasSubstr("cannot forward tcp:127.0.0.1:" + std::to_string(taken.port())));
  EXPECT_THAT(nat.error().message, HasSubstr("in use"));
}

TEST_F(NatTest, FullReceiverGetsItsFramesAfterResume) {
  open({});
  taking_ = false;
  send(arp_frame(1, std::string(6, '\0'), kHostIp));
  run_what_is_due();
  EXPECT_TRUE(frames_.empty());
  taking_ = true;
  run_what_is_due();
  EXPECT_TRUE(frames_.empty()) << "nobody has called resume";
  nat_->resume();
  EXPECT_TRUE(frames_.empty()) << "resume itself delivers nothing";
  EXPECT_TRUE(is_arp(wait_for([](std::string_view frame) { return is_arp(frame, 2); }), 2));
}

TEST_F(NatTest, SendDeliversNothingByItself) {
  open({});
  send(arp_frame(1, std::string(6, '\0'), kHostIp));
  EXPECT_TRUE(frames_.empty());
}

TEST_F(NatTest, FramesOfEverySizeAndContentAreSurvived) {
  open({});
  std::string garbage;
  for (unsigned size = 1; size < 300; ++size) {
    garbage.push_back(static_cast<char>(size * 37));
    send(garbage);
  }
  send(std::string(65'550, 'x'));
  for (std::size_t size = 1; size < 42; ++size) send(arp_frame(1, std::string(6, '\0'), kHostIp).substr(0, size));
  run_what_is_due();
  send(arp_frame(1, std::string(6, '\0'), kHostIp));
  wait_for([](std::string_view frame) { return is_arp(frame, 2); });
}

}  // namespace
}  // namespace doppel
