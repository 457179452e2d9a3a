// Two harts on threads of their own: atomics, fences of one another, sleep and wake-up. Nothing here depends
// on how the threads happen to run, except how much is tested.
#include <array>
#include <atomic>
#include <bit>
#include <thread>

#include "page_tables.h"

namespace doppel::riscv::test {
namespace {

// Runs a hart on its own thread, as the engine's thread does, until stopped.
class Running {
 public:
  explicit Running(TestMachine& machine) : machine_(machine), thread_([this] { main(); }) {}
  ~Running() { stop(); }
  void stop() {
    stopping_ = true;
    machine_.hart.request_stop();
    if (thread_.joinable()) thread_.join();
  }

 private:
  void main() {
    while (!stopping_) {
      switch (machine_.resume(~u64{0} >> 2)) {
        case Exit::kWaitForInterrupt: machine_.hart.wait_for_interrupt(); break;
        case Exit::kParked: machine_.hart.wait_while_parked(); break;
        default: break;
      }
    }
  }

  TestMachine& machine_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

// Waits for guest memory to hold a value.
void wait_for(TestMachine& machine, u64 gpa, u64 value) {
  while (machine.peek(gpa) != value) std::this_thread::yield();
}

constexpr RemoteFence kInstructions{.instructions = true, .asid = {}};
constexpr RemoteFence kAllTranslations{.translations = true, .asid = {}};
constexpr RemoteFence kEverything{.instructions = true, .translations = true, .asid = {}};

constexpr u64 kCodeOf[] = {kCode, kCode + 0x1000};
constexpr u64 kDone = kData + 0x8000;  // each hart's flag, 64 bytes apart

// A stop is for a while only: what else asked for attention with it comes after it.
TEST(Stop, LeavesAParkedHartParked) {
  TestMachine machine;
  machine.hart.park();
  for (unsigned round = 0; round < 3; ++round) {
    machine.hart.request_stop();
    EXPECT_EQ(machine.resume(100), Exit::kStop);
    machine.hart.clear_stop();
    EXPECT_EQ(machine.resume(100), Exit::kParked);
    machine.hart.request_stop();
    EXPECT_EQ(machine.resume(100), Exit::kStop);
    machine.hart.wait_while_parked();
    machine.hart.clear_stop();
  }
  EXPECT_EQ(machine.resume(100), Exit::kParked);
}

TEST(Stop, LosesNoInterrupt) {
  TestMachine machine;
  machine.load(kCode, std::array<std::uint16_t, 1>{0xa001});  // c.j .
  machine.hart.on_fence_i();
  machine.state().pc = kCode;
  machine.state().mie = mask_of(Interrupt::kMachineExternal);
  machine.set_status(mstatus::kMie);
  machine.resume(100);
  machine.hart.set_interrupt(Interrupt::kMachineExternal, true);
  machine.hart.request_stop();
  EXPECT_EQ(machine.resume(100), Exit::kStop);
  EXPECT_EQ(machine.state().mcause, 0u);
  machine.hart.clear_stop();
  machine.resume(100);
  EXPECT_EQ(machine.state().mcause, u64{1} << 63 | 11);
}

struct Harts : testing::Test {
  TestMachine first;
  TestMachine second{first};
  std::array<TestMachine*, 2> both{&first, &second};

