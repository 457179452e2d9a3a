#include "device/goldfish_rtc/goldfish_rtc.h"

#include <chrono>

#include "base/bits.h"

namespace doppel {

namespace {

// Registers, of the goldfish platform's timer device.
enum Register : std::uint64_t {
  kTimeLow = 0x00,
  kTimeHigh = 0x04,
  kAlarmLow = 0x08,
  kAlarmHigh = 0x0c,
  kIrqEnabled = 0x10,
  kClearAlarm = 0x14,
  kAlarmStatus = 0x18,
  kClearInterrupt = 0x1c,
};

constexpr std::uint32_t high_half(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); }

}  // namespace

std::uint64_t GoldfishRtc::host_wall_clock() {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

GoldfishRtc::GoldfishRtc(const DeviceEnv& env, std::uint64_t wall_clock)
    : clock_(env.clock), irq_(env.irq), offset_(wall_clock - env.clock.now()), timer_(env.loop, env.clock, [this] {
        const std::lock_guard lock(monitor());
        update_alarm();
      }) {
  update_irq();
}

void GoldfishRtc::update_alarm() {
  if (!alarm_armed_) return timer_.cancel();
  const std::uint64_t time = now();
  if (time < alarm_) {
    const std::uint64_t wait = alarm_ - time;
    const std::uint64_t virtual_now = clock_.now();
    return timer_.arm(wait > ~virtual_now ? ~std::uint64_t{0} : virtual_now + wait);
  }
  alarm_armed_ = false;
  irq_pending_ = true;
  timer_.cancel();
  update_irq();
}

std::uint64_t GoldfishRtc::read(Offset offset, Width width) {
  if (width != Width::k4) return 0;
  switch (offset.value) {
    case kTimeLow: {
      const std::uint64_t time = now();
      time_high_ = high_half(time);
      return bits(time, 31, 0);
    }
    case kTimeHigh: return time_high_;
    case kAlarmLow: return bits(alarm_, 31, 0);
    case kAlarmHigh: return high_half(alarm_);
    case kIrqEnabled: return irq_enabled_;
    case kAlarmStatus: return alarm_armed_;
    default: return 0;
  }
}

void GoldfishRtc::write(Offset offset, Width width, std::uint64_t value) {
  if (width != Width::k4) return;
  switch (offset.value) {
    case kTimeLow:
      set_now(with_bits(now(), 31, 0, value));
      return update_alarm();
    case kTimeHigh:
      set_now(with_bits(now(), 63, 32, value));
      return update_alarm();
    case kAlarmLow:
      alarm_ = with_bits(alarm_, 31, 0, value);
      alarm_armed_ = true;
      return update_alarm();
    case kAlarmHigh:  // takes effect with the low half
      alarm_ = with_bits(alarm_, 63, 32, value);
      return;
    case kIrqEnabled:
      irq_enabled_ = bit(value, 0);
      return update_irq();
    case kClearAlarm:
      alarm_armed_ = false;
      return update_alarm();
    case kClearInterrupt:
      irq_pending_ = false;
      return update_irq();
    default: return;
  }
}

void GoldfishRtc::reset() {
  time_high_ = 0;
  alarm_ = 0;
  alarm_armed_ = false;
  irq_pending_ = false;
  irq_enabled_ = false;
  update_alarm();
  update_irq();
}

void GoldfishRtc::save(StateWriter& writer) const {
  writer.number("offset", offset_);
  writer.number("time_high", time_high_);
  writer.number("alarm", alarm_);
  writer.number("alarm_armed", alarm_armed_);
  writer.number("irq_pending", irq_pending_);
  writer.number("irq_enabled", irq_enabled_);
}

Result<std::unique_ptr<GoldfishRtc>> GoldfishRtc::restore(const DeviceEnv& env, const StateReader& reader) {
  auto device = std::make_unique<GoldfishRtc>(env);
  StateFields fields(reader);
  fields.read("offset", device->offset_)
      .read("time_high", device->time_high_)
      .read("alarm", device->alarm_)
      .read("alarm_armed", device->alarm_armed_)
      .read("irq_pending", device->irq_pending_)
      .read("irq_enabled", device->irq_enabled_);
  if (const auto result = fields.result(); !result) return std::unexpected(result.error());
  const std::lock_guard lock(device->monitor());
  device->update_alarm();
  device->update_irq();
  return device;
}

void GoldfishRtc::describe(FdtBuilder& fdt, const Placement& placement) const {
  const auto node = fdt.node("rtc", placement.range.start.value);
  fdt.text("compatible", "google,goldfish-rtc");
  fdt.reg(placement.range);
  fdt.interrupt(placement);
}

}  // namespace doppel
