// A program in flat memory for comparing engines: the contents of a Scenario that is in U-mode without translation, at the
// guest's addresses in the host's memory or elsewhere. Some pages of its data may not be written, or not accessed.
#pragma once

#include <signal.h>
#include <sys/mman.h>

#include <csignal>

#include "engine/host_fault.h"
#include "memory/io_space.h"
#include "random_program.h"

namespace doppel::engine_test {

// While it lives, faults of guest code are the guest's.
class GuestFaults {
 public:
  GuestFaults() {
    struct sigaction action {};
    action.sa_sigaction = [](int signal, siginfo_t*, void* context) {
      if (!recover_guest_fault(signal, *static_cast<ucontext_t*>(context))) ::signal(signal, SIG_DFL);
    };
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGSEGV, &action, &segv_);
    ::sigaction(SIGBUS, &action, &bus_);
  }
  ~GuestFaults() {
    ::sigaction(SIGSEGV, &segv_, nullptr);
    ::sigaction(SIGBUS, &bus_, nullptr);
  }

 private:
  struct sigaction segv_ {}, bus_{};
};

class FlatMachine final : public riscv::UserSpace {
 public:
  enum class Place { kIdentity, kElsewhere };
  struct Event {
    riscv::Exception cause;
    u64 value, epc;
    friend bool operator==(const Event&, const Event&) = default;
  };
  static constexpr u64 kEnd = kRam + kRamBytes;
  // On both sides, for addresses near 0 and beyond the end. The host's code lies next to it, where the sum of two or three
  // powers of two, which programs compute, does not lead.
  static constexpr u64 kGuard = u64{0b110101} << 31;

