// One riscv64 Linux program with a single thread: its memory, its hart, and what its traps mean.
//
// Everything runs on the thread that calls run().
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "engine/hart_thread.h"
#include "isa/riscv/hart.h"
#include "isa/riscv/mmu.h"
#include "process/abi/loader.h"
#include "process/address_space.h"

namespace doppel::process {

struct ProcessOptions {
  EngineKind engine = EngineKind::kTranslate;
  ProgramRequest program;
  bool trace_calls = false;  // one line on stderr for each system call
};

class LinuxProcess final : public riscv::UserSpace {
 public:
  static std::expected<std::unique_ptr<LinuxProcess>, LoadError> create(ProcessOptions options);
  ~LinuxProcess() override;

  // Does not return while the program lives; it ends the host process as it ends itself. An error is the host's.
  Error run();

  const FlatMemory& flat() const override { return space_->flat(); }
  bool allows(std::uint64_t gva, riscv::Access access) const override;
  void trap(riscv::Hart& hart, riscv::Trap trap, std::uint64_t epc) override;

  // --- For system calls.

  AddressSpace& space() { return *space_; }
  riscv::Hart& hart() { return *hart_; }
  const ProcessOptions& options() const { return options_; }
  // The host pointer for a guest pointer; one that every system call of the host refuses when it lies outside.
  void* pointer(std::uint64_t gva) const;
  // Whether [gva, gva + bytes) may be read or written by us; false is EFAULT to the guest.
  bool readable(std::uint64_t gva, std::uint64_t bytes) const;
  bool writable(std::uint64_t gva, std::uint64_t bytes) const;
  void mappings_changed();
  // A child of fork() shares code memory with its parent, so it needs an engine of its own.
  void became_child();

 private:
  explicit LinuxProcess(ProcessOptions options) : options_(std::move(options)) {}
  bool covers(std::uint64_t gva, std::uint64_t bytes, int protection) const;

  ProcessOptions options_;
  std::unique_ptr<AddressSpace> space_;
  GuestMemory no_memory_;
  std::unique_ptr<IoSpace> no_io_;
  VirtualClock clock_;
  std::unique_ptr<riscv::Hart> hart_;
  std::unique_ptr<Engine> engine_;
  bool renew_engine_ = false;
};

}  // namespace doppel::process
