// An address space as those see it who run in it: the threads of a process, and a child that its parent waits for as
// vfork() does. It gives them harts, and tells all of them what changes.
//
// Any thread.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/virtual_clock.h"
#include "engine/program_engines.h"
#include "isa/riscv/hart.h"
#include "memory/guest_memory.h"
#include "memory/io_space.h"
#include "process/abi/thread.h"
#include "process/abi/vdso.h"
#include "process/address_space.h"

namespace doppel::process {

class SharedSpace final : public riscv::UserSpace {
 public:
  static Result<std::unique_ptr<SharedSpace>> create(EngineKind engine, unsigned address_bits,
                                                     std::shared_ptr<TranslationLog> log, const PassSet& passes);
  ~SharedSpace() override;

  AddressSpace& space() { return *space_; }
  // Once, before there are threads; gives where it lies.
  Result<std::uint64_t> map_vdso();
  Vdso& vdso() { return *vdso_; }

  const FlatMemory& flat() const override { return space_->flat(); }
  bool allows(std::uint64_t gva, riscv::Access access) const override;
  bool recurs(std::uint64_t gva) const override;
  void trap(riscv::Hart& hart, riscv::Trap trap, std::uint64_t epc) override;

  // As ProgramEngines's. `program` is what tells the program from others.
  std::optional<std::uint64_t> keep_code(int folder, std::span<const std::byte> program);
  void save_code() { engines_.save_code(); }

  // A hart to run on.
  Result<std::unique_ptr<Processor>> take_processor();
  void give_back(std::unique_ptr<Processor> processor);
  // Another engine for the same hart: this one is not to be trusted any more.
  Result<void> renew_engine(Processor& processor);

  // Code in [gva, gva + bytes) is no longer what it was, or may not be run any more.
  void code_changed(std::uint64_t gva, std::uint64_t bytes) { engines_.code_changed(gva, bytes); }

  // Around fork(): no other thread is in the middle of changing what the child gets.
  void lock();
  void unlock();
  // In the child, of whose threads only the calling one is left.
  void keep_only_caller();

 private:
  SharedSpace(EngineKind engine, std::shared_ptr<TranslationLog> log, const PassSet& passes);

  ProgramEngines engines_;
  std::unique_ptr<AddressSpace> space_;
  GuestMemory no_memory_;
  std::unique_ptr<IoSpace> no_io_;
  VirtualClock clock_;
  std::unique_ptr<Vdso> vdso_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Processor>> idle_;
};

}  // namespace doppel::process
