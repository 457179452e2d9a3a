// Page walks and the TLB (privileged manual, "Sv39: Page-Based 39-bit Virtual-Memory System" and what
// follows it, Svnapot, Svpbmt, Svade and Svadu).
#include "isa/riscv/mmu.h"

#include <sys/uio.h>
#include <unistd.h>

#include <fmt/format.h>

#include "page_tables.h"

namespace doppel::riscv::test {
namespace {

constexpr u64 kPage = 0x12'3456'7000;  // some canonical page for every mode

std::string mapped(u64 gpa) { return fmt::format("gpa {:#x}", gpa); }
std::string page_fault(Access access, u64 gva) {
  return fmt::format("cause {} at {:#x}", access == Access::kFetch ? 12 : access == Access::kRead ? 13 : 15, gva);
}
std::string access_fault(Access access, u64 gva) {
  return fmt::format("cause {} at {:#x}", access == Access::kFetch ? 1 : access == Access::kRead ? 5 : 7, gva);
}
constexpr Access kAccesses[] = {Access::kFetch, Access::kRead, Access::kWrite};

struct Walk : testing::TestWithParam<unsigned> {
  unsigned levels = GetParam();
  TestMachine machine;
  PageTables tables{machine, levels};

  Walk() {
    machine.set_privilege(Privilege::kSupervisor);
    machine.set_satp(tables.satp());
  }
  // A walk from the root.
  std::string attempt(u64 gva, Access access = Access::kRead, unsigned bytes = 1) {
    machine.hart.mmu().fence(nullptr, nullptr);
    const auto gpa = machine.hart.mmu().translate(gva, access, bytes);
    return gpa ? mapped(gpa->value) : fmt::format("cause {} at {:#x}", static_cast<int>(gpa.error().cause), gpa.error().value);
  }
};

INSTANTIATE_TEST_SUITE_P(Modes, Walk, testing::Values(3, 4, 5), [](const auto& levels) {
  return fmt::format("Sv{}", 12 + 9 * levels.param);
});

TEST_P(Walk, LooksUpForADebuggerWithoutATrace) {
  const auto looked_up = [&](u64 gva) {
    const auto gpa = machine.hart.mmu().look_up(gva);
    return gpa ? mapped(gpa->value) : "nothing";
  };
  machine.state().menvcfg |= envcfg::kAdue;
  tables.map(kPage, kData, pte::kV | pte::kX | pte::kU);  // neither readable nor writable, nor for supervisors
  const u64 walks = machine.hart.mmu().statistics().walks;
  EXPECT_EQ(looked_up(kPage + 0xabc), mapped(kData + 0xabc));
  EXPECT_EQ(looked_up(kPage + 0x1000), "nothing");
  EXPECT_EQ(looked_up(kPage | u64{1} << 62), "nothing");
  EXPECT_EQ(machine.hart.mmu().statistics().walks, walks);
  for (const TlbEntry& entry : machine.hart.mmu().tlb().read) EXPECT_EQ(entry.tag, TlbEntry::kEmpty);
  for (unsigned level = 1; level < levels; ++level) {
    const u64 size = u64{4096} << 9 * level;
    const u64 gva = align_down(kPage + 3 * size, size);
    tables.map(gva, 0, pte::kAll, level);
    EXPECT_EQ(looked_up(gva + size - 1), mapped(size - 1));
  }
  machine.set_privilege(Privilege::kMachine);
  EXPECT_EQ(looked_up(kPage), mapped(kPage));
}

TEST_P(Walk, FindsPagesOfEverySize) {
  for (unsigned level = 0; level < levels; ++level) {
    const u64 size = u64{4096} << 9 * level;
    const u64 frame = level == 0 ? kData : level == 1 ? kRam : 0;
    const u64 gva = align_down(kPage + 3 * size, size);
    tables.map(gva, frame, pte::kAll, level);
    for (const u64 offset : {u64{0}, u64{0xabc}, size - 1}) {
      for (const Access access : kAccesses) EXPECT_EQ(attempt(gva + offset, access), mapped(frame + offset));
    }
    machine.poke(tables.entry(gva, level), u64{0});
  }
}

TEST_P(Walk, RefusesMisalignedSuperpages) {
  for (unsigned level = 1; level < levels; ++level) {
    const u64 gva = align_down(kPage, u64{4096} << 9 * level);
    for (unsigned bit = 0; bit < 9 * level; ++bit) {
      tables.map(gva, u64{4096} << bit, pte::kAll, level);
      EXPECT_EQ(attempt(gva), page_fault(Access::kRead, gva)) << level << " " << bit;
    }
    machine.poke(tables.entry(gva, level), u64{0});
  }
}

TEST_P(Walk, RefusesAddressesThatAreNotCanonical) {
  const unsigned width = 12 + 9 * levels;
  tables.map(0, kData, pte::kAll);
  tables.map(~u64{0xfff}, kData, pte::kAll);
  EXPECT_EQ(attempt(0x10), mapped(kData + 0x10));
  EXPECT_EQ(attempt(~u64{0xfff}), mapped(kData));
  for (unsigned bit = width; bit < 64; ++bit) {
    for (const u64 gva : {u64{1} << bit, ~u64{0xfff} ^ u64{1} << bit}) {
      for (const Access access : kAccesses) EXPECT_EQ(attempt(gva, access), page_fault(access, gva));
    }
  }
  // The sign bit alone.
  EXPECT_EQ(attempt(u64{1} << (width - 1)), page_fault(Access::kRead, u64{1} << (width - 1)));
}

TEST_P(Walk, RefusesReservedBits) {
  for (unsigned level = 0; level < levels; ++level) {
    const u64 entry = tables.entry(kPage, level);
    const u64 pointer = machine.peek(entry);
    for (unsigned bit = 54; bit <= 60; ++bit) {
      machine.poke(entry, pte::leaf(0, pte::kAll) | u64{1} << bit);
      EXPECT_EQ(attempt(kPage), page_fault(Access::kRead, kPage)) << level << " leaf " << bit;
      machine.poke(entry, pointer | pte::kV | u64{1} << bit);
      EXPECT_EQ(attempt(kPage), page_fault(Access::kRead, kPage)) << level << " pointer " << bit;
    }
    machine.poke(entry, u64{0});
    (void)tables.entry(kPage, 0);
  }
}

TEST_P(Walk, RefusesPointersWithLeafBits) {
  tables.map(kPage, kData, pte::kAll);
  machine.state().menvcfg = envcfg::kPbmte;
  for (unsigned level = 1; level < levels; ++level) {
    const u64 entry = tables.entry(kPage, level);
    const u64 pointer = machine.peek(entry);
    for (const u64 bits : {pte::kA, pte::kD, pte::kU, pte::kN, u64{1} << 61, u64{2} << 61}) {
      machine.poke(entry, pointer | bits);
      EXPECT_EQ(attempt(kPage), page_fault(Access::kRead, kPage)) << level << " " << bits;
    }
    machine.poke(entry, pointer | pte::kG | 0x300);  // global, and the bits for software
    EXPECT_EQ(attempt(kPage), mapped(kData));
    machine.poke(entry, pointer);
  }
  machine.poke(tables.entry(kPage), pte::leaf(kData, pte::kV));  // a pointer where none can be
  EXPECT_EQ(attempt(kPage), page_fault(Access::kRead, kPage));
}

// All values of the low byte of an entry, in every mode of access. What should happen is written as the
// manual's steps 3, 6 and 9 say it.
TEST_P(Walk, ChecksPermissions) {
  const u64 entry = tables.entry(kPage);
  for (unsigned flags = 0; flags < 256; ++flags) {
    const bool valid = flags & pte::kV, r = flags & pte::kR, w = flags & pte::kW, x = flags & pte::kX,
               u = flags & pte::kU;
    for (unsigned controls = 0; controls < 16; ++controls) {
      const bool user = controls & 1, sum = controls & 2, mxr = controls & 4, updating = controls & 8;
      machine.set_status((sum ? mstatus::kSum : 0) | (mxr ? mstatus::kMxr : 0), mstatus::kSum | mstatus::kMxr);
      machine.state().menvcfg = updating ? envcfg::kAdue : 0;
      machine.set_privilege(user ? Privilege::kUser : Privilege::kSupervisor);
      for (const Access access : kAccesses) {
        machine.poke(entry, pte::leaf(kData, flags));
        const bool encodes_a_leaf = valid && (r || !w) && (r || x);
        const bool right = access == Access::kFetch ? x : access == Access::kWrite ? w : r || (x && mxr);
        const bool mode = user ? u : !u || (sum && access != Access::kFetch);
        const u64 needed = access == Access::kWrite ? pte::kA | pte::kD : pte::kA;
        const bool allowed = encodes_a_leaf && right && mode && (updating || (flags & needed) == needed);
        ASSERT_EQ(attempt(kPage + 8, access), allowed ? mapped(kData + 8) : page_fault(access, kPage + 8))
            << fmt::format("flags {:#x}, controls {:#x}", flags, controls);
        ASSERT_EQ(machine.peek(entry), pte::leaf(kData, allowed ? flags | needed : flags)) << "A and D bits";
      }
    }
  }
}

TEST_P(Walk, FindsContiguousPages) {
  const u64 gva = kPage & ~u64{0xffff};
  machine.poke(tables.entry(gva + 0x3000), pte::leaf(kData + 0x8000, pte::kAll) | pte::kN);
  // Entries of a 64 KiB page say 8 in the low bits of the page number.
  EXPECT_EQ(attempt(gva + 0x3123), mapped(kData + 0x3123));
  for (unsigned low = 0; low < 16; ++low) {
    machine.poke(tables.entry(gva + 0x3000), pte::leaf(kData + 0x1000 * low, pte::kAll) | pte::kN);
    EXPECT_EQ(attempt(gva + 0x3123), low == 8 ? mapped(kData + 0x3123) : page_fault(Access::kRead, gva + 0x3123));
  }
  for (unsigned level = 1; level < levels; ++level) {
    machine.poke(tables.entry(gva, level), pte::leaf(0x8000, pte::kAll) | pte::kN);
    EXPECT_EQ(attempt(gva), page_fault(Access::kRead, gva)) << "reserved in superpages";
    machine.poke(tables.entry(gva, level), u64{0});
  }
}

TEST_P(Walk, MemoryTypesNeedTheirEnable) {
  for (const bool enabled : {false, true}) {
    machine.state().menvcfg = enabled ? envcfg::kPbmte : 0;
    for (u64 type = 0; type < 4; ++type) {
      machine.poke(tables.entry(kPage), pte::leaf(kData, pte::kAll) | type << pte::kPbmtShift);
      const bool legal = type == 0 || (enabled && type != 3);
      EXPECT_EQ(attempt(kPage), legal ? mapped(kData) : page_fault(Access::kRead, kPage)) << type;
    }
  }
}

TEST_P(Walk, TablesOutsideOfMemoryAreAccessFaults) {
  for (unsigned level = 1; level < levels; ++level) {
    machine.poke(tables.entry(kPage, level), pte::leaf(kHole, pte::kV));
    for (const Access access : kAccesses) EXPECT_EQ(attempt(kPage, access), access_fault(access, kPage));
    machine.poke(tables.entry(kPage, level), u64{0});
  }
  machine.set_satp(u64{levels + 5} << 60 | kHole >> kPageShift);
  EXPECT_EQ(attempt(kPage), access_fault(Access::kRead, kPage));
}

TEST_P(Walk, ObeysPmpAsSupervisor) {
  tables.map(kPage, kData, pte::kAll & ~(pte::kA | pte::kD));
  machine.state().menvcfg = envcfg::kAdue;
  const u64 leaf_table = align_down(tables.entry(kPage), kPageSize);
  const auto protect = [&](std::uint8_t rights) {
    machine.state().pmpcfg[0] = static_cast<std::uint8_t>(0x18 | rights);
    machine.state().pmpaddr[0] = leaf_table >> 2 | 0x1ff;  // one page
    machine.hart.mmu().flush();
  };
  for (const Access access : kAccesses) {
    protect(0);
    EXPECT_EQ(attempt(kPage, access), access_fault(access, kPage)) << "no read";
    protect(1);
    EXPECT_EQ(attempt(kPage, access), access_fault(access, kPage)) << "no update";
    EXPECT_EQ(machine.peek(tables.entry(kPage)), pte::leaf(kData, pte::kAll & ~(pte::kA | pte::kD)));
  }
  // Privilege of the walk, not of the access: MPRV from M-mode sees the same.
  machine.set_privilege(Privilege::kMachine);
  machine.set_status(mstatus::kMprv | u64{1} << mstatus::kMppShift);
  protect(0);
  EXPECT_EQ(attempt(kPage, Access::kWrite), access_fault(Access::kWrite, kPage));
  protect(3);
  EXPECT_EQ(attempt(kPage, Access::kWrite), mapped(kData));
  EXPECT_EQ(machine.peek(tables.entry(kPage)), pte::leaf(kData, pte::kAll));
}

TEST_P(Walk, ModifyPrivilegeTranslatesDataOnly) {
  tables.map(kPage, kData, pte::kAll | pte::kU);
  struct Case {
    u64 previous;
    bool sum;
    std::string data;
  };
  machine.set_privilege(Privilege::kMachine);
  for (const Case& c : {Case{0, false, mapped(kData)}, Case{1, true, mapped(kData)},
                        Case{1, false, page_fault(Access::kRead, kPage)}, Case{3, false, mapped(kPage)}}) {
    machine.set_status(mstatus::kMprv | c.previous << mstatus::kMppShift | (c.sum ? mstatus::kSum : 0),
                       mstatus::kMpp | mstatus::kSum);
    EXPECT_EQ(attempt(kPage), c.data) << c.previous;
    EXPECT_EQ(attempt(kPage, Access::kFetch), mapped(kPage)) << c.previous;
  }
}

TEST(Bare, EveryAddressIsPhysical) {
  TestMachine machine;
  for (const Privilege privilege : {Privilege::kUser, Privilege::kSupervisor, Privilege::kMachine}) {
    machine.set_privilege(privilege);
    EXPECT_EQ(machine.hart.mmu().translate(kData + 5, Access::kRead, 1)->value, kData + 5);
    EXPECT_EQ(machine.hart.mmu().translate(u64{1} << 56, Access::kWrite, 1).error().cause, Exception::kStoreAccessFault);
  }
}

// --- The TLB: through instructions, from M-mode with MPRV, so that programs need no mapping.

struct Tlb : testing::Test {
  TestMachine machine;
  PageTables tables{machine, 3};

