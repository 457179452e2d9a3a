// Software and timer interrupts of the harts: RISC-V ACLINT 1.0's MSWI and MTIMER devices, laid out as the
// SiFive CLINT that stock software expects.
//
// mtime counts virtual time at kTicksPerSecond. A hart's timer line is high exactly while mtime >= mtimecmp:
// register writes and the timer's callback both recompute it, under the monitor.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "device/device.h"

namespace doppel {

class Aclint final : public Device {
 public:
  static constexpr std::uint64_t kSizeBytes = 0x10000;
  static constexpr std::uint64_t kTicksPerSecond = 10'000'000;
  static constexpr unsigned kMaxHarts = 4095;

  struct HartLines {
    InterruptLine software;  // mip.MSIP
    InterruptLine timer;     // mip.MTIP
  };

  Aclint(const DeviceEnv& env, std::vector<HartLines> harts);
  static Result<std::unique_ptr<Aclint>> restore(const DeviceEnv& env, std::vector<HartLines> harts,
                                                 const StateReader& reader);

  // The time that harts see, in ticks. Any thread, no lock.
  std::uint64_t mtime() const;

  std::string_view name() const override { return "aclint"; }
  std::uint64_t read(Offset offset, Width width) override;
  void write(Offset offset, Width width, std::uint64_t value) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  void describe(FdtBuilder& fdt, const Placement& placement) const override;

 private:
  static constexpr std::uint64_t kNoDeadline = ~std::uint64_t{0};

  struct Hart {
    HartLines lines;
    bool msip = false;
    std::uint64_t mtimecmp = kNoDeadline;
    std::unique_ptr<VirtualTimer> timer;
  };

  // The registers as 32-bit words, which is how they may be accessed.
  std::uint32_t read_word(std::uint64_t offset) const;
  void write_word(std::uint64_t offset, std::uint32_t value);
  void set_mtime(std::uint64_t ticks);
  void update_timer(Hart& hart);
  void drive_lines();

  std::uint64_t machine_ticks() const;

  const VirtualClock& clock_;
  std::atomic<std::uint64_t> mtime_offset_ = 0;  // mtime minus the machine's ticks; not 0 once written
  std::vector<Hart> harts_;
};

}  // namespace doppel