  // Runs a program on each until both have reached their ends.
  void run(std::string_view program_of_first, std::string_view program_of_second) {
    for (unsigned i = 0; i < 2; ++i) {
      TestMachine& m = *both[i];
      m.x(31) = kDone + 64 * i;
      first.load(kCodeOf[i], std::string(i == 0 ? program_of_first : program_of_second) +
                                 "\n fence 0xff\n addi t5, zero, 1\n sd t5, 0(t6)\n jal zero, .");
      m.state().pc = kCodeOf[i];
    }
    Running one(first), other(second);
    wait_for(first, kDone, 1);
    wait_for(first, kDone + 64, 1);
  }
};

constexpr u64 kTurns = 20000;

constexpr std::string_view kByAmo = "loop: amoadd.d zero, a1, (s0)\n addi s1, s1, -1\n bne s1, zero, loop";
constexpr std::string_view kByReservation =
    "loop: lr.d a0, (s0)\n add a0, a0, a1\n sc.d a2, a0, (s0)\n bne a2, zero, loop\n"
    "addi s1, s1, -1\n bne s1, zero, loop";

TEST_F(Harts, CountTogether) {
  for (const auto& [one, other] : {std::pair{kByAmo, kByAmo}, std::pair{kByAmo, kByReservation},
                                   std::pair{kByReservation, kByReservation}}) {
    first.poke(kData, u64{0});
    first.poke(kDone, u64{0});
    first.poke(kDone + 64, u64{0});
    for (TestMachine* m : both) {
      m->x(8) = kData;
      m->x(9) = kTurns;
      m->a(1) = 1;
      m->hart.clear_stop();
    }
    run(one, other);
    EXPECT_EQ(first.peek(kData), 2 * kTurns);
  }
}

// Words next to each other, by 32-bit forms: neither disturbs the other.
TEST_F(Harts, NeighboursAreApart) {
  for (unsigned i = 0; i < 2; ++i) {
    both[i]->x(8) = kData + 4 * i;
    both[i]->x(9) = kTurns;
    both[i]->a(1) = i == 0 ? 1 : ~u64{0};
  }
  run("loop: amoadd.w zero, a1, (s0)\n addi s1, s1, -1\n bne s1, zero, loop",
      "loop: lr.w a0, (s0)\n add a0, a0, a1\n sc.w a2, a0, (s0)\n bne a2, zero, loop\n"
      "addi s1, s1, -1\n bne s1, zero, loop");
  EXPECT_EQ(first.peek<std::uint32_t>(kData), kTurns);
  EXPECT_EQ(first.peek<std::uint32_t>(kData + 4), static_cast<std::uint32_t>(-kTurns));
}

// A lock of plain loads and stores within: what it guards is only counted right when it excludes.
TEST_F(Harts, LocksExclude) {
  for (TestMachine* m : both) {
    m->x(8) = kData;
    m->x(9) = 2000;
    m->a(1) = 1;
  }
  constexpr std::string_view kProgram = R"(
    loop: fence 16
    amoswap.w a0, a1, (s0)
    bne a0, zero, loop
    ld a2, 64(s0)
    ld a3, 128(s0)
    add a2, a2, a1
    add a3, a3, a1
    sd a2, 64(s0)
    sd a3, 128(s0)
    fence 0x31
    amoswap.w zero, zero, (s0)
    addi s1, s1, -1
    bne s1, zero, loop)";
  run(kProgram, kProgram);
  EXPECT_EQ(first.peek(kData + 64), 4000u);
  EXPECT_EQ(first.peek(kData + 128), 4000u);
}

// Dekker's pattern: with full fences, not both can miss the other's store.
TEST_F(Harts, FencesOrderStoresBeforeLoads) {
  constexpr u64 kMeetings = 200;
  for (unsigned i = 0; i < 2; ++i) {
    TestMachine& m = *both[i];
    m.x(8) = kData + 0x1000 * i;         // my flags, one a turn
    m.x(9) = kData + 0x1000 * (1 - i);   // the other's
    m.x(18) = kData + 0x2000 + 0x1000 * i;  // what I saw
    m.x(19) = kMeetings;
    m.x(20) = kData + 0x4000;            // where both meet each turn
    m.a(1) = 1;
  }
  constexpr std::string_view kProgram = R"(
    loop: amoadd.d zero, a1, (s4)
    addi s5, s5, 2
    meet: fence 16
    ld a0, 0(s4)
    blt a0, s5, meet
    sd a1, 0(s0)
    fence 0x33
    ld a0, 0(s1)
    sd a0, 0(s2)
    addi s0, s0, 8
    addi s1, s1, 8
    addi s2, s2, 8
    addi s3, s3, -1
    bne s3, zero, loop)";
  run(kProgram, kProgram);
  for (u64 turn = 0; turn < kMeetings; ++turn) {
    EXPECT_NE(first.peek(kData + 0x2000 + 8 * turn) | first.peek(kData + 0x3000 + 8 * turn), 0u) << turn;
  }
}

// After a remote fence no load of the other hart goes to the page of before.
TEST_F(Harts, RemoteFencesEndOldTranslations) {
  PageTables tables(first, 3);
  constexpr u64 kPage = 0x7000, kGood = 1, kGone = 2;
  second.x(8) = kPage;
  second.x(9) = kGone;
  second.x(18) = kDone;
  second.set_satp(tables.satp(3));
  second.set_status(mstatus::kMprv | u64{1} << mstatus::kMppShift);
  tables.map(kPage, kData, pte::kAll);
  tables.map(kDone, kDone, pte::kAll);
  first.poke(kData, kGood);
  first.load(kCode, R"(
    loop: ld a0, 0(s0)
    addi a1, a1, 1
    sd a1, 8(s2)
    bne a0, s1, loop
    sd a0, 0(s2)
    jal zero, .)");
  second.state().pc = kCode;
  const Running running(second);
  for (u64 turn = 0; turn < 100; ++turn) {
    const u64 old_page = kData + turn % 2 * kPageSize, new_page = kData + (turn + 1) % 2 * kPageSize;
    first.poke(new_page, kGood);
    first.poke(tables.entry(kPage), pte::leaf(new_page, pte::kAll));
    RemoteFence fence = kAllTranslations;
    if (turn % 2 != 0) fence.start = kPage, fence.size = kPageSize;
    if (turn % 4 > 1) fence.asid = 3;
    second.hart.remote_fence(fence, first.hart);
    first.poke(old_page, kGone);
    const u64 seen = first.peek(kDone + 8);
    while (first.peek(kDone + 8) == seen && first.peek(kDone) == 0) std::this_thread::yield();
    ASSERT_EQ(first.peek(kDone), 0u) << "an old page was read, turn " << turn;
  }
}

TEST_F(Harts, RemoteFencesMakeNewCodeSeen) {
  second.x(8) = kData;
  second.x(18) = kDone;
  const auto publish = [&](int value) {
    // In one atomic store: the hart may be reading the page meanwhile, and translated code shows nobody its order.
    const auto code = assemble("addi a0, zero, " + std::to_string(value) + "\n jalr zero, 0(ra)", kData);
    ASSERT_EQ(code.size(), 4u);
    first.poke(kData, std::bit_cast<u64>(std::array{code[0], code[1], code[2], code[3]}));
  };
  publish(0);
  first.load(kCode, "loop: jalr ra, 0(s0)\n amoswap.d zero, a0, (s2)\n jal zero, loop");
  second.state().pc = kCode;
  const Running running(second);
  for (int turn = 1; turn < 100; ++turn) {
    publish(turn);
    second.hart.remote_fence(kInstructions, first.hart);
    wait_for(first, kDone, static_cast<u64>(turn));
  }
}

// Two harts that fence each other all the time come to an end.
TEST(HartsWithFirmware, FenceEachOther) {
  struct Firmware final : SupervisorCalls {
    Hart* other = nullptr;
    void supervisor_call(Hart& hart) override {
      other->remote_fence(kEverything, hart);
    }
  } firmware[2];
  TestMachine first(IsaConfig::rva22(), &firmware[0]);
  TestMachine second(first, &firmware[1]);
  firmware[0].other = &second.hart;
  firmware[1].other = &first.hart;
  for (unsigned i = 0; i < 2; ++i) {
    TestMachine& m = i == 0 ? first : second;
    first.load(kCodeOf[i], R"(
      loop: ecall
      addi s1, s1, -1
      bne s1, zero, loop
      addi t5, zero, 1
      sd t5, 0(t6)
      jal zero, .)");
    m.x(9) = 300;
    m.x(31) = kDone + 64 * i;
    m.state().pc = kCodeOf[i];
    m.set_privilege(Privilege::kSupervisor);
  }
  Running one(first), other(second);
  wait_for(first, kDone, 1);
  wait_for(first, kDone + 64, 1);
}

void dawdle(u64 turns) {
  for (std::atomic<u64> left = turns; left != 0;) --left;
}

// A hart in WFI wakes for what mie enables, every time, and sleeps through the rest.
TEST_F(Harts, InterruptsWakeTheSleeper) {
  second.state().mie = mask_of(Interrupt::kMachineSoftware);
  // A running clock to compare with makes looking at what is pending take long enough to be met in the act.
  second.state().menvcfg = envcfg::kStce;
  second.clock.resume();
  second.x(18) = kDone;
  first.load(kCode, R"(
    loop: wfi
    csrrs a0, mip, zero
    andi a0, a0, 8
    beq a0, zero, loop
    addi a1, a1, 1
    sd a1, 0(s2)
    low: fence 16
    csrrs a0, mip, zero
    andi a0, a0, 8
    bne a0, zero, low
    sd a1, 64(s2)
    jal zero, loop)");
  second.state().pc = kCode;
  const Running running(second);
  for (u64 turn = 1; turn <= 40000; ++turn) {
    // A masked line wakes the sleeper for nothing; the other one comes just when it goes back to sleep.
    second.hart.set_interrupt(Interrupt::kMachineTimer, false);
    dawdle(turn % 64);
    second.hart.set_interrupt(Interrupt::kMachineTimer, true);
    dawdle(turn / 64 % 8);
    second.hart.set_interrupt(Interrupt::kMachineSoftware, true);
    wait_for(first, kDone, turn);
    second.hart.set_interrupt(Interrupt::kMachineSoftware, false);
    wait_for(first, kDone + 64, turn);
  }
}

TEST_F(Harts, ParkedOnesWaitToBeStarted) {
  second.hart.park();
  first.load(kCode, "addi a0, a0, 1\n sd a0, 0(a1)\n jal zero, .");
  const Running running(second);
  EXPECT_TRUE(second.hart.parked());
  second.hart.remote_fence(kEverything, first.hart);  // nobody to wait for
  second.hart.start(kCode, 6, kDone);
  wait_for(first, kDone, 7);
  EXPECT_FALSE(second.hart.parked());
}

}  // namespace
}  // namespace doppel::riscv::test