  // Null where the host has something else at the guest's addresses.
  static std::unique_ptr<FlatMachine> make(Place place, const Contents& contents) {
    void* at = nullptr;
    if (place == Place::kIdentity) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
      return nullptr;  // much of what a wild pointer of the guest's may hit is the sanitizer's
#endif
      at = ::mmap(reinterpret_cast<void*>(kRam), kRamBytes, PROT_NONE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    } else {
      at = ::mmap(nullptr, kGuard + kEnd + kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (at == MAP_FAILED) return nullptr;
    auto* base = place == Place::kIdentity ? nullptr : static_cast<std::byte*>(at) + kGuard;
    return std::unique_ptr<FlatMachine>(new FlatMachine(base, contents));
  }
  ~FlatMachine() override {
    engine_.reset();
    if (flat_.base == nullptr) {
      ::munmap(flat_.host(kRam), kRamBytes);
    } else {
      ::munmap(flat_.base - kGuard, kGuard + kEnd + kGuard);
    }
  }

  void interpret() { engine_ = make_engine(EngineKind::kInterpret, hart_).value(); }
  void translate(const TranslatorEngine::Options& options, std::shared_ptr<CodeArchive> archive = nullptr) {
    auto engine = TranslatorEngine::create(hart_, options).value();
    engine->keep_code({std::move(archive), nullptr});
    engine_ = std::move(engine);
  }

  void let_code_change() {
    for (u64 page = (kCode - kRam) / kPageSize; page < (kCode + kCodeBytes - kRam) / kPageSize; ++page) {
      rights_[page] |= PROT_WRITE;
    }
    ::mprotect(flat_.host(kCode), kCodeBytes, PROT_READ | PROT_WRITE);
  }

  void run(const Scenario::Chunk& chunk) {
    clock_.set(chunk.time * riscv::kNanosecondsPerTick);
    const u64 end = hart_.state().instructions + chunk.instructions;
    while (hart_.state().instructions < end) engine_->run(end - hart_.state().instructions);
  }
  riscv::Hart& hart() { return hart_; }
  EngineStatistics statistics() const { return engine_->statistics(); }

  const FlatMemory& flat() const override { return flat_; }
  bool allows(u64 gva, riscv::Access access) const override {
    if (gva < kRam || gva >= kEnd) return false;
    const int rights = rights_[(gva - kRam) / kPageSize];
    if (access == riscv::Access::kFetch) return (rights & PROT_EXEC) != 0;
    return (rights & (access == riscv::Access::kRead ? PROT_READ : PROT_WRITE)) != 0;
  }
  bool recurs(u64) const override { return true; }
  void trap(riscv::Hart& hart, riscv::Trap trap, u64 epc) override {
    events_.push_back({trap.cause, trap.value, epc});
    const bool fetched = trap.cause != riscv::Exception::kInstructionPageFault &&
                         trap.cause != riscv::Exception::kInstructionAccessFault && allows(epc, riscv::Access::kFetch);
    hart.state().pc = kCode;
    if (!fetched) return;
    std::uint16_t half = 0;
    std::memcpy(&half, flat_.host(epc), sizeof half);
    hart.state().pc = epc + riscv::instruction_bytes(half);
  }

  // What the guest could tell the two apart by, one line each.
  static std::string differences(const FlatMachine& a, const FlatMachine& b) {
    std::string text;
    const auto compare = [&text](std::string_view name, u64 left, u64 right) {
      if (left != right) text += fmt::format("  {:<16} {:#018x} {:#018x}\n", name, left, right);
    };
    const riscv::HartState& s = a.hart_.state();
    const riscv::HartState& t = b.hart_.state();
    for (unsigned i = 0; i < 32; ++i) compare(riscv::integer_register_names()[i], s.x[i], t.x[i]);
    for (unsigned i = 0; i < 32; ++i) compare(riscv::float_register_names()[i], s.f[i], t.f[i]);
    compare("pc", s.pc, t.pc);
    compare("instructions", s.instructions, t.instructions);
    compare("fflags", s.fflags, t.fflags);
    compare("frm", s.frm, t.frm);
    compare("traps", a.events_.size(), b.events_.size());
    for (std::size_t i = 0; i < std::min(a.events_.size(), b.events_.size()); ++i) {
      if (a.events_[i] == b.events_[i]) continue;
      const Event &left = a.events_[i], &right = b.events_[i];
      text += fmt::format("  trap {}: cause {} value {:#x} pc {:#x}, cause {} value {:#x} pc {:#x}\n", i,
                          static_cast<unsigned>(left.cause), left.value, left.epc, static_cast<unsigned>(right.cause),
                          right.value, right.epc);
      break;
    }
    for (u64 page = 0; page < kRamBytes / kPageSize; ++page) {
      if ((a.rights_[page] & PROT_READ) == 0) continue;
      const std::byte *left = a.flat_.host(kRam + page * kPageSize), *right = b.flat_.host(kRam + page * kPageSize);
      if (std::memcmp(left, right, kPageSize) != 0) text += fmt::format("  page {:#x}\n", kRam + page * kPageSize);
    }
    return text;
  }

 private:
  FlatMachine(std::byte* base, const Contents& contents)
      : flat_{base, kEnd},
        hart_(0, riscv::IsaConfig::rva22(), {memory_, io_, clock_, [](u64) {}, nullptr, this}) {
    clock_.pause();
    clock_.set(0);
    std::byte* ram = flat_.host(kRam);
    ::mprotect(ram, kRamBytes, PROT_READ | PROT_WRITE);
    std::memcpy(ram, contents.ram.data(), kRamBytes);
    rights_.fill(PROT_READ | PROT_WRITE);
    for (u64 page = (kCode - kRam) / kPageSize; page < (kCode + kCodeBytes - kRam) / kPageSize; ++page) {
      // The engines may well differ about changes to code that no FENCE.I makes known.
      rights_[page] = PROT_READ | PROT_EXEC;
      ::mprotect(ram + page * kPageSize, kPageSize, PROT_READ);
    }
    for (u64 page = (kData - kRam) / kPageSize; page < (kData - kRam) / kPageSize + kDataPages; ++page) {
      // By the data, so that both machines of a comparison have the same.
      const auto lot = static_cast<unsigned>(contents.ram[page * kPageSize]) % 8;
      if (lot < 2) rights_[page] = lot == 0 ? PROT_READ : PROT_NONE;
      ::mprotect(ram + page * kPageSize, kPageSize, rights_[page]);
    }
    hart_.enter_user(kCode);
    riscv::HartState& state = hart_.state();
    state.x = contents.state.x;
    state.f = contents.state.f;
    state.frm = contents.state.frm;
  }

  class NoIo final : public IoSpace {
   public:
    std::optional<u64> read(GuestPhysical, Width) const override { return std::nullopt; }
    bool write(GuestPhysical, Width, u64) const override { return false; }
  };

  FlatMemory flat_;
  std::array<int, kRamBytes / kPageSize> rights_{};
  std::vector<Event> events_;
  GuestMemory memory_;
  NoIo io_;
  VirtualClock clock_;
  riscv::Hart hart_;
  std::unique_ptr<Engine> engine_;
};

}  // namespace doppel::engine_test
