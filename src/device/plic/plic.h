// The platform-level interrupt controller: RISC-V PLIC specification 1.0, in its memory layout.
//
// Sources are level-triggered. A source's gateway lets one request through, which stays pending, whatever
// the level does, until a context claims it; the gateway opens again at completion. So while a source's level
// is high it is always pending or in service, and levels need not be saved: devices drive them anew.
//
// Contexts are numbered as on stock boards: hart h's M-mode is 2h, its S-mode 2h + 1. Lines may be driven
// from any thread; the monitor guards everything.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "device/device.h"

namespace doppel {

class Plic final : public Device {
 public:
  static constexpr std::uint64_t kSizeBytes = 0x600000;
  static constexpr unsigned kMaxSources = 1023;
  static constexpr unsigned kMaxContexts = 1024;  // as many as kSizeBytes has room for
  static constexpr unsigned kMaxPriority = 7;

  // Sources are 1 to `sources`; `contexts` holds each context's output, in order.
  Plic(unsigned sources, std::vector<InterruptLine> contexts);
  static Result<std::unique_ptr<Plic>> restore(unsigned sources, std::vector<InterruptLine> contexts,
                                               const StateReader& reader);

  // The wire into `source`, valid as long as the controller.
  InterruptLine line(unsigned source);

  std::string_view name() const override { return "plic"; }
  std::uint64_t read(Offset offset, Width width) override;
  void write(Offset offset, Width width, std::uint64_t value) override;
  void reset() override;
  void save(StateWriter& writer) const override;
  void describe(FdtBuilder& fdt, const Placement& placement) const override;

 private:
  // One bit a source, bit 0 of the first word being the source 0 that does not exist.
  class SourceSet {
   public:
    explicit SourceSet(unsigned sources) : words_(sources / 64 + 1) {}

    bool has(unsigned source) const { return words_[source / 64] >> (source % 64) & 1; }
    void set(unsigned source, bool member) {
      const std::uint64_t mask = std::uint64_t{1} << (source % 64);
      words_[source / 64] = member ? words_[source / 64] | mask : words_[source / 64] & ~mask;
    }
    // 32 sources from 32 * index, as registers show them.
    std::uint32_t word32(std::uint64_t index) const;
    void set_word32(std::uint64_t index, std::uint32_t value);

    std::vector<std::uint64_t>& words() { return words_; }
    const std::vector<std::uint64_t>& words() const { return words_; }

   private:
    std::vector<std::uint64_t> words_;
  };

  struct Context {
    InterruptLine output;
    SourceSet enabled;
    std::uint8_t threshold = 0;
    bool asserted = false;
  };

  void set_level(unsigned source, bool level);
  void make_pending(unsigned source);
  unsigned claim(Context& context);
  void complete(const Context& context, std::uint64_t source);

  // The pending, enabled source of highest priority above `floor`, the lowest-numbered of equals; else 0.
  unsigned best(const Context& context, unsigned floor) const;
  void update(Context& context);
  void update_users_of(unsigned source);

  std::uint64_t words32() const { return sources_ / 32 + 1; }
  std::uint32_t valid_sources(std::uint64_t index) const;  // which bits of a 32-bit register exist

  unsigned sources_;
  std::vector<std::uint8_t> priority_;  // by source
  SourceSet level_;
  SourceSet pending_;
  SourceSet in_service_;  // claimed, not completed: the gateway is closed
  std::vector<Context> contexts_;
};

}  // namespace doppel
