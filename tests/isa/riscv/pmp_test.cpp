// Physical memory protection (privileged manual, "Physical Memory Protection").
#include <fmt/format.h>

#include <random>

#include "page_tables.h"

namespace doppel::riscv::test {
namespace {

constexpr std::uint8_t kRead = 1, kWrite = 2, kExecute = 4, kTop = 1 << 3, kNa4 = 2 << 3, kNapot = 3 << 3, kLock = 0x80;

// One byte against one entry, as the manual's table of address matching says it.
bool matches(const HartState& state, unsigned i, u64 gpa) {
  const u64 address = state.pmpaddr[i];
  switch (state.pmpcfg[i] & (3 << 3)) {
    case kTop: return (i == 0 || gpa >> 2 >= state.pmpaddr[i - 1]) && gpa >> 2 < address;
    case kNa4: return gpa >> 2 == address;
    case kNapot: return ((gpa >> 2 ^ address) & ~(address ^ (address + 1))) == 0;
    default: return false;
  }
}

// Whether an access passes, byte by byte.
bool allowed(const HartState& state, u64 gpa, unsigned bytes, std::uint8_t right, Privilege privilege) {
  for (unsigned i = 0; i < kPmpEntries; ++i) {
    unsigned matching = 0;
    for (unsigned b = 0; b < bytes; ++b) matching += matches(state, i, gpa + b);
    if (matching == 0) continue;
    if (matching < bytes) return false;
    if (privilege == Privilege::kMachine && (state.pmpcfg[i] & kLock) == 0) return true;
    return (state.pmpcfg[i] & right) != 0;
  }
  return privilege == Privilege::kMachine;
}

// Random entries around one page, all kinds of accesses, several of each so that the TLB comes in between.
TEST(Pmp, MatchesTheManualByteByByte) {
  constexpr u64 kPage = kData + kPageSize;
  struct Kind {
    const char* code;
    unsigned bytes;
    std::uint8_t right;
  };
  constexpr Kind kKinds[] = {{"lb a0, 0(s0)", 1, kRead},  {"lhu a0, 0(s0)", 2, kRead}, {"flw fa0, 0(s0)", 4, kRead},
                             {"ld a0, 0(s0)", 8, kRead},  {"sb a0, 0(s0)", 1, kWrite}, {"sh a0, 0(s0)", 2, kWrite},
                             {"sw a0, 0(s0)", 4, kWrite}, {"fsd fa0, 0(s0)", 8, kWrite}};
  constexpr Privilege kPrivileges[] = {Privilege::kUser, Privilege::kSupervisor, Privilege::kMachine};
  TestMachine machine;
  HartState& state = machine.state();
  std::mt19937 random(1);
  const auto below = [&](unsigned n) { return static_cast<unsigned>(random() % n); };
  unsigned passed = 0, failed = 0;
  for (int round = 0; round < 300; ++round) {
    for (unsigned i = 0; i < 6; ++i) {
      // Sizes up to a page or two, often near its edges.
      u64 gpa = kPage + below(2) * kPageSize - 32 + below(16) * 4;
      if (below(3) == 0) gpa |= (u64{4} << below(12)) - 4;
      state.pmpaddr[i] = gpa >> 2;
      // Never TOR from address zero: the program itself must stay allowed.
      const std::uint8_t mode = static_cast<std::uint8_t>(below(4) << 3);
      state.pmpcfg[i] = static_cast<std::uint8_t>((i == 0 && mode == kTop ? kNapot : mode) | below(8) |
                                                  (below(3) == 0 ? kLock : 0));
    }
    machine.hart.mmu().flush();
    for (int access = 0; access < 40; ++access) {
      const Kind& kind = kKinds[below(8)];
      const Privilege privilege = kPrivileges[below(3)];
      u64 gpa = kPage + below(2) * kPageSize - 40 + below(80);
      if (below(2) == 0) gpa = align_down(gpa, kind.bytes);
      machine.set_privilege(Privilege::kMachine);
      machine.set_status(mstatus::kMprv | static_cast<u64>(privilege) << mstatus::kMppShift, mstatus::kMpp);
      machine.x(8) = gpa;
      const std::optional<u64> trap = machine.run(kind.code);
      // An access that crosses pages is two.
      const unsigned first = static_cast<unsigned>(std::min<u64>(kind.bytes, kPageSize - gpa % kPageSize));
      const bool ok_first = allowed(state, gpa, first, kind.right, privilege);
      const bool ok_second =
          first == kind.bytes || allowed(state, gpa + first, kind.bytes - first, kind.right, privilege);
      std::optional<u64> expected;
      if (!ok_first || !ok_second) expected = kind.right == kRead ? 5 : 7;
      ASSERT_EQ(trap, expected) << fmt::format("round {}: {} at {:#x}, privilege {}", round, kind.code, gpa,
                                               static_cast<int>(privilege));
      if (trap) {
        ASSERT_EQ(state.mtval, ok_first ? gpa + first : gpa);
      }
      ++(trap ? failed : passed);
    }
  }
  EXPECT_GT(passed, 2000u);
  EXPECT_GT(failed, 2000u);
}

// A region inside a page of code: what lies before and behind it runs, what lies in it does not.
TEST(Pmp, SplitsPagesOfCode) {
  TestMachine machine;
  machine.state().pmpaddr[0] = (kCode + 8) >> 2;
  machine.state().pmpcfg[1] = kTop | kRead;  // no execution in the eight bytes from there on
  machine.state().pmpaddr[1] = (kCode + 16) >> 2;
  machine.hart.mmu().flush();
  for (const Privilege privilege : {Privilege::kMachine, Privilege::kSupervisor, Privilege::kUser}) {
    machine.set_privilege(privilege);
    machine.a(0) = 0;
    const std::string ones = "addi a0, a0, 1\naddi a0, a0, 1\naddi a0, a0, 1\naddi a0, a0, 1\naddi a0, a0, 1";
    if (privilege == Privilege::kMachine) {
      EXPECT_EQ(machine.run(ones), std::nullopt);
      EXPECT_EQ(machine.a(0), 5u);
    } else {
      EXPECT_EQ(machine.run(ones), 1u);
      EXPECT_EQ(machine.a(0), 2u);
      EXPECT_EQ(machine.state().mepc, kCode + 8);
      EXPECT_EQ(machine.state().mtval, kCode + 8);
      // A jump over the hole, and back before it.
      machine.set_privilege(privilege);
      EXPECT_EQ(machine.run(R"(
        jal zero, behind
        before: jal zero, end
        .word 0
        .word 0
        behind: addi a0, a0, 1
        jal zero, before
        end: addi a0, a0, 1)"), std::nullopt);
    }
  }
}

TEST(Pmp, LockedEntriesStayAndBindMachineMode) {
  TestMachine machine;
  const auto write = [&](std::string_view csr, u64 value) {
    machine.a(1) = value;
    machine.run("csrrw zero, " + std::string(csr) + ", a1");
  };
  const auto read = [&](std::string_view csr) {
    machine.run("csrrs a0, " + std::string(csr) + ", zero");
    return machine.a(0);
  };
  const u64 bottom = kData >> 2, top = (kData + 0x100) >> 2;
  write("0x3b2", bottom);
  write("0x3b3", top);
  write("0x3a0", u64{kLock | kTop | kRead} << 24);
  for (const auto& [csr, value] : {std::pair{"0x3b2", bottom}, std::pair{"0x3b3", top}}) {
    write(csr, 0);
    EXPECT_EQ(read(csr), value) << "locked, as is the bottom of a locked top-of-range entry";
  }
  write("0x3a0", ~u64{0});
  EXPECT_EQ(bits(read("0x3a0"), 31, 24), kLock | kTop | kRead);
  EXPECT_EQ(bits(read("0x3a0"), 23, 16), 0x9fu) << "its neighbour is free";
  write("0x3b1", 5);
  EXPECT_EQ(read("0x3b1"), 0u) << "just locked by the write of all ones";

  TestMachine other;
  other.state().pmpcfg[3] = kLock | kTop | kRead;
  other.state().pmpaddr[2] = bottom;
  other.state().pmpaddr[3] = top;
  other.hart.mmu().flush();
  other.x(8) = kData;
  EXPECT_EQ(other.run("ld a0, 0(s0)"), std::nullopt);
  EXPECT_EQ(other.run("sd a0, 0(s0)"), 7u);
  EXPECT_EQ(other.run("sd a0, 0x100(s0)"), std::nullopt);
}

TEST(Pmp, RegistersAreWarl) {
  TestMachine machine;
  const auto round_trip = [&](std::string_view csr, u64 value) {
    machine.a(1) = value;
    EXPECT_EQ(machine.run(fmt::format("csrrw zero, {0}, a1\n csrrs a0, {0}, zero", csr)), std::nullopt);
    return machine.a(0);
  };
  EXPECT_EQ(round_trip("0x3b7", ~u64{0}), ~u64{0} >> 10);
  EXPECT_EQ(round_trip("0x3a0", 0x6060'6060'6060'6060), 0u) << "reserved bits";
  EXPECT_EQ(round_trip("0x3a0", 0x0203'0607'0000'0000) & 0x0200'0200'0000'0000, 0u) << "writable but not readable";
  EXPECT_EQ(bits(round_trip("0x3a0", u64{0x1f} << 56), 63, 56), 0x1fu);
  EXPECT_EQ(machine.run("csrrs a0, 0x3a1, zero"), 2u) << "odd numbers are RV32's";
  EXPECT_EQ(machine.run("csrrs a0, 0x3a3, zero"), 2u);
}

// A change of protection is seen by the very next access, whatever the TLB held.
TEST(Pmp, ChangesTakeEffectAtOnce) {
  TestMachine machine;
  machine.x(8) = kData;
  machine.x(9) = mstatus::kMprv;  // with MPP = U
  machine.x(18) = 0x1b;           // NAPOT, no execution
  machine.x(19) = 0x18;           // nothing at all
  machine.a(1) = kData >> 2 | 0xff;
  EXPECT_EQ(machine.run(R"(
    csrrw zero, 0x3b0, a1
    csrrw zero, 0x3a0, s2
    csrrs zero, mstatus, s1
    sd zero, 0(s0)
    ld a0, 0(s0)
    csrrw zero, 0x3a0, s3
    ld a0, 8(s0))"), 5u);
  EXPECT_EQ(machine.state().mtval, kData + 8);
}

}  // namespace
}  // namespace doppel::riscv::test
