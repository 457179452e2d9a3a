// A 16550A UART (National Semiconductor PC16550D data sheet; section numbers are its own).
//
// The line is infinitely fast. What the guest sends goes to the console at once; only what the console will
// not take waits in the transmit FIFO, and then the guest sees a busy transmitter. Input waits in the console
// until the guest listens: with receive interrupts on, the receive FIFO is kept filled; otherwise one byte
// arrives when the guest polls the line status. So input is never overrun and hardly ever lost to a driver
// that clears the FIFOs as it starts. Character time-outs are immediate, and the divisor has no effect.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>

#include "device/console_backend.h"
#include "device/device.h"

namespace doppel {

class Uart16550 final : public Device {
 public:
  static constexpr std::uint64_t kSizeBytes = 0x100;

  // `console` outlives the device, which is its listener.
  Uart16550(const DeviceEnv& env, ConsoleBackend& console);
  ~Uart16550() override;
  static Result<std::unique_ptr<Uart16550>> restore(const DeviceEnv& env, ConsoleBackend& console,
                                                    const StateReader& reader);

  std::string_view name() const override { return "uart16550"; }
  std::uint64_t read(Offset offset, Width width) override;
  void write(Offset offset, Width width, std::uint64_t value) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  void describe(FdtBuilder& fdt, const Placement& placement) const override;

 private:
  static constexpr std::size_t kFifoBytes = 16;

  bool fifo_enabled() const;
  bool loopback() const;
  bool divisor_access() const;
  std::size_t capacity() const { return fifo_enabled() ? kFifoBytes : 1; }
  std::size_t trigger_level() const;

  std::uint8_t receive();
  void transmit(std::uint8_t byte);
  void fetch_input(std::size_t limit);
  void fetch_input_if_awaited();
  void send_waiting();
  void write_fifo_control(std::uint8_t value);
  void write_modem_control(std::uint8_t value);
  void clear_receiver();

  std::uint8_t line_status() const;
  std::uint8_t modem_lines() const;
  std::uint8_t interrupt_id() const;
  void update_irq();

  InterruptLine irq_;
  ConsoleBackend& console_;

  std::deque<std::uint8_t> received_;   // receive FIFO, or holding register
  std::deque<std::uint8_t> arriving_;   // fetched from the console, then cleared from the FIFO: still on the wire
  std::deque<std::uint8_t> waiting_;    // transmit FIFO, or holding register
  std::uint8_t line_errors_ = 0;        // LSR's error bits, until it is read
  bool transmitter_interrupt_ = false;  // the one-shot THRE condition
  std::uint8_t modem_changes_ = 0;      // MSR's delta bits, until it is read
  std::uint8_t interrupt_enable_ = 0;
  std::uint8_t fifo_control_ = 0;
  std::uint8_t line_control_ = 0;
  std::uint8_t modem_control_ = 0;
  std::uint8_t scratch_ = 0;
  std::uint16_t divisor_ = 0;
};

}  // namespace doppel
