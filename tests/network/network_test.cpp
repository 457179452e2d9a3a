// What the user writes after --net.
#include "network/network.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace doppel {
namespace {

using ::testing::HasSubstr;

std::string forward_text(std::string_view text) {
  const auto forward = parse_forward(text);
  return forward ? forward->text() : forward.error().message;
}

TEST(ForwardRule, AddressesAreOptional) {
  EXPECT_EQ(forward_text("tcp:8080:80"), "tcp:127.0.0.1:8080:0.0.0.0:80");
  EXPECT_EQ(forward_text("udp:0.0.0.0:53:5353"), "udp:0.0.0.0:53:0.0.0.0:5353");
  EXPECT_EQ(forward_text("tcp:2222:10.0.2.15:22"), "tcp:127.0.0.1:2222:10.0.2.15:22");
  EXPECT_EQ(forward_text("tcp:192.168.1.7:1:10.0.2.16:65535"), "tcp:192.168.1.7:1:10.0.2.16:65535");
}

TEST(ForwardRule, MistakesAreNamed) {
  EXPECT_THAT(forward_text(""), HasSubstr("neither tcp: nor udp:"));
  EXPECT_THAT(forward_text("8080:80"), HasSubstr("neither tcp: nor udp:"));
  EXPECT_THAT(forward_text("tcp"), HasSubstr("lacks the host port"));
  EXPECT_THAT(forward_text("tcp:8080"), HasSubstr("lacks the guest port"));
  EXPECT_THAT(forward_text("tcp:8080:10.0.2.15"), HasSubstr("lacks the guest port"));
  EXPECT_THAT(forward_text("tcp:0:80"), HasSubstr("'0' is not a port"));
  EXPECT_THAT(forward_text("tcp:65536:80"), HasSubstr("'65536' is not a port"));
  EXPECT_THAT(forward_text("tcp:-1:80"), HasSubstr("'-1' is not a port"));
  EXPECT_THAT(forward_text("tcp:80x:80"), HasSubstr("'80x' is not a port"));
  EXPECT_THAT(forward_text("tcp::80"), HasSubstr("'' is not a port"));
  EXPECT_THAT(forward_text("tcp:1.2.3:80:80"), HasSubstr("'1.2.3' is not an IPv4 address"));
  EXPECT_THAT(forward_text("tcp:localhost:80:80"), HasSubstr("'localhost' is not a port"));
  EXPECT_THAT(forward_text("tcp:8080:80:9"), HasSubstr("goes on after the guest port"));
}

TEST(MacAddress, IsReadAndWritten) {
  const auto mac = MacAddress::parse("52:54:00:aB:Cd:0f");
  ASSERT_TRUE(mac);
  EXPECT_EQ(mac->text(), "52:54:00:ab:cd:0f");
  EXPECT_NE(MacAddress::local(0), MacAddress::local(1));
  for (const std::string_view wrong : {"", "52:54:00:12:34", "52:54:00:12:34:5", "52-54-00-12-34-56",
                                       "52:54:00:12:34:5g", "52:54:00:12:34:567", "5:254:00:12:34:56"}) {
    EXPECT_FALSE(MacAddress::parse(wrong)) << wrong;
  }
}

TEST(NetworkOptions, UserNetworkWithEverySetting) {
  const auto options = parse_network_options("user,forward=tcp:8080:80,forward=udp:53:53,mac=52:54:00:00:00:01,ipv6=off");
  ASSERT_TRUE(options) << options.error().message;
  EXPECT_EQ(options->kind, NetworkKind::kUser);
  EXPECT_EQ(options->forwards.size(), 2u);
  EXPECT_EQ(options->mac->text(), "52:54:00:00:00:01");
  EXPECT_FALSE(options->ipv6);
  EXPECT_EQ(parse_network_options("none")->kind, NetworkKind::kNone);
}

TEST(NetworkOptions, MistakesAreNamed) {
  const auto message = [](std::string_view text) {
    const auto options = parse_network_options(text);
    return options ? std::string("no error") : options.error().message;
  };
  EXPECT_THAT(message("bridge"), HasSubstr("unknown kind 'bridge'"));
  EXPECT_THAT(message("user,speed=9"), HasSubstr("unknown option 'speed=9'"));
  EXPECT_THAT(message("user,mac=1"), HasSubstr("'1' is not an Ethernet address"));
  EXPECT_THAT(message("user,mac=01:00:5e:00:00:01"), HasSubstr("group address"));
  EXPECT_THAT(message("user,forward=x"), HasSubstr("neither tcp: nor udp:"));
  EXPECT_THAT(message("none,mac=52:54:00:00:00:01"), HasSubstr("means nothing without a network"));
}

}  // namespace
}  // namespace doppel