  Tlb() {
    machine.set_satp(tables.satp(1));
    machine.set_status(mstatus::kMprv | u64{1} << mstatus::kMppShift);
    machine.x(8) = kPage;
    for (u64 i = 0; i < 64; ++i) machine.poke(kData + i * kPageSize, i);
  }
  // Which page of kData s0 leads to; nothing when the load faults.
  std::optional<u64> look() {
    // A fault clears MPRV's meaning no more than MPP.
    const u64 status = machine.state().mstatus;
    const bool faulted = machine.run("ld a0, 0(s0)").has_value();
    machine.set_status(status, ~status);
    return faulted ? std::nullopt : std::optional(machine.a(0));
  }
};

TEST_F(Tlb, FencesMakeNewEntriesSeen) {
  constexpr unsigned kContiguous = 3;
  for (const std::string fence : {"sfence.vma zero, zero", "sfence.vma s1, zero", "sfence.vma zero, s2",
                                  "sfence.vma s1, s2", "sinval.vma s1, s2", "sinval.vma zero, zero"}) {
    for (const unsigned kind : {0u, 1u, kContiguous}) {
      const unsigned level = kind % kContiguous;
      const u64 size = kind == kContiguous ? 0x10000 : u64{4096} << 9 * level;
      const u64 gva = align_down(kPage, size);
      const u64 flags = pte::kAll | (kind == kContiguous ? pte::kN : 0);
      const auto map = [&](u64 gpa) {
        for (u64 at = gva; at < gva + (kind == kContiguous ? size : 1); at += kPageSize) {
          machine.poke(tables.entry(at, level), pte::leaf(gpa + (kind == kContiguous ? 0x8000 : 0), pte::kAll) | (flags & pte::kN));
        }
      };
      // From the fourth page of the mapping to another; the fence names any of its addresses.
      machine.x(8) = gva + (size > kPageSize ? 0x3000 : 0);
      machine.x(9) = gva + size - 8;
      machine.x(18) = 1;
      map(level == 1 ? kRam : kData);
      machine.run("sfence.vma zero, zero");
      const std::optional<u64> before = look();
      map(level == 1 ? kRam + 0x20'0000 : kData + 0x10000);
      machine.poke(kRam + 0x20'3000, u64{99});
      machine.run("sfence.w.inval\n" + fence + "\nsfence.inval.ir");
      const u64 expected = level == 1 ? 99 : size > kPageSize ? 0x13 : 0x10;
      EXPECT_EQ(look(), expected) << fence << " of " << size << " bytes";
      EXPECT_NE(before, expected);
      // Back to nothing at all.
      machine.poke(tables.entry(machine.x(8), level), u64{0});
      machine.run(fence);
      EXPECT_EQ(look(), std::nullopt) << fence << " of " << size << " bytes";
    }
  }
}

TEST_F(Tlb, HitsNeedNoWalk) {
  tables.map(kPage, kData, pte::kAll);
  EXPECT_EQ(look(), 0u);
  const u64 walks = machine.hart.mmu().statistics().walks;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(look(), 0u);
  EXPECT_EQ(machine.hart.mmu().statistics().walks, walks);
}

// What the hart keeps of upper levels is forgotten as well.
TEST_F(Tlb, FencesMakeNewTablesSeen) {
  constexpr u64 kOther = kPage + 0x1000;  // in the same table
  for (const std::string fence : {"sfence.vma zero, zero", "sfence.vma s0, zero", "sfence.vma zero, s2"}) {
    machine.x(18) = 1;
    tables.map(kPage, kData + 0x1000, pte::kAll);
    tables.map(kOther, kData + 0x2000, pte::kAll);
    machine.run("sfence.vma zero, zero");
    machine.x(8) = kPage;
    EXPECT_EQ(look(), 1u);
    // Another table, then a large page, then nothing in the place of the table.
    const u64 pointer = tables.entry(kPage, 1);
    const u64 table = machine.peek(pointer);
    const u64 copy = kData + 0x20000;
    machine.poke(copy + bits(kPage, 20, 12) * 8, pte::leaf(kData + 0x3000, pte::kAll));
    machine.poke(copy + bits(kOther, 20, 12) * 8, pte::leaf(kData + 0x4000, pte::kAll));
    machine.poke(pointer, pte::leaf(copy, pte::kV));
    machine.run(fence);
    EXPECT_EQ(look(), 3u) << fence;
    machine.x(8) = kOther;
    machine.run(fence);
    EXPECT_EQ(look(), 4u) << fence;
    machine.poke(pointer, pte::leaf(kRam, pte::kAll));
    machine.run(fence);
    EXPECT_EQ(look(), machine.peek(kRam + bits(kOther, 20, 0))) << fence;
    machine.poke(pointer, pte::leaf(kRam, pte::kV | pte::kX | pte::kA));
    machine.run(fence);
    EXPECT_EQ(look(), std::nullopt) << fence;
    machine.poke(pointer, u64{0});
    machine.run(fence);
    EXPECT_EQ(look(), std::nullopt) << fence;
    machine.poke(pointer, table);
  }
}

// Entries that were not valid are never kept (Svvptc).
TEST_F(Tlb, EntriesThatBecomeValidNeedNoFence) {
  tables.map(kPage, kData, pte::kAll);
  EXPECT_EQ(look(), 0u);
  machine.x(8) = kPage + 0x1000;
  EXPECT_EQ(look(), std::nullopt);
  tables.map(kPage + 0x1000, kData + 0x1000, pte::kAll);
  EXPECT_EQ(look(), 1u);
  const u64 pointer = tables.entry(kPage, 1);
  const u64 table = machine.peek(pointer);
  machine.poke(pointer, u64{0});
  machine.run("sfence.vma zero, zero");
  EXPECT_EQ(look(), std::nullopt);
  machine.poke(pointer, table);
  EXPECT_EQ(look(), 1u);
}

// A fence of one address leaves what lies elsewhere, however many large pages are in use.
TEST_F(Tlb, FencesOfOneAddressAreCheap) {
  constexpr u64 kLarge = u64{1} << 35;
  for (u64 i = 0; i < 100; ++i) tables.map(kLarge + i * 0x20'0000, kRam, pte::kAll, 1);
  tables.map(kPage, kData + 0x1000, pte::kAll);
  const auto look_at = [&](u64 gva) {
    machine.x(8) = gva;
    return look();
  };
  EXPECT_EQ(look_at(kPage), 1u);
  for (u64 i = 0; i < 100; ++i) look_at(kLarge + i * 0x20'1000);
  const u64 walks = machine.hart.mmu().statistics().walks;
  machine.x(9) = kPage;
  machine.run("sfence.vma s1, zero");
  for (u64 i = 50; i < 100; ++i) look_at(kLarge + i * 0x20'1000);
  EXPECT_EQ(machine.hart.mmu().statistics().walks, walks);
  // But for its own page, all pieces of it.
  machine.poke(tables.entry(kLarge, 1), u64{0});
  machine.x(9) = kLarge + 0x12'3000;
  machine.run("sfence.vma s1, zero");
  EXPECT_EQ(look_at(kLarge), std::nullopt);
}

// One walk does for loads and stores, where both are allowed and nothing is left to be marked.
TEST_F(Tlb, LoadsAndStoresShareAWalk) {
  tables.map(kPage, kData, pte::kAll);
  EXPECT_EQ(look(), 0u);
  const u64 walks = machine.hart.mmu().statistics().walks;
  EXPECT_EQ(machine.run("sd s0, 0(s0); ld a0, 0(s0)"), std::nullopt);
  EXPECT_EQ(machine.a(0), kPage);
  EXPECT_EQ(machine.hart.mmu().statistics().walks, walks);
}

TEST_F(Tlb, AddressSpacesAndModesAreApart) {
  tables.map(kPage, kData + 0x1000, pte::kAll);
  EXPECT_EQ(look(), 1u);
  // Another address space at the same tables' place: its own translation, and the first is still known.
  machine.set_satp(tables.satp(2));
  tables.map(kPage, kData + 0x2000, pte::kAll);
  EXPECT_EQ(look(), 2u);
  machine.run("sfence.vma zero, zero");
  machine.set_satp(tables.satp(1));
  EXPECT_EQ(look(), 2u);
  // What S-mode may see is not U-mode's, nor the other way round without SUM.
  machine.set_status(0, mstatus::kMpp);
  EXPECT_EQ(look(), std::nullopt);
  tables.map(kPage, kData, pte::kAll | pte::kU);
  machine.run("sfence.vma zero, zero");
  EXPECT_EQ(look(), 0u);
  machine.set_status(u64{1} << mstatus::kMppShift);
  EXPECT_EQ(look(), std::nullopt);
  machine.set_status(mstatus::kSum);
  EXPECT_EQ(look(), 0u);
  machine.set_status(0, mstatus::kSum);
  EXPECT_EQ(look(), std::nullopt);
  // Execute-only pages are readable as long as MXR is set.
  tables.map(kPage, kData, pte::kV | pte::kX | pte::kA);
  machine.run("sfence.vma zero, zero");
  EXPECT_EQ(look(), std::nullopt);
  machine.set_status(mstatus::kMxr);
  EXPECT_EQ(look(), 0u);
  machine.set_status(0, mstatus::kMxr);
  EXPECT_EQ(look(), std::nullopt);
}

// A new address space knows what is the same in all of them, and nothing else.
TEST_F(Tlb, GlobalPagesAreKnownInNewAddressSpaces) {
  constexpr u64 kGlobal = 0xffff'ffc0'0012'3000, kLocal = 0xffff'ffc0'0056'8000, kLow = 0x56'9000;
  for (const bool all_global : {true, false}) {
    tables.map(kGlobal, kData + 0x1000, pte::kAll | pte::kG);
    tables.map(kLocal, kData + 0x2000, pte::kAll | (all_global ? pte::kG : 0));
    tables.map(kLow, kData + 0x3000, pte::kAll | pte::kG);
    machine.run("sfence.vma zero, zero");
    const auto look_at = [&](u64 gva) {
      machine.x(8) = gva;
      return look();
    };
    machine.set_satp(tables.satp(1));
    EXPECT_EQ(look_at(kGlobal), 1u);
    EXPECT_EQ(look_at(kLocal), 2u);
    EXPECT_EQ(look_at(kLow), 3u);
    machine.set_satp(tables.satp(2));
    const u64 walks = machine.hart.mmu().statistics().walks;
    EXPECT_EQ(look_at(kGlobal), 1u);
    EXPECT_EQ(machine.hart.mmu().statistics().walks, all_global ? walks : walks + 1);
    tables.map(kLow, kData + 0x4000, pte::kAll);
    EXPECT_EQ(look_at(kLow), 4u);
    // A fence of the address forgets it in both.
    tables.map(kGlobal, kData + 0x5000, pte::kAll | pte::kG);
    machine.x(9) = kGlobal;
    machine.run("sfence.vma s1, zero");
    EXPECT_EQ(look_at(kGlobal), 5u);
    machine.set_satp(tables.satp(1));
    EXPECT_EQ(look_at(kGlobal), 5u);
  }
  // A page of users in the upper half is not the supervisor's once SUM has fallen, in any address space.
  tables.map(kGlobal, kData, pte::kAll | pte::kG | pte::kU);
  machine.run("sfence.vma zero, zero");
  machine.set_status(mstatus::kSum);
  machine.x(8) = kGlobal;
  EXPECT_EQ(look(), 0u);
  machine.set_satp(tables.satp(3));
  machine.set_status(0, mstatus::kSum);
  EXPECT_EQ(look(), std::nullopt);
  machine.set_satp(tables.satp(4));
  EXPECT_EQ(look(), std::nullopt);
}

// But never what only another mode may access: not when the mode's own context has been lost to one of that mode, by a fence
// or to make room.
TEST_F(Tlb, GlobalPagesStayWithTheirMode) {
  constexpr u64 kGlobal = 0xffff'ffc0'0012'3000;
  constexpr u64 kSupervisorMode = u64{1} << mstatus::kMppShift;
  machine.x(8) = kGlobal;
  tables.map(kGlobal, kData + 0x1000, pte::kAll | pte::kG);
  for (const char* fence : {"sfence.vma zero, zero", "addi zero, zero, 0"}) {
    for (u64 spaces = 1; spaces < 24; ++spaces) {
      machine.set_status(0, kSupervisorMode);
      machine.set_satp(tables.satp(100));
      EXPECT_EQ(look(), std::nullopt);
      machine.set_status(kSupervisorMode);
      machine.run(fence);
      for (u64 asid = 1; asid <= spaces; ++asid) {
        machine.set_satp(tables.satp(asid));
        EXPECT_EQ(look(), 1u);
      }
      machine.set_status(0, kSupervisorMode);
      machine.set_satp(tables.satp(200));
      EXPECT_EQ(look(), std::nullopt) << fence << "; " << spaces;
    }
  }
}

// A fence of one address space leaves global pages alone, as the manual lets it.
TEST_F(Tlb, FencesOfAddressSpacesLeaveGlobalPages) {
  constexpr u64 kGlobal = 0xffff'ffc0'0012'3000;
  tables.map(kGlobal, kData + 0x1000, pte::kAll | pte::kG);
  tables.map(kPage, kData + 0x2000, pte::kAll);
  const auto look_at = [&](u64 gva) {
    machine.x(8) = gva;
    return look();
  };
  EXPECT_EQ(look_at(kGlobal), 1u);
  EXPECT_EQ(look_at(kPage), 2u);
  tables.map(kPage, kData + 0x3000, pte::kAll);
  machine.x(18) = 1;
  machine.run("sfence.vma zero, s2");
  const u64 walks = machine.hart.mmu().statistics().walks;
  EXPECT_EQ(look_at(kGlobal), 1u);
  EXPECT_EQ(machine.hart.mmu().statistics().walks, walks);
  EXPECT_EQ(look_at(kPage), 3u);
  // With a page that is not global in that half, it forgets everything.
  tables.map(kGlobal + 0x1000, kData + 0x4000, pte::kAll);
  EXPECT_EQ(look_at(kGlobal + 0x1000), 4u);
  tables.map(kGlobal + 0x1000, kData + 0x5000, pte::kAll);
  machine.run("sfence.vma zero, s2");
  EXPECT_EQ(look_at(kGlobal + 0x1000), 5u);
}

// Pieces of a large page are forgotten together, also where they were taken over.
TEST_F(Tlb, FencesReachWhatWasTakenOver) {
  constexpr u64 kLarge = 0xffff'ffc0'0020'0000;
  tables.map(kLarge, kRam, pte::kAll | pte::kG, 1);
  machine.poke(kRam + 0x3000, u64{7});
  machine.x(8) = kLarge + 0x3000;
  EXPECT_EQ(look(), 7u);
  machine.set_satp(tables.satp(2));
  EXPECT_EQ(look(), 7u);
  machine.poke(tables.entry(kLarge, 1), u64{0});
  machine.x(9) = kLarge + 0x12'3000;
  machine.run("sfence.vma s1, zero");
  EXPECT_EQ(look(), std::nullopt);
}

// What is remembered of a walk is forgotten with all of the page where it ended, even if nothing of that is in the TLB.
TEST_F(Tlb, FencesReachWaysToPagesThatAreNotRam) {
  constexpr u64 kHuge = 0xffff'ffc0'4000'0000, kPiece = 0x20'0000;
  Mmu& mmu = machine.hart.mmu();
  const auto reads = [&](u64 gva) { return mmu.translate(gva, Access::kRead, 1).has_value(); };
  tables.map(kHuge, kHole, pte::kAll, 2);
  EXPECT_TRUE(reads(kHuge));
  EXPECT_TRUE(reads(kHuge + kPiece));
  machine.poke(tables.entry(kHuge, 2), u64{0});
  mmu.fence(&kHuge, nullptr);
  EXPECT_FALSE(reads(kHuge));
  EXPECT_FALSE(reads(kHuge + kPiece));
}

// The supervisor sees users' pages while SUM is set, and then knows them again; its own it knows all the time.
TEST_F(Tlb, UserPagesAreSeenWhileSumIsSet) {
  const auto look_at = [&](u64 page) {
    machine.x(8) = kPage + page * kPageSize;
    return look();
  };
  for (const u64 pages : {1u, 100u}) {
    for (u64 i = 0; i < pages; ++i) tables.map(kPage + i * kPageSize, kData, pte::kAll | pte::kU);
    tables.map(kPage + pages * kPageSize, kData, pte::kAll);
    machine.run("sfence.vma zero, zero");
    for (const bool again : {false, true}) {
      const u64 walks = machine.hart.mmu().statistics().walks;
      machine.set_status(mstatus::kSum);
      for (u64 i = 0; i <= pages; ++i) EXPECT_EQ(look_at(i), 0u);
      EXPECT_EQ(machine.hart.mmu().statistics().walks, again ? walks : walks + pages + 1);
      machine.set_status(0, mstatus::kSum);
      EXPECT_EQ(look_at(pages), 0u);
      EXPECT_EQ(machine.hart.mmu().statistics().walks, again ? walks : walks + pages + 2);
      for (u64 i = 0; i < pages; ++i) EXPECT_EQ(look_at(i), std::nullopt) << i << " of " << pages;
    }
    // What S-mode's own CSR writes do, M-mode's do as well.
    machine.set_status(mstatus::kSum);
    EXPECT_EQ(look_at(0), 0u);
    machine.run("li t0, 0x40000; csrrc zero, mstatus, t0");
    EXPECT_EQ(look_at(0), std::nullopt);
    // A fence reaches what is out of sight.
    tables.map(kPage, kData + 0x1000, pte::kAll | pte::kU);
    machine.x(9) = kPage;
    machine.run("sfence.vma s1, zero");
    machine.set_status(mstatus::kSum);
    EXPECT_EQ(look_at(0), 1u);
    machine.set_status(0, mstatus::kSum);
  }
}

TEST_F(Tlb, AReadableEntryDoesNotLetStoresPass) {
  tables.map(kPage, kData, pte::kV | pte::kR | pte::kA);
  EXPECT_EQ(look(), 0u);
  EXPECT_EQ(machine.run("sd a0, 0(s0)"), 15u);
  EXPECT_EQ(machine.state().mtval, kPage);
  // Dirty tracking: the first store through a clean entry marks it, though loads have cached it.
  machine.set_status(mstatus::kMprv | u64{1} << mstatus::kMppShift, mstatus::kMpp);
  machine.state().menvcfg = envcfg::kAdue;
  tables.map(kPage, kData, pte::kV | pte::kR | pte::kW | pte::kA);
  machine.run("sfence.vma zero, zero");
  EXPECT_EQ(look(), 0u);
  EXPECT_EQ(machine.peek(tables.entry(kPage)) & pte::kD, 0u);
  EXPECT_EQ(machine.run("sd zero, 0(s0)"), std::nullopt);
  EXPECT_NE(machine.peek(tables.entry(kPage)) & pte::kD, 0u);
}

// Many address spaces and pages, more than the TLB has room for, against a plain model.
TEST_F(Tlb, StaysRightUnderPressure) {
  constexpr u64 kSpaces = 40, kPages = 16;
  for (u64 i = 0; i < kPages; ++i) tables.map(kPage + i * 0x100000, kData + i * kPageSize, pte::kAll);
  std::uint32_t random = 1;
  for (int i = 0; i < 2000; ++i) {
    random = random * 1664525 + 1013904223;
    const u64 page = (random >> 8) % kPages;
    machine.set_satp(tables.satp((random >> 16) % kSpaces));
    machine.x(8) = kPage + page * 0x100000;
    const u64 entry = tables.entry(machine.x(8));
    if ((random >> 24) % 8 == 0) {
      machine.poke(entry, machine.peek(entry) ^ pte::leaf(0x20000, 0));
      machine.run((random >> 28) % 2 == 0 ? "sfence.vma s0, zero" : "sfence.vma zero, zero");
    }
    ASSERT_EQ(look(), bits(machine.peek(entry), 53, 10) - (kData >> kPageShift)) << i;
  }
}

// The supervisor's window, of which reads see what was entered and nothing else.
struct Window : testing::Test {
  static constexpr u64 kUpper = 0xffff'ffd6'0012'3000, kNext = kUpper + kPageSize;
  static constexpr u64 kGlobal = pte::kData | pte::kG;

  TestMachine machine;
  PageTables tables{machine, 3};
  Mmu& mmu = machine.hart.mmu();

  Window() {
    machine.set_privilege(Privilege::kSupervisor);
    machine.set_satp(tables.satp());
    mmu.fence(nullptr, nullptr);
    EXPECT_TRUE(mmu.open_window());
    machine.poke(kData, u64{1});
    machine.poke(kData + kPageSize, u64{2});
  }
  // 0: nothing is there.
  u64 seen(u64 gva) {
    u64 value = 0;
    const iovec into{&value, sizeof value}, from{mmu.window()->host(gva), sizeof value};
    return ::process_vm_readv(::getpid(), &into, 1, &from, 1, 0) == sizeof value ? value : 0;
  }
  void fence(u64 gva) { mmu.fence(&gva, nullptr); }
};

TEST_F(Window, HasTheGlobalPagesOfSupervisors) {
  EXPECT_FALSE(mmu.enter_in_window(kUpper));
  tables.map(kUpper, kData, pte::kData);
  EXPECT_FALSE(mmu.enter_in_window(kUpper)) << "of one address space";
  tables.map(kUpper, kData, kGlobal | pte::kU);
  EXPECT_FALSE(mmu.enter_in_window(kUpper)) << "a user's";
  tables.map(kUpper, 0x1000'0000, kGlobal);
  EXPECT_FALSE(mmu.enter_in_window(kUpper)) << "no RAM";
  tables.map(0x1000, kData, kGlobal);
  EXPECT_FALSE(mmu.enter_in_window(0x1000)) << "in the lower half";
  EXPECT_EQ(seen(kUpper), 0u);
  tables.map(kUpper, kData, kGlobal);
  EXPECT_TRUE(mmu.enter_in_window(kUpper + 8));
  EXPECT_EQ(seen(kUpper), 1u);
  machine.set_privilege(Privilege::kUser);
  EXPECT_EQ(mmu.window(), nullptr);
}

TEST_F(Window, FencesOfOneAddress) {
  tables.map(kUpper, kData, kGlobal);
  tables.map(kNext, kData + kPageSize, kGlobal);
  ASSERT_TRUE(mmu.enter_in_window(kUpper));
  EXPECT_EQ(seen(kNext), 2u) << "entered together";
  tables.map(kUpper, kData + kPageSize, kGlobal);
  tables.map(kNext, kData, kGlobal);
  EXPECT_EQ(seen(kUpper), 1u);
  fence(kUpper);
  EXPECT_EQ(seen(kUpper), 0u);
  EXPECT_EQ(seen(kNext), 2u);
  fence(kNext);
  EXPECT_EQ(seen(kNext), 0u);
  ASSERT_TRUE(mmu.enter_in_window(kNext));
  EXPECT_EQ(seen(kNext), 1u);
}

// Machine mode's context is the same in all address spaces: it learns nothing from the walks of a fence there.
TEST_F(Window, FencesInMachineModeLeaveNoTrace) {
  tables.map(kUpper, kData, kGlobal);
  ASSERT_TRUE(mmu.enter_in_window(kUpper));
  machine.set_privilege(Privilege::kMachine);
  tables.map(kUpper, kData + kPageSize, kGlobal);
  fence(kUpper);
  EXPECT_EQ(mmu.tlb().path(kUpper).region, TlbEntry::kEmpty);
  machine.set_privilege(Privilege::kSupervisor);
  EXPECT_EQ(seen(kUpper), 0u);
}

// PMP may close a part of what was entered as one page.
TEST_F(Window, PmpCutsLargePages) {
  constexpr u64 kLarge = 0xffff'ffd6'0020'0000, kOffset = kData - kRam;
  tables.map(kLarge, kRam, kGlobal, 1);
  ASSERT_TRUE(mmu.enter_in_window(kLarge));
  EXPECT_EQ(seen(kLarge + kOffset), 1u);
  EXPECT_EQ(seen(kLarge + kOffset + kPageSize), 2u);
  machine.state().pmpcfg[0] = 0x18;  // a page, of which nothing is allowed
  machine.state().pmpaddr[0] = (kData + kPageSize) >> 2 | (kPageSize / 8 - 1);
  mmu.flush();
  EXPECT_EQ(seen(kLarge + kOffset + kPageSize), 0u);
  ASSERT_TRUE(mmu.enter_in_window(kLarge + kOffset));
  EXPECT_EQ(seen(kLarge + kOffset), 1u);
  EXPECT_EQ(seen(kLarge + kOffset + kPageSize), 0u);
}

TEST_F(Window, FencesOfAll) {
  tables.map(kUpper, kData, kGlobal);
  tables.map(kNext, kData + kPageSize, kGlobal);
  ASSERT_TRUE(mmu.enter_in_window(kUpper));
  ASSERT_TRUE(mmu.enter_in_window(kNext));
  mmu.fence(nullptr, nullptr);
  EXPECT_EQ(seen(kUpper), 1u);
  machine.poke(tables.entry(kUpper), u64{0});
  const u64 asid = 1;
  mmu.fence(nullptr, &asid);
  EXPECT_EQ(seen(kUpper), 1u) << "global pages are in no address space";
  mmu.fence(nullptr, nullptr);
  EXPECT_EQ(seen(kUpper), 0u);
  EXPECT_EQ(seen(kNext), 2u);
  // What was seen of the tables when the page was entered counts, not what was there before or after.
  tables.map(kUpper, kData, kGlobal);
  ASSERT_TRUE(mmu.enter_in_window(kUpper));
  machine.poke(tables.entry(kUpper), u64{0});
  mmu.fence(nullptr, nullptr);
  EXPECT_EQ(seen(kUpper), 0u);
}

TEST_F(Window, FencesAfterOtherTables) {
  tables.map(kUpper, kData, kGlobal);
  ASSERT_TRUE(mmu.enter_in_window(kUpper));
  // An address space with another root and the same upper half.
  constexpr u64 kOther = kTables + 12 * kPageSize;
  for (u64 i = 256; i < 512; ++i) machine.poke(kOther + 8 * i, machine.peek(kTables + 8 * i));
  machine.set_satp(u64{8} << 60 | u64{3} << 44 | kOther >> kPageShift);
  EXPECT_EQ(seen(kUpper), 1u);
  mmu.fence(nullptr, nullptr);
  EXPECT_EQ(seen(kUpper), 1u);
  // Another last table, with another page.
  constexpr u64 kLast = kTables + 13 * kPageSize;
  machine.poke(kLast + 8 * bits(kUpper, 20, 12), pte::leaf(kData + kPageSize, kGlobal));
  machine.poke(tables.entry(kUpper, 1), pte::leaf(kLast, pte::kV));
  EXPECT_EQ(seen(kUpper), 1u);
  mmu.fence(nullptr, nullptr);
  EXPECT_EQ(seen(kUpper), 0u);
  ASSERT_TRUE(mmu.enter_in_window(kUpper));
  EXPECT_EQ(seen(kUpper), 2u);
  machine.poke(kLast + 8 * bits(kUpper, 20, 12), u64{0});
  mmu.fence(nullptr, nullptr);
  EXPECT_EQ(seen(kUpper), 0u) << "the tables that it was found by now are the ones to look at";
}

TEST_F(Window, IsEmptyWithoutPageTables) {
  tables.map(kUpper, kData, kGlobal);
  ASSERT_TRUE(mmu.enter_in_window(kUpper));
  const ShadowSpace& window = *mmu.window();
  machine.set_satp(0);
  EXPECT_EQ(mmu.window(), nullptr);
  mmu.fence(nullptr, nullptr);
  machine.set_satp(tables.satp());
  ASSERT_EQ(mmu.window(), &window);
  EXPECT_EQ(seen(kUpper), 0u);
}

TEST_F(Window, HeedsPhysicalMemoryProtection) {
  tables.map(kUpper, kData, kGlobal);
  tables.map(kNext, kData + kPageSize, kGlobal);
  ASSERT_TRUE(mmu.enter_in_window(kUpper));
  EXPECT_EQ(seen(kNext), 2u);
  HartState& state = machine.state();
  for (const unsigned i : {1u, 0u}) {
    state.pmpcfg[i + 1] = state.pmpcfg[i];
    state.pmpaddr[i + 1] = state.pmpaddr[i];
  }
  // The first page, not to be accessed.
  state.pmpcfg[0] = 3 << 3;
  state.pmpaddr[0] = kData >> 2 | 0x1ff;
  mmu.flush();
  EXPECT_EQ(seen(kUpper), 0u);
  EXPECT_FALSE(mmu.enter_in_window(kUpper));
  EXPECT_TRUE(mmu.enter_in_window(kNext));
  EXPECT_EQ(seen(kUpper), 0u);
  EXPECT_EQ(seen(kNext), 2u);
}

// What comes and goes all the time is not entered any more.
TEST_F(Window, RefusesWhatIsRemovedTooOften) {
  unsigned entered = 0;
  for (unsigned i = 0; i < 1000; ++i) {
    tables.map(kUpper, kData + i % 2 * kPageSize, kGlobal);
    fence(kUpper);
    entered += mmu.enter_in_window(kUpper);
  }
  EXPECT_GT(entered, 10u);
  EXPECT_LT(entered, 200u);
  EXPECT_EQ(seen(kUpper), 0u);
}

}  // namespace
}  // namespace doppel::riscv::test
