// A target of two threads, eight registers and 4 KiB of memory, which runs nothing: tests say what happens.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "debug/debug_target.h"

namespace doppel::debug {

class FakeTarget final : public Target {
 public:
  static constexpr std::uint64_t kMemory = 0x1000, kMemoryBytes = 4096;
  static constexpr unsigned kRegisters = 8;

  std::string description() const override { return "<target>" + std::string(3000, 'x') + "</target>"; }
  unsigned general_register_count() const override { return kRegisters; }
  std::vector<ThreadId> threads() const override { return {1, 2}; }
  std::string thread_name(ThreadId thread) const override { return "fake " + std::to_string(thread); }
  std::optional<std::string> read_register(ThreadId thread, unsigned number) override {
    if (thread - 1 > 1 || number >= kRegisters) return std::nullopt;
    return registers[thread - 1][number];
  }
  bool write_register(ThreadId thread, unsigned number, std::string_view bytes) override {
    if (thread - 1 > 1 || number >= kRegisters || bytes.size() != 8) return false;
    registers[thread - 1][number] = bytes;
    return true;
  }
  std::string read_memory(ThreadId, std::uint64_t address, std::size_t size_bytes) override {
    if (address < kMemory || address - kMemory >= kMemoryBytes) return "";
    return memory.substr(address - kMemory, size_bytes);
  }
  bool write_memory(ThreadId, std::uint64_t address, std::string_view bytes) override {
    if (address < kMemory || address - kMemory > kMemoryBytes || bytes.size() > kMemoryBytes - (address - kMemory)) {
      return false;
    }
    std::ranges::copy(bytes, memory.begin() + static_cast<std::ptrdiff_t>(address - kMemory));
    return true;
  }
  bool insert(ThreadId, const Point& point) override {
    points.push_back(point);
    return point.address != 0;
  }
  bool remove(const Point& point) override { return std::erase(points, point) != 0; }
  void resume(std::span<const ResumeAction> actions) override {
    running = true;
    resumed.assign(actions.begin(), actions.end());
  }
  void halt() override {
    running = false;
    ++halts;
  }
  void kill() override { killed = true; }
  std::optional<std::string> monitor(std::string_view command) override {
    return command == "say" ? std::optional<std::string>("said\n") : std::nullopt;
  }
  std::string monitor_help() const override { return "say\n"; }

  // Something happens to the running target.
  void stop(const StopEvent& event) {
    running = false;
    if (on_stop) on_stop(event);
  }

  std::array<std::array<std::string, kRegisters>, 2> registers = [] {
    std::array<std::array<std::string, kRegisters>, 2> all;
    for (auto& thread : all) thread.fill(std::string(8, '\0'));
    return all;
  }();
  std::string memory = std::string(kMemoryBytes, '\0');
  std::vector<Point> points;
  std::vector<ResumeAction> resumed;
  bool running = false, killed = false;
  unsigned halts = 0;
};

}  // namespace doppel::debug
