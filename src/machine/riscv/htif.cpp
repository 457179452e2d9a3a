#include "machine/riscv/htif.h"

#include <array>

#include "base/bits.h"

namespace doppel::riscv {
namespace {

constexpr std::chrono::milliseconds kPeriod{2};
constexpr std::uint64_t kSystemDevice = 0, kConsoleDevice = 1;
constexpr std::uint64_t kPutchar = 1;

}  // namespace

Htif::Htif(GuestPhysical tohost, const GuestMemory& memory, EventLoop& loop, ConsoleBackend& console,
           std::function<void(std::uint64_t code)> finish)
    : tohost_(tohost),
      memory_(memory),
      console_(console),
      finish_(std::move(finish)),
      timer_(loop.make_timer([this] { look(); })) {
  timer_->arm(HostTime::clock::now() + kPeriod);
}

void Htif::look() {
  const std::uint64_t word = memory_.load<std::uint64_t>(tohost_).value_or(0);
  const std::uint64_t device = bits(word, 63, 56), command = bits(word, 55, 48), payload = bits(word, 47, 0);
  // An odd payload to the system device is an exit; an even one is the address of a system call's arguments,
  // and nobody serves those here.
  if (device == kSystemDevice && command == 0 && bit(payload, 0)) return finish_(payload >> 1);
  bool answered = word != 0;
  if (device == kConsoleDevice && command == kPutchar) {
    const std::array byte{static_cast<std::byte>(payload)};
    answered = console_.write(byte) == 1;
  }
  if (answered) static_cast<void>(memory_.store<std::uint64_t>(tohost_, 0));
  timer_->arm(HostTime::clock::now() + kPeriod);
}

}  // namespace doppel::riscv
