#include "device/uart16550/uart16550.h"

#include <utility>

namespace doppel {

namespace {

enum Register : std::uint64_t {
  kData = 0,             // RBR and THR; DLL with DLAB
  kInterruptEnable = 1,  // IER; DLM with DLAB
  kInterruptId = 2,      // IIR to read, FCR to write
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};

// IER: one bit for each kind of interrupt.
constexpr std::uint8_t kIerReceive = 0x01;
constexpr std::uint8_t kIerTransmit = 0x02;
constexpr std::uint8_t kIerLineStatus = 0x04;
constexpr std::uint8_t kIerModemStatus = 0x08;

// IIR, in falling priority (table 5).
constexpr std::uint8_t kIirLineStatus = 0x06;
constexpr std::uint8_t kIirReceive = 0x04;
constexpr std::uint8_t kIirTimeout = 0x0c;
constexpr std::uint8_t kIirTransmit = 0x02;
constexpr std::uint8_t kIirModemStatus = 0x00;
constexpr std::uint8_t kIirNone = 0x01;
constexpr std::uint8_t kIirFifoEnabled = 0xc0;

constexpr std::uint8_t kFcrEnable = 0x01;
constexpr std::uint8_t kFcrClearReceiver = 0x02;
constexpr std::uint8_t kFcrClearTransmitter = 0x04;
constexpr std::uint8_t kFcrKept = 0xc9;  // enable, DMA mode, trigger level

constexpr std::uint8_t kLcrDivisorAccess = 0x80;

constexpr std::uint8_t kMcrLoopback = 0x10;
constexpr std::uint8_t kMcrMask = 0x1f;

constexpr std::uint8_t kLsrDataReady = 0x01;
constexpr std::uint8_t kLsrOverrun = 0x02;
constexpr std::uint8_t kLsrHoldingEmpty = 0x20;
constexpr std::uint8_t kLsrTransmitterEmpty = 0x40;

constexpr std::uint8_t kMsrClearToSend = 0x10;
constexpr std::uint8_t kMsrDataSetReady = 0x20;
constexpr std::uint8_t kMsrRing = 0x40;
constexpr std::uint8_t kMsrCarrier = 0x80;

constexpr std::uint32_t kInputClockHz = 3'686'400;  // as on stock boards; a driver divides it for its baud rate

std::vector<std::byte> to_bytes(const std::deque<std::uint8_t>& queue) {
  std::vector<std::byte> bytes;
  for (const std::uint8_t value : queue) bytes.push_back(std::byte{value});
  return bytes;
}

}  // namespace

Uart16550::Uart16550(const DeviceEnv& env, ConsoleBackend& console) : irq_(env.irq), console_(console) {
  update_irq();
  console_.set_listener([this] {
    const std::lock_guard lock(monitor());
    send_waiting();
    fetch_input_if_awaited();
    update_irq();
  });
}

Uart16550::~Uart16550() { console_.set_listener({}); }

bool Uart16550::fifo_enabled() const { return (fifo_control_ & kFcrEnable) != 0; }
bool Uart16550::loopback() const { return (modem_control_ & kMcrLoopback) != 0; }
bool Uart16550::divisor_access() const { return (line_control_ & kLcrDivisorAccess) != 0; }

std::size_t Uart16550::trigger_level() const {
  static constexpr std::array<std::size_t, 4> kLevels = {1, 4, 8, 14};
  return fifo_enabled() ? kLevels[fifo_control_ >> 6] : 1;
}

// Input

void Uart16550::fetch_input(std::size_t limit) {
  if (loopback()) return;  // the receiver is disconnected from the line (section 8.6.7)
  while (received_.size() < limit && !arriving_.empty()) {
    received_.push_back(arriving_.front());
    arriving_.pop_front();
  }
  if (received_.size() >= limit) return;
  std::array<std::byte, kFifoBytes> bytes;
  const std::size_t count = console_.read(std::span(bytes).first(limit - received_.size()));
  for (const std::byte byte : std::span(bytes).first(count)) received_.push_back(std::to_integer<std::uint8_t>(byte));
}

void Uart16550::fetch_input_if_awaited() {
  if ((interrupt_enable_ & kIerReceive) != 0 && received_.empty()) fetch_input(capacity());
}

std::uint8_t Uart16550::receive() {
  if (received_.empty()) return 0;
  const std::uint8_t byte = received_.front();
  received_.pop_front();
  fetch_input_if_awaited();
  return byte;
}

void Uart16550::clear_receiver() {
  if (!loopback()) arriving_.insert(arriving_.begin(), received_.begin(), received_.end());
  received_.clear();
}

// Output

void Uart16550::transmit(std::uint8_t byte) {
  transmitter_interrupt_ = false;
  if (loopback()) {
    if (received_.size() < capacity()) {
      received_.push_back(byte);
    } else {
      line_errors_ |= kLsrOverrun;
    }
    transmitter_interrupt_ = true;
    return;
  }
  if (waiting_.size() < capacity()) waiting_.push_back(byte);  // beyond that, the guest overran its own FIFO
  send_waiting();
}

void Uart16550::send_waiting() {
  if (waiting_.empty()) return;
  std::array<std::byte, kFifoBytes> bytes;
  for (std::size_t i = 0; i < waiting_.size(); ++i) bytes[i] = std::byte{waiting_[i]};
  const std::size_t sent = console_.write(std::span(bytes).first(waiting_.size()));
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(sent));
  if (waiting_.empty()) transmitter_interrupt_ = true;
}

