// The goldfish real-time clock: wall-clock nanoseconds since 1970 and one alarm.
//
// The clock starts at the host's wall clock and then follows virtual time, so it neither jumps with the host
// nor runs during pauses. An alarm that time has passed is pending, and no longer armed.
#pragma once

#include <cstdint>
#include <memory>

#include "device/device.h"

namespace doppel {

class GoldfishRtc final : public Device {
 public:
  static constexpr std::uint64_t kSizeBytes = 0x1000;

  // `wall_clock` is what the clock shows now, in nanoseconds since 1970.
  explicit GoldfishRtc(const DeviceEnv& env, std::uint64_t wall_clock = host_wall_clock());
  static Result<std::unique_ptr<GoldfishRtc>> restore(const DeviceEnv& env, const StateReader& reader);

  static std::uint64_t host_wall_clock();

  std::string_view name() const override { return "goldfish-rtc"; }
  std::uint64_t read(Offset offset, Width width) override;
  void write(Offset offset, Width width, std::uint64_t value) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  void describe(FdtBuilder& fdt, const Placement& placement) const override;

 private:
  std::uint64_t now() const { return clock_.now() + offset_; }
  void set_now(std::uint64_t time) { offset_ = time - clock_.now(); }
  void update_alarm();
  void update_irq() { irq_.set(irq_pending_ && irq_enabled_); }

  const VirtualClock& clock_;
  InterruptLine irq_;
  std::uint64_t offset_;         // wall clock minus virtual time; survives reset, like a battery's clock
  std::uint32_t time_high_ = 0;  // latched by reading the low half
  std::uint64_t alarm_ = 0;
  bool alarm_armed_ = false;
  bool irq_pending_ = false;
  bool irq_enabled_ = false;
  VirtualTimer timer_;
};

}  // namespace doppel
