#include "debug/gdb_server.h"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "debug/fake_target.h"

namespace doppel::debug {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class Server : public ::testing::Test {
 protected:
  Server() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    peer_ = UniqueFd(ends[0]);
    server_ = GdbServer::serve(loop_, UniqueFd(ends[1]));
    server_->attach(target_);
  }

  // Lets the server work off what it was sent.
  void run_loop() {
    const auto timer = loop_.make_timer([this] { loop_.stop(); });
    timer->arm(HostTime::clock::now() + std::chrono::milliseconds(5));
    loop_.run();
  }
  void send_raw(std::string_view bytes) {
    ASSERT_EQ(::send(peer_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
    run_loop();
  }
  std::string receive_raw() {
    std::string bytes;
    std::array<char, 65536> buffer;
    for (pollfd ready{peer_.get(), POLLIN, 0}; ::poll(&ready, 1, 0) > 0;) {
      const ssize_t count = ::recv(peer_.get(), buffer.data(), buffer.size(), 0);
      if (count <= 0) return bytes + "(closed)";
      bytes.append(buffer.data(), static_cast<std::size_t>(count));
    }
    return bytes;
  }
  // What the server answers, without its framing.
  std::string received() {
    std::string text;
    GdbDecoder decoder;
    decoder.feed(receive_raw());
    while (auto input = decoder.next()) {
      if (input->kind == GdbInput::Kind::kPacket) text += text.empty() ? input->payload : "|" + input->payload;
    }
    return text;
  }
  std::string ask(std::string_view packet) {
    send_raw(gdb_packet(packet));
    return received();
  }

  EventLoop loop_;
  FakeTarget target_;
  UniqueFd peer_;
  std::unique_ptr<GdbServer> server_;
};

TEST_F(Server, Acknowledges) {
  send_raw("$qC#b4");
  EXPECT_EQ(receive_raw(), "+$QC1#c5");
  send_raw("$qC#b5");
  EXPECT_EQ(receive_raw(), "-");
  send_raw("-");
  EXPECT_EQ(receive_raw(), "$QC1#c5");
}

TEST_F(Server, StopsAcknowledgingAfterItHasSaidSo) {
  send_raw("$QStartNoAckMode#b0");
  EXPECT_EQ(receive_raw(), "+$OK#9a");
  send_raw("$qC#b4");
  EXPECT_EQ(receive_raw(), "$QC1#c5");
}

TEST_F(Server, SaysWhatItCan) {
  EXPECT_THAT(ask("qSupported:swbreak+;hwbreak+;multiprocess+"), HasSubstr("PacketSize=4000;QStartNoAckMode+"));
  EXPECT_EQ(ask("vCont?"), "vCont;c;C;s;S;t");
  EXPECT_EQ(ask("vMustReplyEmpty"), "");
  EXPECT_EQ(ask("qAttached"), "1");
}

TEST_F(Server, GivesTheDescriptionInPieces) {
  const std::string first = ask("qXfer:features:read:target.xml:0,10");
  EXPECT_EQ(first, "m<target>xxxxxxxx");
  EXPECT_EQ(ask("qXfer:features:read:target.xml:bc0,100"), "l</target>");
  EXPECT_EQ(ask("qXfer:features:read:target.xml:ffffffffffffffff,ffffffffffffffff"), "l");
  EXPECT_EQ(ask("qXfer:features:read:other.xml:0,10"), "E00");
  EXPECT_EQ(ask("qXfer:features:read:target.xml:0"), "E16");
}

TEST_F(Server, ListsThreads) {
  EXPECT_EQ(ask("?"), "T05thread:1;");
  EXPECT_EQ(ask("qfThreadInfo"), "m1,2");
  EXPECT_EQ(ask("qsThreadInfo"), "l");
  EXPECT_EQ(ask("qThreadExtraInfo,2"), to_hex(std::string_view("fake 2")));
  EXPECT_EQ(ask("T2"), "OK");
  EXPECT_EQ(ask("T3"), "E03");
  EXPECT_EQ(ask("Hg3"), "E03");
  EXPECT_EQ(ask("Hg-1"), "OK");
}

TEST_F(Server, ReadsAndWritesRegistersOfTheSelectedThread) {
  EXPECT_EQ(ask("Hg2"), "OK");
  EXPECT_EQ(ask("P3=0102030405060708"), "OK");
  EXPECT_EQ(target_.registers[1][3], "\x01\x02\x03\x04\x05\x06\x07\x08");
  EXPECT_EQ(ask("p3"), "0102030405060708");
  EXPECT_EQ(ask("p8"), "E01");
  EXPECT_EQ(ask("P3=01"), "E01");
  EXPECT_EQ(ask("g").substr(48, 16), "0102030405060708");
  EXPECT_EQ(ask("Hg1"), "OK");
  EXPECT_EQ(ask("p3"), "0000000000000000");
  EXPECT_EQ(ask("G" + std::string(16, '1')), "OK");
  EXPECT_EQ(target_.registers[0][0], std::string(8, '\x11'));
  EXPECT_EQ(ask("G111"), "E16");
}

TEST_F(Server, ReadsAndWritesMemory) {
  EXPECT_EQ(ask("M1000,3:414243"), "OK");
  EXPECT_EQ(ask("X1003,3:$}#"), "OK");
  EXPECT_EQ(target_.memory.substr(0, 6), "ABC$}#");
  EXPECT_EQ(ask("m1000,6"), to_hex(std::string_view("ABC$}#")));
  EXPECT_EQ(ask("m1ffe,10"), "0000");
  EXPECT_EQ(ask("m0,10"), "E0e");
  EXPECT_EQ(ask("m1000,ffffffffffffffff").size(), 2 * 4096u);
  EXPECT_EQ(ask("M1ffe,4:00000000"), "E0e");
  EXPECT_EQ(ask("M1000,4:00"), "E16");
  EXPECT_EQ(ask("X1000,0:"), "OK");
}

TEST_F(Server, InsertsAndRemovesPoints) {
  EXPECT_EQ(ask("Z0,1000,2"), "OK");
  EXPECT_EQ(ask("Z0,1000,2"), "OK");
  EXPECT_EQ(ask("Z2,1100,8"), "OK");
  EXPECT_EQ(target_.points, (std::vector<Point>{{PointKind::kSoftware, 0x1000, 0}, {PointKind::kWrite, 0x1100, 8}}));
  EXPECT_EQ(ask("z0,1000,2"), "OK");
  EXPECT_EQ(ask("z0,1000,2"), "OK");
  EXPECT_EQ(target_.points.size(), 1u);
  EXPECT_EQ(ask("Z0,0,2"), "E22");
  EXPECT_EQ(ask("Z2,1000,0"), "E22");
  EXPECT_EQ(ask("Z5,1000,2"), "");
  EXPECT_EQ(ask("Z0,1000"), "E16");
}

TEST_F(Server, ResumesThreadsAndTellsWhereTheyStop) {
  ask("qSupported:swbreak+");
  EXPECT_EQ(ask("vCont;s:2;c"), "");
  ASSERT_EQ(target_.resumed.size(), 2u);
  EXPECT_EQ(target_.resumed[0].thread, 2u);
  EXPECT_TRUE(target_.resumed[0].step);
  EXPECT_FALSE(target_.resumed[1].step);
  EXPECT_EQ(ask("g"), "");  // nothing is asked of what runs
  target_.stop({StopEvent::Kind::kBreakpoint, 2, 0, {PointKind::kSoftware, 0x1000, 0}, 0});
  EXPECT_EQ(received(), "T05swbreak:;thread:2;");
  EXPECT_EQ(ask("qC"), "QC2");

  EXPECT_EQ(ask("vCont;c:1"), "");
  ASSERT_EQ(target_.resumed.size(), 1u);
  target_.stop({StopEvent::Kind::kWatch, 1, 0, {PointKind::kAccess, 0x1100, 8}, 0x1104});
  EXPECT_EQ(received(), "T05awatch:1104;thread:1;");

  EXPECT_EQ(ask("s"), "");
  EXPECT_EQ(target_.resumed.size(), 2u);
  target_.stop({StopEvent::Kind::kExited, 1, 7, {}, 0});
  EXPECT_EQ(received(), "W07");
}

TEST_F(Server, TellsThatNoneIsLeftToWhomItMeansSomething) {
  EXPECT_EQ(ask("vCont;c:1"), "");
  target_.stop({StopEvent::Kind::kNoneLeft, 2, 0, {}, 0});
  EXPECT_EQ(received(), "T00thread:2;");
  EXPECT_THAT(ask("qSupported:no-resumed+"), HasSubstr("no-resumed+"));
  EXPECT_EQ(ask("vCont;c:1"), "");
  target_.stop({StopEvent::Kind::kNoneLeft, 2, 0, {}, 0});
  EXPECT_EQ(received(), "N");
  EXPECT_EQ(ask("?"), "T00thread:2;");
}

TEST_F(Server, RefusesToResumeNobody) {
  EXPECT_EQ(ask("vCont;c:7"), "E03");
  EXPECT_EQ(ask("vCont;x"), "E16");
  EXPECT_EQ(ask("vCont;C"), "E16");
  EXPECT_EQ(ask("vCont;t"), "E03");
  EXPECT_FALSE(target_.running);
}

TEST_F(Server, Interrupts) {
  EXPECT_EQ(ask("c"), "");
  send_raw("\x03");
  EXPECT_EQ(received(), "T02thread:1;");
  EXPECT_FALSE(target_.running);
}

TEST_F(Server, DetachesAndLetsRun) {
  EXPECT_EQ(ask("Z0,1000,2"), "OK");
  send_raw(gdb_packet("D"));
  EXPECT_EQ(receive_raw(), "+$OK#9a(closed)");
  EXPECT_TRUE(target_.points.empty());
  EXPECT_TRUE(target_.running);
}

TEST_F(Server, ALostConnectionDetaches) {
  EXPECT_EQ(ask("Z0,1000,2"), "OK");
  peer_ = UniqueFd();
  run_loop();
  EXPECT_TRUE(target_.points.empty());
  EXPECT_TRUE(target_.running);
}

TEST_F(Server, Kills) {
  send_raw(gdb_packet("vKill;1"));
  EXPECT_EQ(receive_raw(), "+$OK#9a(closed)");
  EXPECT_TRUE(target_.killed);
}

TEST_F(Server, MonitorsAndHelps) {
  EXPECT_EQ(ask("qRcmd," + to_hex(std::string_view("say"))), to_hex(std::string_view("said\n")));
  EXPECT_EQ(from_hex(ask("qRcmd," + to_hex(std::string_view("help")))), "help   This text\nsay\n");
  EXPECT_THAT(*from_hex(ask("qRcmd," + to_hex(std::string_view("?")))), StartsWith("Unknown"));
  EXPECT_EQ(ask("qRcmd,1"), "E16");
}

TEST_F(Server, TellsOfTheEnd) {
  EXPECT_EQ(ask("c"), "");
  server_->ended(9, true);
  EXPECT_EQ(receive_raw(), "$X09#c1(closed)");
}

TEST_F(Server, GoesOnWithAnotherTarget) {
  EXPECT_EQ(ask("Z0,1000,2"), "OK");
  EXPECT_EQ(ask("c"), "");
  server_->release_target();
  FakeTarget next;
  server_->attach(next);
  EXPECT_TRUE(next.running);
  EXPECT_EQ(next.points.size(), 1u);
  next.stop({StopEvent::Kind::kSignal, 2, kSignalTrap, {}, 0});
  EXPECT_EQ(received(), "T05thread:2;");
  server_->release_target();
  EXPECT_EQ(ask("g"), "E22");
}

}  // namespace
}  // namespace doppel::debug