// Status and interrupts

std::uint8_t Uart16550::line_status() const {
  std::uint8_t status = line_errors_;
  if (!received_.empty()) status |= kLsrDataReady;
  if (waiting_.empty()) status |= kLsrHoldingEmpty | kLsrTransmitterEmpty;
  return status;
}

// A terminal that is always there; in loopback, the modem outputs (section 8.6.7).
std::uint8_t Uart16550::modem_lines() const {
  if (!loopback()) return kMsrCarrier | kMsrDataSetReady | kMsrClearToSend;
  const auto output = [&](unsigned position, std::uint8_t line) {
    return (modem_control_ >> position & 1) != 0 ? line : std::uint8_t{0};
  };
  return static_cast<std::uint8_t>(output(0, kMsrDataSetReady) | output(1, kMsrClearToSend) |
                                   output(2, kMsrRing) | output(3, kMsrCarrier));
}

std::uint8_t Uart16550::interrupt_id() const {
  const auto enabled = [&](std::uint8_t kind) { return (interrupt_enable_ & kind) != 0; };
  if (enabled(kIerLineStatus) && line_errors_ != 0) return kIirLineStatus;
  if (enabled(kIerReceive) && received_.size() >= trigger_level()) return kIirReceive;
  if (enabled(kIerReceive) && !received_.empty()) return kIirTimeout;
  if (enabled(kIerTransmit) && transmitter_interrupt_) return kIirTransmit;
  if (enabled(kIerModemStatus) && modem_changes_ != 0) return kIirModemStatus;
  return kIirNone;
}

void Uart16550::update_irq() { irq_.set(interrupt_id() != kIirNone); }

void Uart16550::write_fifo_control(std::uint8_t value) {
  const bool switched = ((value ^ fifo_control_) & kFcrEnable) != 0;
  // A change of the enable bit clears both FIFOs; the other bits count only with it set (section 8.4).
  if (switched || (value & (kFcrEnable | kFcrClearReceiver)) == (kFcrEnable | kFcrClearReceiver)) clear_receiver();
  if (switched || (value & (kFcrEnable | kFcrClearTransmitter)) == (kFcrEnable | kFcrClearTransmitter)) {
    if (!waiting_.empty()) transmitter_interrupt_ = true;
    waiting_.clear();
  }
  fifo_control_ = (value & kFcrEnable) != 0 ? value & kFcrKept : 0;
  fetch_input_if_awaited();
}

void Uart16550::write_modem_control(std::uint8_t value) {
  const std::uint8_t before = modem_lines();
  // Looped bytes and input never mix: unread input waits until loopback ends, and what is left of the loop
  // ends with it.
  if (((value ^ modem_control_) & kMcrLoopback) != 0) clear_receiver();
  modem_control_ = value & kMcrMask;
  const std::uint8_t after = modem_lines();
  // Deltas of CTS, DSR and DCD; of RI only its falling edge (section 8.8).
  const auto changed = static_cast<std::uint8_t>((before ^ after) & ~(after & kMsrRing));
  modem_changes_ |= changed >> 4;
  fetch_input_if_awaited();
}

std::uint64_t Uart16550::read(Offset offset, Width width) {
  if (width != Width::k1) return 0;
  std::uint8_t value = 0;
  switch (offset.value) {
    case kData: value = divisor_access() ? static_cast<std::uint8_t>(divisor_) : receive(); break;
    case kInterruptEnable:
      value = divisor_access() ? static_cast<std::uint8_t>(divisor_ >> 8) : interrupt_enable_;
      break;
    case kInterruptId:
      value = interrupt_id();
      if (value == kIirTransmit) transmitter_interrupt_ = false;  // reading acknowledges it (table 5)
      if (fifo_enabled()) value |= kIirFifoEnabled;
      break;
    case kLineControl: value = line_control_; break;
    case kModemControl: value = modem_control_; break;
    case kLineStatus:
      if ((interrupt_enable_ & kIerReceive) == 0) fetch_input(1);  // otherwise the console will call
      value = line_status();
      line_errors_ = 0;
      break;
    case kModemStatus: value = modem_lines() | std::exchange(modem_changes_, std::uint8_t{0}); break;
    case kScratch: value = scratch_; break;
    default: return 0;
  }
  update_irq();
  return value;
}

