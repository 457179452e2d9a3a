#include "process/abi/linux_process.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <linux/prctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/bits.h"
#include "memory/guarded_access.h"
#include "process/abi/busy_programs.h"
#include "process/abi/debug_server.h"
#include "process/abi/host_call.h"
#include "process/abi/thread.h"

namespace doppel::process {

LinuxProcess::~LinuxProcess() = default;

LinuxProcess::LinuxProcess(const LinuxProcess& parent)
    : options_(parent.options_), image_(parent.image_), shared_(parent.shared_), actions_(parent.actions_),
      borrows_memory_(true) {}

std::expected<std::unique_ptr<LinuxProcess>, LoadError> LinuxProcess::create(ProcessOptions options) {
  constexpr int kOurFailure = 125;
  std::unique_ptr<LinuxProcess> process(new LinuxProcess(std::move(options)));
  auto shared = SharedSpace::create(process->options_.engine, process->options_.address_bits,
                                    process->options_.translation_log, process->options_.passes);
  if (!shared) return std::unexpected(LoadError{shared.error(), kOurFailure, ENOMEM});
  process->shared_ = std::move(*shared);
  const std::string name = process->options_.program.path;
  auto image = load_program(process->space(), process->options_.program,
                            {.map_vdso = [&] { return process->shared_->map_vdso(); },
                             .code_layout = [&](int file) { return process->keep_code(file); },
                             .keep_file = mark_running});
  if (!image) return std::unexpected(image.error());
  auto processor = process->shared_->take_processor();
  if (!processor) return std::unexpected(LoadError{processor.error(), kOurFailure, ENOMEM});
  (*processor)->hart->enter_user(image->pc);
  (*processor)->hart->state().x[2] = image->sp;
  process->image_ = std::move(*image);
  process->image_.name = name.substr(name.rfind('/') + 1);
  process->first_ = std::make_unique<GuestThread>(*process, std::move(*processor), host_mask());
  return process;
}

namespace {

// Has the host's kernel show the guest's name, command line, environment and so on in /proc, to everybody.
void show_in_proc(const Image& image, std::uint64_t base) {
  ::prctl(PR_SET_NAME, image.name.c_str());
  prctl_mm_map map{};
  map.start_code = base + image.code_start;
  map.end_code = base + std::max(image.code_end, image.code_start + 1);
  map.start_data = base + image.data_start;
  map.end_data = base + image.data_end;
  map.start_brk = map.brk = reinterpret_cast<std::uint64_t>(::sbrk(0));  // the C library's, which must go on
  map.start_stack = base + image.sp;
  map.arg_start = base + image.arguments_start;
  map.arg_end = base + image.arguments_end;
  map.env_start = base + image.environment_start;
  map.env_end = base + image.environment_end;
  std::vector<std::uint64_t> auxiliary = image.auxiliary;
  map.auxv = reinterpret_cast<__u64*>(auxiliary.data());
  map.auxv_size = static_cast<__u32>(auxiliary.size() * sizeof auxiliary[0]);
  map.exe_fd = static_cast<__u32>(-1);
  // A kernel without this shows Doppel's.
  ::prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0);
}

}  // namespace

void LinuxProcess::run() {
  show_in_proc(image_, reinterpret_cast<std::uint64_t>(flat().base));
  block_host_signals();
  actions_.inherit();
  if (options_.debugger != nullptr) {
    options_.debugger->start(*this);
    debugger_ = &options_.debugger->threads();
  }
  GuestThread& thread = *first_;
  const int status = thread.run();
  if (threads_.empty()) tell_end(thread);
  // Not a return: that would end the other threads with this one.
  for (;;) ::syscall(SYS_exit, status);
}

std::optional<std::uint64_t> LinuxProcess::keep_code(int program) {
  if (options_.code_folder < 0) return std::nullopt;
  // Its beginning, where the build ID usually is, and its size. Copies of a program are the same one.
  struct Identity {
    std::array<std::byte, 2 * kPageSize> head;
    std::int64_t bytes;
  } identity{};
  struct stat status {};
  if (::fstat(program, &status) != 0 || ::pread(program, identity.head.data(), identity.head.size(), 0) < 0) {
    return std::nullopt;
  }
  identity.bytes = status.st_size;
  return shared_->keep_code(options_.code_folder, std::as_bytes(std::span(&identity, 1)));
}

