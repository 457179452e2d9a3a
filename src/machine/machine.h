// A system VM as its owner sees it: what it is made of, how it lives, how it ended.
//
// A machine is built stopped, runs, perhaps pauses, and ends once with an Outcome. A reset ends it too: the
// owner builds the next one from the same configuration, so nothing of the old one lingers. All calls come
// from the event loop's thread, which outlives the machine; destruction stops the harts, then drains and
// flushes the disks.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "debug/debug_target.h"
#include "device/console_backend.h"
#include "engine/engine.h"
#include "engine/pass_option.h"
#include "engine/translation_log.h"
#include "network/network.h"
#include "storage/disk.h"

namespace doppel {

struct BootConfig {
  std::string kernel;
  bool kernel_may_be_raw = false;  // a boot loader without a header that says what it is
  std::string initrd;              // empty: none
  std::string append;              // the kernel's command line
  std::string device_tree;         // empty: the board generates one
  // "builtin": the machine answers supervisor calls itself. "none": the kernel starts in machine mode.
  // Otherwise a file that starts in machine mode and passes on to the kernel.
  std::string firmware = "builtin";
};

struct MachineConfig {
  std::uint64_t memory_bytes = std::uint64_t{1} << 30;
  unsigned harts = 2;
  unsigned address_bits = 39;  // of the largest virtual address space: Sv39, Sv48, Sv57
  EngineKind engine = EngineKind::kTranslate;
  TranslationLogOptions trace;
  PassSet passes = PassSet::all();  // of the translator; where some are missing no code is kept
  int code_folder = -1;  // an open directory in which translated code is kept for other machines; -1: none
  BootConfig boot;
  std::vector<DiskOptions> disks;
  std::vector<NetworkOptions> networks;
};

struct Outcome {
  enum class Kind { kPowerOff, kReset, kExitCode, kStopped };
  Kind kind = Kind::kPowerOff;
  int code = 0;  // kExitCode: what the guest gave its test finisher, 1 to 255
};

// What a machine is built into. All of it outlives the machine.
struct MachineEnv {
  EventLoop& loop;
  ConsoleBackend& console;  // the far end of the board's serial line
  std::function<void(Outcome)> ended;  // called once, on the loop's thread; the machine still stands
  ConsoleBackend* virtio_console = nullptr;  // the far end of a virtio console; null: no such device
};

struct MachineStatistics {
  struct HartCounts {
    std::uint64_t instructions = 0;
    std::uint64_t waits = 0;
  };
  struct Count {
    std::string cause;
    std::uint64_t count = 0;
  };
  std::string engine;
  EngineStatistics translation;
  std::vector<HartCounts> harts;
  std::vector<Count> exits;
  std::vector<Count> traps;
};

class Machine {
 public:
  virtual ~Machine() = default;

  virtual void start() = 0;
  // pause() returns when no hart runs and virtual time stands still.
  virtual void pause() = 0;
  virtual void resume() = 0;
  // Ends the machine as if the guest had, for signals and time limits.
  virtual void stop() = 0;

  // For a debugger, before start(): the machine as its target, which must go before the machine does. The machine
  // starts with its harts and its time standing still, and is the target's to resume; `kill` asks for its end.
  virtual std::unique_ptr<debug::Target> debug_target(std::function<void()> kill) = 0;

  virtual MachineStatistics statistics() const = 0;
};

}  // namespace doppel
