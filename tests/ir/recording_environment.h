// A made-up world for evaluate(): it answers as hashes of what it is asked, and remembers what it was asked and
// what the state was then. Two blocks that do the same leave the same record.
#pragma once

#include <cstring>
#include <vector>

#include "ir/evaluate.h"

namespace doppel::ir::testing {

class RecordingEnvironment : public Environment {
 public:
  struct Event {
    Op op;
    std::uint64_t a, b, c;
    std::uint64_t state;  // hash of all of it

    bool operator==(const Event&) const = default;
  };

  // One access or helper in `fault_interval` does not come back; 0 for none.
  RecordingEnvironment(std::uint64_t seed, std::span<std::byte> state, unsigned fault_interval)
      : seed_(seed), state_(state), fault_interval_(fault_interval) {
    for (std::size_t i = 0; i < state_.size(); ++i) state_[i] = static_cast<std::byte>(mix(seed, i));
  }

  const std::vector<Event>& events() const { return events_; }

  std::optional<std::uint64_t> load(Access access, std::uint64_t address) override {
    if (record(Op::kLoad, static_cast<std::uint64_t>(access), address)) return std::nullopt;
    return answer();
  }
  bool store(Access access, std::uint64_t address, std::uint64_t value) override {
    return !record(Op::kStore, static_cast<std::uint64_t>(access), address, value);
  }
  void fence() override { record(Op::kFence, 0); }
  bool behind(std::uint64_t bytes) override { return !record(Op::kBehind, bytes); }
  bool call(std::int64_t helper) override {
    const bool leaves = record(Op::kCall, static_cast<std::uint64_t>(helper));
    state_[answer() % state_.size()] ^= static_cast<std::byte>(answer() >> 8);
    return !leaves;
  }
  void uncount(std::uint64_t instructions) override { events_.push_back({Op::kUncount, instructions, 0, 0, 0}); }
  std::uint64_t floating(const Inst& inst, const std::array<std::uint64_t, 3>& operands) override {
    // Nothing can leave the block here, so the state need not be precise.
    events_.push_back({inst.op, operands[0], operands[1], operands[2], static_cast<std::uint64_t>(inst.type)});
    return inst.type == Type::kI64 ? answer() & 1 : answer();
  }

 private:
  static std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
    std::uint64_t hash = (a ^ b * 0x9e37'79b9'7f4a'7c15) * 0xd6e8'feb8'6659'fd93;
    return (hash ^ hash >> 32) * 0xd6e8'feb8'6659'fd93;
  }
  std::uint64_t answer() const { return mix(seed_ + 1, events_.size()) >> 7; }

  // Whether it is to fail.
  bool record(Op op, std::uint64_t a, std::uint64_t b = 0, std::uint64_t c = 0) {
    std::uint64_t hash = 0;
    for (const std::byte byte : state_) hash = mix(hash, static_cast<std::uint64_t>(byte) + 1);
    events_.push_back({op, a, b, c, hash});
    return fault_interval_ != 0 && mix(seed_ + 2, events_.size()) % fault_interval_ == 0;
  }

  std::uint64_t seed_;
  std::span<std::byte> state_;
  unsigned fault_interval_;
  std::vector<Event> events_;
};

}  // namespace doppel::ir::testing