void Uart16550::write(Offset offset, Width width, std::uint64_t value64) {
  if (width != Width::k1) return;
  const auto value = static_cast<std::uint8_t>(value64);
  switch (offset.value) {
    case kData:
      if (divisor_access()) {
        divisor_ = static_cast<std::uint16_t>((divisor_ & 0xff00) | value);
      } else {
        transmit(value);
      }
      break;
    case kInterruptEnable: {
      if (divisor_access()) {
        divisor_ = static_cast<std::uint16_t>((divisor_ & 0x00ff) | value << 8);
        break;
      }
      const bool transmit_enabled_now = (value & ~interrupt_enable_ & kIerTransmit) != 0;
      interrupt_enable_ = value & 0x0f;
      // Enabling it with an empty transmitter interrupts at once, also after an acknowledgement: drivers
      // start sending that way.
      if (transmit_enabled_now && waiting_.empty()) transmitter_interrupt_ = true;
      fetch_input_if_awaited();
      break;
    }
    case kInterruptId: write_fifo_control(value); break;
    case kLineControl: line_control_ = value; break;
    case kModemControl: write_modem_control(value); break;
    case kScratch: scratch_ = value; break;
    default: return;
  }
  update_irq();
}

void Uart16550::reset() {
  clear_receiver();
  modem_control_ = 0;
  waiting_.clear();
  line_errors_ = 0;
  transmitter_interrupt_ = false;
  modem_changes_ = 0;
  interrupt_enable_ = 0;
  fifo_control_ = 0;
  line_control_ = 0;
  scratch_ = 0;
  divisor_ = 0;
  update_irq();
}

void Uart16550::save(StateWriter& writer) const {
  writer.bytes("received", to_bytes(received_));
  writer.bytes("arriving", to_bytes(arriving_));
  writer.bytes("waiting", to_bytes(waiting_));
  writer.number("line_errors", line_errors_);
  writer.number("transmitter_interrupt", transmitter_interrupt_);
  writer.number("modem_changes", modem_changes_);
  writer.number("interrupt_enable", interrupt_enable_);
  writer.number("fifo_control", fifo_control_);
  writer.number("line_control", line_control_);
  writer.number("modem_control", modem_control_);
  writer.number("scratch", scratch_);
  writer.number("divisor", divisor_);
}

Result<std::unique_ptr<Uart16550>> Uart16550::restore(const DeviceEnv& env, ConsoleBackend& console,
                                                      const StateReader& reader) {
  auto device = std::make_unique<Uart16550>(env, console);
  const std::lock_guard lock(device->monitor());
  StateFields fields(reader);
  const auto read_queue = [&](std::string_view name, std::deque<std::uint8_t>& queue, std::size_t max_bytes) {
    std::vector<std::byte> bytes;
    fields.read(name, bytes, max_bytes);
    for (const std::byte byte : bytes) queue.push_back(std::to_integer<std::uint8_t>(byte));
  };
  read_queue("received", device->received_, kFifoBytes);
  read_queue("arriving", device->arriving_, kFifoBytes);
  read_queue("waiting", device->waiting_, kFifoBytes);
  fields.read("line_errors", device->line_errors_)
      .read("transmitter_interrupt", device->transmitter_interrupt_)
      .read("modem_changes", device->modem_changes_)
      .read("interrupt_enable", device->interrupt_enable_)
      .read("fifo_control", device->fifo_control_)
      .read("line_control", device->line_control_)
      .read("modem_control", device->modem_control_)
      .read("scratch", device->scratch_)
      .read("divisor", device->divisor_);
  if (const auto result = fields.result(); !result) return std::unexpected(result.error());
  device->send_waiting();
  device->fetch_input_if_awaited();
  device->update_irq();
  return device;
}

void Uart16550::describe(FdtBuilder& fdt, const Placement& placement) const {
  const auto node = fdt.node("serial", placement.range.start.value);
  fdt.text("compatible", "ns16550a");
  fdt.reg(placement.range);
  fdt.cells("clock-frequency", {kInputClockHz});
  fdt.interrupt(placement);
}

}  // namespace doppel
