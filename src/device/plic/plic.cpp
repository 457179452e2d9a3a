#include "device/plic/plic.h"

#include <bit>
#include <cassert>

#include "base/bits.h"

namespace doppel {

namespace {

// Memory map: PLIC specification 1.0, chapter 3.
constexpr std::uint64_t kPriority = 0x0;
constexpr std::uint64_t kPending = 0x1000;
constexpr std::uint64_t kEnable = 0x2000;
constexpr std::uint64_t kEnableStride = 0x80;
constexpr std::uint64_t kContext = 0x200000;
constexpr std::uint64_t kContextStride = 0x1000;
constexpr std::uint64_t kThreshold = 0x0;
constexpr std::uint64_t kClaimComplete = 0x4;

}  // namespace

std::uint32_t Plic::SourceSet::word32(std::uint64_t index) const {
  return static_cast<std::uint32_t>(words_[index / 2] >> (index % 2 * 32));
}

void Plic::SourceSet::set_word32(std::uint64_t index, std::uint32_t value) {
  const unsigned low = static_cast<unsigned>(index % 2 * 32);
  words_[index / 2] = with_bits(words_[index / 2], low + 31, low, value);
}

Plic::Plic(unsigned sources, std::vector<InterruptLine> contexts)
    : sources_(sources),
      priority_(sources + 1),
      level_(sources),
      pending_(sources),
      in_service_(sources) {
  assert(sources <= kMaxSources && contexts.size() <= kMaxContexts);
  for (InterruptLine& output : contexts) {
    output.set(false);
    contexts_.push_back({std::move(output), SourceSet(sources)});
  }
}

InterruptLine Plic::line(unsigned source) {
  assert(source >= 1 && source <= sources_);
  return InterruptLine([this, source](bool level) {
    const std::lock_guard lock(monitor());
    set_level(source, level);
  });
}

void Plic::set_level(unsigned source, bool level) {
  level_.set(source, level);
  if (level && !in_service_.has(source) && !pending_.has(source)) make_pending(source);
}

void Plic::make_pending(unsigned source) {
  pending_.set(source, true);
  update_users_of(source);
}

unsigned Plic::best(const Context& context, unsigned floor) const {
  unsigned winner = 0;
  for (std::size_t word = 0; word < pending_.words().size(); ++word) {
    // Rarely more than one or two bits are left here.
    std::uint64_t candidates = pending_.words()[word] & context.enabled.words()[word];
    for (; candidates != 0; candidates &= candidates - 1) {
      const auto source = static_cast<unsigned>(word * 64) + static_cast<unsigned>(std::countr_zero(candidates));
      if (priority_[source] > floor) {
        winner = source;
        floor = priority_[source];
      }
    }
  }
  return winner;
}

void Plic::update(Context& context) {
  const bool asserted = best(context, context.threshold) != 0;
  if (asserted == context.asserted) return;
  context.asserted = asserted;
  context.output.set(asserted);
}

void Plic::update_users_of(unsigned source) {
  for (Context& context : contexts_) {
    if (context.enabled.has(source)) update(context);
  }
}

// The threshold does not affect claims (section 8), only notifications; priority 0 never interrupts.
unsigned Plic::claim(Context& context) {
  const unsigned source = best(context, 0);
  if (source == 0) return 0;
  pending_.set(source, false);
  in_service_.set(source, true);
  update_users_of(source);
  return source;
}

// Ignored unless the source is enabled for the context; which context claimed does not matter (section 9).
void Plic::complete(const Context& context, std::uint64_t source) {
  if (source == 0 || source > sources_) return;
  const auto id = static_cast<unsigned>(source);
  if (!context.enabled.has(id) || !in_service_.has(id)) return;
  in_service_.set(id, false);
  if (level_.has(id)) make_pending(id);
}

std::uint32_t Plic::valid_sources(std::uint64_t index) const {
  std::uint32_t valid = index == 0 ? ~1u : ~0u;
  if (index == sources_ / 32) valid &= static_cast<std::uint32_t>(bits(~0ull, sources_ % 32, 0));
  return valid;
}

std::uint64_t Plic::read(Offset offset, Width width) {
  if (width != Width::k4) return 0;
  const std::uint64_t at = offset.value;
  if (at >= kContext) {
    const std::uint64_t index = (at - kContext) / kContextStride;
    if (index >= contexts_.size()) return 0;
    Context& context = contexts_[index];
    switch (at % kContextStride) {
      case kThreshold: return context.threshold;
      case kClaimComplete: return claim(context);
      default: return 0;
    }
  }
  if (at >= kEnable) {
    const std::uint64_t index = (at - kEnable) / kEnableStride;
    const std::uint64_t word = at % kEnableStride / 4;
    return index < contexts_.size() && word < words32() ? contexts_[index].enabled.word32(word) : 0;
  }
  if (at >= kPending) {
    const std::uint64_t word = (at - kPending) / 4;
    return word < words32() ? pending_.word32(word) : 0;
  }
  const std::uint64_t source = (at - kPriority) / 4;
  return source <= sources_ ? priority_[source] : 0;
}

void Plic::write(Offset offset, Width width, std::uint64_t value) {
  if (width != Width::k4) return;
  const std::uint64_t at = offset.value;
  if (at >= kContext) {
    const std::uint64_t index = (at - kContext) / kContextStride;
    if (index >= contexts_.size()) return;
    Context& context = contexts_[index];
    if (at % kContextStride == kThreshold) {
      context.threshold = value & kMaxPriority;
      update(context);
    } else if (at % kContextStride == kClaimComplete) {
      complete(context, value);
    }
  } else if (at >= kEnable) {
    const std::uint64_t index = (at - kEnable) / kEnableStride;
    const std::uint64_t word = at % kEnableStride / 4;
    if (index >= contexts_.size() || word >= words32()) return;
    contexts_[index].enabled.set_word32(word, static_cast<std::uint32_t>(value) & valid_sources(word));
    update(contexts_[index]);
  } else if (at < kPending) {  // pending bits are read-only
    const std::uint64_t source = (at - kPriority) / 4;
    if (source == 0 || source > sources_) return;
    priority_[source] = value & kMaxPriority;
    update_users_of(static_cast<unsigned>(source));
  }
}

// The wires are not ours to reset: what is high asks at once.
void Plic::reset() {
  std::ranges::fill(priority_, std::uint8_t{0});
  pending_ = level_;
  in_service_ = SourceSet(sources_);
  for (Context& context : contexts_) {
    context.enabled = SourceSet(sources_);
    context.threshold = 0;
    update(context);
  }
}

void Plic::save(StateWriter& writer) const {
  writer.bytes("priority", std::as_bytes(std::span(priority_)));
  writer.numbers("pending", pending_.words());
  writer.numbers("in_service", in_service_.words());
  std::vector<std::uint64_t> thresholds;
  std::vector<std::uint64_t> enabled;
  for (const Context& context : contexts_) {
    thresholds.push_back(context.threshold);
    enabled.insert(enabled.end(), context.enabled.words().begin(), context.enabled.words().end());
  }
  writer.numbers("threshold", thresholds);
  writer.numbers("enabled", enabled);
}

Result<std::unique_ptr<Plic>> Plic::restore(unsigned sources, std::vector<InterruptLine> contexts,
                                            const StateReader& reader) {
  auto device = std::make_unique<Plic>(sources, std::move(contexts));
  const std::size_t words = device->pending_.words().size();
  std::vector<std::byte> priority;
  std::vector<std::uint64_t> thresholds(device->contexts_.size());
  std::vector<std::uint64_t> enabled(device->contexts_.size() * words);
  StateFields fields(reader);
  fields.read("priority", priority, sources + 1)
      .require(priority.size() == sources + 1, "priority", "has the wrong length")
      .read("pending", device->pending_.words())
      .read("in_service", device->in_service_.words())
      .read("threshold", thresholds)
      .read("enabled", enabled);
  if (const auto result = fields.result(); !result) return std::unexpected(result.error());

  // Only bits that a guest could have set get in: the rest of the code relies on it.
  const auto keep_valid = [&](SourceSet& set) {
    for (std::uint64_t word = 0; word < words * 2; ++word) {
      const bool exists = word < device->words32();
      set.set_word32(word, exists ? set.word32(word) & device->valid_sources(word) : 0);
    }
  };
  for (unsigned source = 1; source <= sources; ++source) {
    device->priority_[source] = std::to_integer<std::uint8_t>(priority[source]) & kMaxPriority;
  }
  keep_valid(device->pending_);
  keep_valid(device->in_service_);
  for (std::size_t i = 0; i < device->contexts_.size(); ++i) {
    Context& context = device->contexts_[i];
    std::copy_n(enabled.begin() + static_cast<std::ptrdiff_t>(i * words), words, context.enabled.words().begin());
    keep_valid(context.enabled);
    context.threshold = thresholds[i] & kMaxPriority;
    device->update(context);
  }
  return device;
}

void Plic::describe(FdtBuilder& fdt, const Placement& placement) const {
  const auto node = fdt.node("plic", placement.range.start.value);
  fdt.texts("compatible", {"sifive,plic-1.0.0", "riscv,plic0"});
  fdt.reg(placement.range);
  fdt.cells("#address-cells", {0});
  fdt.cells("#interrupt-cells", {1});
  fdt.flag("interrupt-controller");
  fdt.cells("riscv,ndev", {sources_});
  std::vector<std::uint32_t> interrupts;
  for (const Phandle hart : placement.hart_controllers) interrupts.insert(interrupts.end(), {hart, 11, hart, 9});
  fdt.cells("interrupts-extended", interrupts);  // mip.MEIP and mip.SEIP of each hart
  fdt.cells("phandle", {placement.self});
}

}  // namespace doppel
