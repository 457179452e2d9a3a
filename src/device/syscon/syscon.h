// The board's power switch: one register, laid out as SiFive's test finisher, which the device tree also
// offers as a system controller with power-off and reset values. Has no state.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "device/device.h"

namespace doppel {

struct PowerRequest {
  enum class Action : std::uint8_t { kPowerOff, kReset };
  Action action = Action::kPowerOff;
  std::uint16_t exit_code = 0;  // of a power-off: 0 is success

  friend bool operator==(const PowerRequest&, const PowerRequest&) = default;
};

class Syscon final : public Device {
 public:
  static constexpr std::uint64_t kSizeBytes = 0x1000;

  // `request` runs on a hart's thread with the monitor held, so it only passes the request on.
  explicit Syscon(std::function<void(PowerRequest)> request) : request_(std::move(request)) {}
  static Result<std::unique_ptr<Syscon>> restore(std::function<void(PowerRequest)> request,
                                                 const StateReader&) {
    return std::make_unique<Syscon>(std::move(request));
  }

  std::string_view name() const override { return "syscon"; }
  std::uint64_t read(Offset, Width) override { return 0; }
  void write(Offset offset, Width width, std::uint64_t value) override;
  void reset() override {}
  void save(StateWriter&) const override {}
  void describe(FdtBuilder& fdt, const Placement& placement) const override;

 private:
  std::function<void(PowerRequest)> request_;
};

}  // namespace doppel
