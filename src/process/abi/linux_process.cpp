#include "process/abi/linux_process.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "base/bits.h"
#include "process/abi/host_call.h"
#include "process/abi/thread.h"

namespace doppel::process {

LinuxProcess::~LinuxProcess() = default;

LinuxProcess::LinuxProcess(const LinuxProcess& parent)
    : options_(parent.options_), shared_(parent.shared_), actions_(parent.actions_) {}

std::expected<std::unique_ptr<LinuxProcess>, LoadError> LinuxProcess::create(ProcessOptions options) {
  constexpr int kOurFailure = 125;
  std::unique_ptr<LinuxProcess> process(new LinuxProcess(std::move(options)));
  auto shared = SharedSpace::create(process->options_.engine, process->options_.translation_log);
  if (!shared) return std::unexpected(LoadError{shared.error(), kOurFailure, ENOMEM});
  process->shared_ = std::move(*shared);
  auto image = load_program(process->space(), process->options_.program);
  if (!image) return std::unexpected(image.error());
  auto processor = process->shared_->take_processor();
  if (!processor) return std::unexpected(LoadError{processor.error(), kOurFailure, ENOMEM});
  (*processor)->hart->enter_user(image->pc);
  (*processor)->hart->state().x[2] = image->sp;
  process->image_ = std::move(*image);
  process->first_ = std::make_unique<GuestThread>(*process, std::move(*processor), host_mask());
  return process;
}

void LinuxProcess::run() {
  block_host_signals();
  actions_.inherit();
  GuestThread& thread = *first_;
  const int status = thread.run();
  // Not a return: that would end the other threads with this one.
  for (;;) ::syscall(SYS_exit, status);
}

std::unique_ptr<LinuxProcess> LinuxProcess::borrower() const {
  return std::unique_ptr<LinuxProcess>(new LinuxProcess(*this));
}

riscv::Hart& LinuxProcess::hart() const { return GuestThread::current().hart(); }

void* LinuxProcess::pointer(std::uint64_t gva) const {
  if (gva == 0) return nullptr;
  // Not canonical: no process has anything there.
  if (!flat().contains(gva, 1)) return reinterpret_cast<void*>(std::uintptr_t{1} << 63);
  return flat().host(gva);
}

bool LinuxProcess::covers(std::uint64_t gva, std::uint64_t bytes, int protection) const {
  if (!flat().contains(gva, bytes)) return false;
  for (std::uint64_t page = align_down(gva, kPageSize); page < gva + bytes; page += kPageSize) {
    if (!shared_->space().allows(page, protection)) return false;
  }
  return true;
}

bool LinuxProcess::readable(std::uint64_t gva, std::uint64_t bytes) const { return covers(gva, bytes, PROT_READ); }
bool LinuxProcess::writable(std::uint64_t gva, std::uint64_t bytes) const { return covers(gva, bytes, PROT_WRITE); }

bool LinuxProcess::read(std::uint64_t gva, void* into, std::uint64_t bytes) const {
  return flat().contains(gva, bytes) && guarded_copy(into, flat().host(gva), bytes);
}

bool LinuxProcess::write(std::uint64_t gva, const void* from, std::uint64_t bytes) const {
  return flat().contains(gva, bytes) && guarded_copy(flat().host(gva), from, bytes);
}

void LinuxProcess::add(GuestThread& thread) {
  const std::lock_guard lock(mutex_);
  threads_.push_back(&thread);
}

void LinuxProcess::remove(GuestThread& thread) {
  const std::lock_guard lock(mutex_);
  std::erase(threads_, &thread);
}

std::optional<std::uint64_t> LinuxProcess::robust_list_of(pid_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(threads_, id, &GuestThread::id);
  if (found == threads_.end()) return std::nullopt;
  return (*found)->robust_list;
}

void LinuxProcess::keep_only(GuestThread& thread) {
  threads_.assign(1, &thread);
  shared_->keep_only_caller();
}

void LinuxProcess::lock_for_fork() {
  mutex_.lock();
  shared_->lock();
}

void LinuxProcess::unlock_after_fork() {
  shared_->unlock();
  mutex_.unlock();
}

}  // namespace doppel::process
