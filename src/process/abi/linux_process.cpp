#include "process/abi/linux_process.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "base/bits.h"
#include "base/log.h"
#include "process/abi/system_calls.h"

namespace doppel::process {
namespace {

class NoIo final : public IoSpace {
 public:
  std::optional<std::uint64_t> read(GuestPhysical, Width) const override { return std::nullopt; }
  bool write(GuestPhysical, Width, std::uint64_t) const override { return false; }
};

int signal_of(riscv::Exception cause) {
  switch (cause) {
    case riscv::Exception::kIllegalInstruction: return SIGILL;
    case riscv::Exception::kBreakpoint: return SIGTRAP;
    case riscv::Exception::kInstructionMisaligned:
    case riscv::Exception::kLoadMisaligned:
    case riscv::Exception::kStoreMisaligned: return SIGBUS;
    default: return SIGSEGV;
  }
}

[[noreturn]] void die_by(int number) {
  ::signal(number, SIG_DFL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
  ::raise(number);
  ::_exit(128 + number);
}

}  // namespace

LinuxProcess::~LinuxProcess() = default;

std::expected<std::unique_ptr<LinuxProcess>, LoadError> LinuxProcess::create(ProcessOptions options) {
  constexpr int kOurFailure = 125;
  std::unique_ptr<LinuxProcess> process(new LinuxProcess(std::move(options)));
  auto space = AddressSpace::create();
  if (!space) return std::unexpected(LoadError{space.error(), kOurFailure});
  process->space_ = std::move(*space);
  const auto image = load_program(*process->space_, process->options_.program);
  if (!image) return std::unexpected(image.error());
  process->no_io_ = std::make_unique<NoIo>();
  process->hart_ = std::make_unique<riscv::Hart>(
      0, riscv::IsaConfig::rva22(),
      riscv::HartEnv{.memory = process->no_memory_, .io = *process->no_io_, .clock = process->clock_,
                     .arm_timer = {}, .user = process.get()});
  auto engine = make_engine(process->options_.engine, *process->hart_);
  if (!engine) return std::unexpected(LoadError{engine.error(), kOurFailure});
  process->engine_ = std::move(*engine);
  process->space_->on_code_change = [raw = process.get()](std::uint64_t, std::uint64_t) { raw->mappings_changed(); };
  process->hart_->enter_user(image->pc);
  process->hart_->state().x[2] = image->sp;
  return process;
}

Error LinuxProcess::run() {
  for (;;) {
    engine_->run(kUnlimited);
    if (!renew_engine_) continue;
    renew_engine_ = false;
    engine_.reset();
    auto engine = make_engine(options_.engine, *hart_);
    if (!engine) return engine.error();
    engine_ = std::move(*engine);
    hart_->mmu().flush();
    hart_->clear_stop();
  }
}

void LinuxProcess::became_child() {
  renew_engine_ = true;
  hart_->request_stop();
}

bool LinuxProcess::allows(std::uint64_t gva, riscv::Access access) const {
  switch (access) {
    case riscv::Access::kFetch: return space_->allows(gva, PROT_EXEC);
    case riscv::Access::kRead: return space_->allows(gva, PROT_READ);
    default: return space_->allows(gva, PROT_WRITE);
  }
}

void LinuxProcess::trap(riscv::Hart& hart, riscv::Trap trap, std::uint64_t epc) {
  riscv::HartState& state = hart.state();
  if (trap.cause == riscv::Exception::kUserCall) {
    state.pc = epc + 4;
    state.x[10] = static_cast<std::uint64_t>(system_call(*this));
    return;
  }
  const int number = signal_of(trap.cause);
  log_info("signal {} at pc {:#x}, address {:#x}", number, epc, trap.value);
  for (unsigned r = 1; r < 32; r += 4) {
    log_info("x{:<2} {:016x} {:016x} {:016x} {:016x}", r, state.x[r], r + 1 < 32 ? state.x[r + 1] : 0,
             r + 2 < 32 ? state.x[r + 2] : 0, r + 3 < 32 ? state.x[r + 3] : 0);
  }
  die_by(number);
}

void* LinuxProcess::pointer(std::uint64_t gva) const {
  if (gva == 0) return nullptr;
  // Not canonical: no process has anything there.
  if (!flat().contains(gva, 1)) return reinterpret_cast<void*>(std::uintptr_t{1} << 63);
  return flat().host(gva);
}

bool LinuxProcess::covers(std::uint64_t gva, std::uint64_t bytes, int protection) const {
  if (!flat().contains(gva, bytes)) return false;
  for (std::uint64_t page = align_down(gva, kPageSize); page < gva + bytes; page += kPageSize) {
    if (!space_->allows(page, protection)) return false;
  }
  return true;
}

bool LinuxProcess::readable(std::uint64_t gva, std::uint64_t bytes) const { return covers(gva, bytes, PROT_READ); }
bool LinuxProcess::writable(std::uint64_t gva, std::uint64_t bytes) const { return covers(gva, bytes, PROT_WRITE); }

void LinuxProcess::mappings_changed() {
  hart_->mmu().flush();
  if (hart_->on_fence_i) hart_->on_fence_i();
}

}  // namespace doppel::process
