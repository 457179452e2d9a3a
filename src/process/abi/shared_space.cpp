#include "process/abi/shared_space.h"

#include <sys/mman.h>

#include <algorithm>
#include <iterator>
#include <cstring>

#include "isa/riscv/mmu.h"

namespace doppel::process {
namespace {

constexpr std::size_t kMostIdle = 8;

class NoIo final : public IoSpace {
 public:
  std::optional<std::uint64_t> read(GuestPhysical, Width) const override { return std::nullopt; }
  bool write(GuestPhysical, Width, std::uint64_t) const override { return false; }
};

}  // namespace

SharedSpace::SharedSpace(EngineKind engine, std::shared_ptr<TranslationLog> log, const PassSet& passes)
    : engines_(engine, std::move(log), passes), no_io_(std::make_unique<NoIo>()) {}

SharedSpace::~SharedSpace() = default;

Result<std::unique_ptr<SharedSpace>> SharedSpace::create(EngineKind engine, unsigned address_bits,
                                                         std::shared_ptr<TranslationLog> log, const PassSet& passes) {
  std::unique_ptr<SharedSpace> shared(new SharedSpace(engine, std::move(log), passes));
  auto space = AddressSpace::create(AddressSpace::Place::kIdentity, address_bits);
  if (!space) return std::unexpected(space.error());
  shared->space_ = std::move(*space);
  shared->space_->on_code_change = [raw = shared.get()](std::uint64_t gva, std::uint64_t bytes) {
    raw->code_changed(gva, bytes);
  };
  return shared;
}

Result<std::uint64_t> SharedSpace::map_vdso() {
  auto vdso = Vdso::map(*space_, clock_);
  if (!vdso) return std::unexpected(vdso.error());
  vdso_ = std::move(*vdso);
  return vdso_->base();
}

bool SharedSpace::allows(std::uint64_t gva, riscv::Access access) const {
  switch (access) {
    case riscv::Access::kFetch: return space_->allows(gva, PROT_EXEC);
    case riscv::Access::kRead: return space_->allows(gva, PROT_READ);
    default: return space_->allows(gva, PROT_WRITE);
  }
}

bool SharedSpace::recurs(std::uint64_t gva) const {
  return space_->is_of_file(gva) || (vdso_ != nullptr && gva - vdso_->base() < kPageSize);
}

void SharedSpace::trap(riscv::Hart&, riscv::Trap trap, std::uint64_t epc) { GuestThread::current().trap(trap, epc); }

std::optional<std::uint64_t> SharedSpace::keep_code(int folder, std::span<const std::byte> program) {
  const std::string isa = riscv::IsaConfig::rva22().isa_string();
  std::vector<std::byte> identity;
  identity.reserve(program.size() + isa.size() + 1);
  identity.assign(program.begin(), program.end());
  std::ranges::copy(std::as_bytes(std::span(isa)), std::back_inserter(identity));
  identity.push_back(std::byte{flat().base == nullptr});
  return engines_.keep_code(folder, identity);
}

Result<std::unique_ptr<Processor>> SharedSpace::take_processor() {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Processor> processor = std::move(idle_.back());
      idle_.pop_back();
      return processor;
    }
  }
  auto processor = std::make_unique<Processor>();
  processor->hart = std::make_unique<riscv::Hart>(
      0, riscv::IsaConfig::rva22(),
      riscv::HartEnv{.memory = no_memory_, .io = *no_io_, .clock = clock_, .arm_timer = {}, .user = this});
  auto engine = engines_.make(*processor->hart);
  if (!engine) return std::unexpected(engine.error());
  processor->engine = std::move(*engine);
  processor->hart->enter_user(0);
  return processor;
}

void SharedSpace::give_back(std::unique_ptr<Processor> processor) {
  processor->hart->clear_stop();
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMostIdle) idle_.push_back(std::move(processor));
}

Result<void> SharedSpace::renew_engine(Processor& processor) {
  processor.engine.reset();
  auto engine = engines_.make(*processor.hart);
  if (!engine) return std::unexpected(engine.error());
  processor.engine = std::move(*engine);
  processor.hart->mmu().flush();
  return {};
}

void SharedSpace::lock() {
  mutex_.lock();
  engines_.lock();
  space_->mutex().lock();
}

void SharedSpace::unlock() {
  space_->mutex().unlock();
  engines_.unlock();
  mutex_.unlock();
}

void SharedSpace::keep_only_caller() {
  engines_.start_anew();
  // Their code memory is the parent's, and to take them apart would copy every page that they lie in.
  for (auto& processor : idle_) static_cast<void>(processor.release());
  idle_.clear();
}

}  // namespace doppel::process