void LinuxProcess::save_code() {
  if (!borrows_memory_) shared_->save_code();
}

void LinuxProcess::tell_end(GuestThread& thread) {
  save_code();
  if (!options_.at_end) return;
  options_.at_end({.engine = thread.engine().name(), .translation = thread.engine().statistics(),
                   .instructions = thread.hart().state().instructions,
                   .exceptions = thread.hart().statistics().exceptions});
}

void LinuxProcess::tell_debugger(GuestThread& thread, int code, bool killed) {
  if (debugger_ == nullptr) return;
  debugger_->ended(thread, code, killed);
  options_.debugger->stop();
}

std::unique_ptr<LinuxProcess> LinuxProcess::borrower() const {
  return std::unique_ptr<LinuxProcess>(new LinuxProcess(*this));
}

riscv::Hart& LinuxProcess::hart() const { return GuestThread::current().hart(); }

void* LinuxProcess::pointer(std::uint64_t gva) const {
  if (gva == 0) return nullptr;
  // Not canonical: no process has anything there. Beyond the low addresses there are things of our own.
  const bool guests = flat().contains(gva, 1) && (gva < AddressSpace::kLowBytes || shared_->space().is_mapped(gva, 1));
  return guests ? flat().host(gva) : reinterpret_cast<void*>(std::uintptr_t{1} << 63);
}

bool LinuxProcess::covers(std::uint64_t gva, std::uint64_t bytes, int protection) const {
  if (!flat().contains(gva, bytes)) return false;
  for (std::uint64_t page = align_down(gva, kPageSize); page < gva + bytes; page += kPageSize) {
    if (!shared_->space().allows(page, protection)) return false;
  }
  return true;
}

bool LinuxProcess::reaches(std::uint64_t gva, std::uint64_t bytes) const {
  if (!flat().contains(gva, bytes)) return false;
  return gva + bytes <= AddressSpace::kLowBytes || covers(gva, bytes, PROT_NONE);
}

bool LinuxProcess::readable(std::uint64_t gva, std::uint64_t bytes) const { return covers(gva, bytes, PROT_READ); }
bool LinuxProcess::writable(std::uint64_t gva, std::uint64_t bytes) const { return covers(gva, bytes, PROT_WRITE); }

bool LinuxProcess::read(std::uint64_t gva, void* into, std::uint64_t bytes) const {
  return reaches(gva, bytes) && guarded_copy(flat().host(gva), static_cast<std::byte*>(into), bytes) == bytes;
}

bool LinuxProcess::write(std::uint64_t gva, const void* from, std::uint64_t bytes) const {
  return reaches(gva, bytes) &&
         guarded_copy(static_cast<const std::byte*>(from), flat().host(gva), bytes) == bytes;
}

void LinuxProcess::add(GuestThread& thread) {
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    first = threads_.empty();
    threads_.push_back(&thread);
  }
  if (debugger_ == nullptr) return;
  debugger_->add(thread);
  if (first) options_.debugger->attach();
}

void LinuxProcess::remove(GuestThread& thread) {
  bool last = false;
  {
    const std::lock_guard lock(mutex_);
    std::erase(threads_, &thread);
    last = threads_.empty();
    if (&thread == first_.get()) leader_status_ = thread.status();
  }
  if (debugger_ == nullptr) return;
  debugger_->remove(thread);
  if (last) tell_debugger(thread, leader_status_, false);
}

std::optional<std::uint64_t> LinuxProcess::robust_list_of(pid_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(threads_, id, &GuestThread::id);
  if (found == threads_.end()) return std::nullopt;
  return (*found)->robust_list;
}

void LinuxProcess::keep_only(GuestThread& thread) {
  if (debugger_ != nullptr) std::exchange(debugger_, nullptr)->leave_child(thread);
  threads_.assign(1, &thread);
  tracer_.forget_all();
  shared_->keep_only_caller();
}

void LinuxProcess::lock_for_fork() {
  if (debugger_ != nullptr) debugger_->mutex().lock();
  tracer_.mutex().lock();
  mutex_.lock();
  shared_->lock();
}

void LinuxProcess::unlock_after_fork() {
  shared_->unlock();
  mutex_.unlock();
  tracer_.mutex().unlock();
  if (debugger_ != nullptr) debugger_->mutex().unlock();
}

}  // namespace doppel::process
