#include "device/aclint/aclint.h"

#include <cassert>

#include "base/bits.h"

namespace doppel {

namespace {

constexpr std::uint64_t kMsip = 0x0;
constexpr std::uint64_t kMtimecmp = 0x4000;
constexpr std::uint64_t kMtime = 0xbff8;

constexpr std::uint64_t kNanosecondsPerTick = 1'000'000'000 / Aclint::kTicksPerSecond;

constexpr std::uint32_t word_of(std::uint64_t value, std::uint64_t offset) {
  return static_cast<std::uint32_t>(offset % 8 == 0 ? value : value >> 32);
}

constexpr std::uint64_t with_word(std::uint64_t value, std::uint64_t offset, std::uint32_t word) {
  return offset % 8 == 0 ? with_bits(value, 31, 0, word) : with_bits(value, 63, 32, word);
}

}  // namespace

Aclint::Aclint(const DeviceEnv& env, std::vector<HartLines> harts) : clock_(env.clock) {
  assert(harts.size() <= kMaxHarts);
  for (HartLines& lines : harts) harts_.emplace_back().lines = std::move(lines);
  // The vector is complete, so its elements stay where the callbacks expect them.
  for (Hart& hart : harts_) {
    hart.timer = std::make_unique<VirtualTimer>(env.loop, clock_, [this, &hart] {
      const std::lock_guard lock(monitor());
      update_timer(hart);
    });
  }
  drive_lines();
}

std::uint64_t Aclint::machine_ticks() const { return clock_.now() / kNanosecondsPerTick; }

std::uint64_t Aclint::mtime() const {
  return machine_ticks() + mtime_offset_.load(std::memory_order_relaxed);
}

void Aclint::set_mtime(std::uint64_t ticks) {
  mtime_offset_.store(ticks - machine_ticks(), std::memory_order_relaxed);
  for (Hart& hart : harts_) update_timer(hart);
}

void Aclint::update_timer(Hart& hart) {
  const std::uint64_t now = mtime();
  const bool due = now >= hart.mtimecmp;
  hart.lines.timer.set(due);
  if (due) return hart.timer->cancel();
  // A deadline beyond what nanoseconds can count is never.
  const std::uint64_t ticks = machine_ticks();
  const std::uint64_t wait = hart.mtimecmp - now;
  const bool countable = wait <= kNoDeadline / kNanosecondsPerTick - ticks;
  hart.timer->arm(countable ? (ticks + wait) * kNanosecondsPerTick : kNoDeadline);
}

void Aclint::drive_lines() {
  for (Hart& hart : harts_) {
    hart.lines.software.set(hart.msip);
    update_timer(hart);
  }
}

std::uint32_t Aclint::read_word(std::uint64_t offset) const {
  if (offset >= kMtime) return offset < kMtime + 8 ? word_of(mtime(), offset) : 0;
  if (offset >= kMtimecmp) {
    const std::uint64_t index = (offset - kMtimecmp) / 8;
    return index < harts_.size() ? word_of(harts_[index].mtimecmp, offset) : 0;
  }
  const std::uint64_t index = (offset - kMsip) / 4;
  return index < harts_.size() ? harts_[index].msip : 0;
}

void Aclint::write_word(std::uint64_t offset, std::uint32_t value) {
  if (offset >= kMtime) {
    if (offset < kMtime + 8) set_mtime(with_word(mtime(), offset, value));
  } else if (offset >= kMtimecmp) {
    const std::uint64_t index = (offset - kMtimecmp) / 8;
    if (index >= harts_.size()) return;
    Hart& hart = harts_[index];
    hart.mtimecmp = with_word(hart.mtimecmp, offset, value);
    update_timer(hart);
  } else {
    const std::uint64_t index = (offset - kMsip) / 4;
    if (index >= harts_.size()) return;
    harts_[index].msip = bit(value, 0);
    harts_[index].lines.software.set(harts_[index].msip);
  }
}

std::uint64_t Aclint::read(Offset offset, Width width) {
  if (width == Width::k4) return read_word(offset.value);
  if (width != Width::k8) return 0;
  if (offset.value == kMtime) return mtime();  // both halves of one moment
  return read_word(offset.value) | std::uint64_t{read_word(offset.value + 4)} << 32;
}

void Aclint::write(Offset offset, Width width, std::uint64_t value) {
  if (width == Width::k4) return write_word(offset.value, static_cast<std::uint32_t>(value));
  if (width != Width::k8) return;
  if (offset.value == kMtime) return set_mtime(value);
  const std::uint64_t index = (offset.value - kMtimecmp) / 8;
  if (offset.value >= kMtimecmp && index < harts_.size()) {
    // At once: the halves one after the other could pass through a deadline that is due.
    harts_[index].mtimecmp = value;
    return update_timer(harts_[index]);
  }
  write_word(offset.value, static_cast<std::uint32_t>(value));
  write_word(offset.value + 4, static_cast<std::uint32_t>(value >> 32));
}

// mtime goes back to the machine's time, which the harts' time CSR shows.
void Aclint::reset() {
  mtime_offset_ = 0;
  for (Hart& hart : harts_) {
    hart.msip = false;
    hart.mtimecmp = kNoDeadline;
  }
  drive_lines();
}

void Aclint::save(StateWriter& writer) const {
  std::vector<std::uint64_t> msip;
  std::vector<std::uint64_t> mtimecmp;
  for (const Hart& hart : harts_) {
    msip.push_back(hart.msip);
    mtimecmp.push_back(hart.mtimecmp);
  }
  writer.numbers("msip", msip);
  writer.numbers("mtimecmp", mtimecmp);
  writer.number("mtime_offset", mtime_offset_);
}

Result<std::unique_ptr<Aclint>> Aclint::restore(const DeviceEnv& env, std::vector<HartLines> harts,
                                                const StateReader& reader) {
  auto device = std::make_unique<Aclint>(env, std::move(harts));
  std::vector<std::uint64_t> msip(device->harts_.size());
  std::vector<std::uint64_t> mtimecmp(device->harts_.size());
  std::uint64_t mtime_offset = 0;
  StateFields fields(reader);
  fields.read("msip", msip).read("mtimecmp", mtimecmp).read("mtime_offset", mtime_offset);
  if (const auto result = fields.result(); !result) return std::unexpected(result.error());

  const std::lock_guard lock(device->monitor());
  device->mtime_offset_ = mtime_offset;
  for (std::size_t i = 0; i < device->harts_.size(); ++i) {
    device->harts_[i].msip = bit(msip[i], 0);
    device->harts_[i].mtimecmp = mtimecmp[i];
  }
  device->drive_lines();
  return device;
}

void Aclint::describe(FdtBuilder& fdt, const Placement& placement) const {
  const auto node = fdt.node("clint", placement.range.start.value);
  fdt.texts("compatible", {"sifive,clint0", "riscv,clint0"});
  fdt.reg(placement.range);
  std::vector<std::uint32_t> interrupts;
  for (const Phandle hart : placement.hart_controllers) interrupts.insert(interrupts.end(), {hart, 3, hart, 7});
  fdt.cells("interrupts-extended", interrupts);  // mip.MSIP and mip.MTIP of each hart
}

}  // namespace doppel
