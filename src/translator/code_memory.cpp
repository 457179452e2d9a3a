#include "translator/code_memory.h"

#include <sys/mman.h>

#include <cstring>
#include <utility>

namespace doppel {
namespace {

// Aligned words of so many bytes are stored at once.
constexpr std::uint32_t kPatchBytes = sizeof(std::uint64_t);

}  // namespace

Result<CodeMemory> CodeMemory::create(std::size_t size_bytes) {
  const UniqueFd fd(::memfd_create("doppel-code", MFD_CLOEXEC));
  if (!fd || ::ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) {
    return fail_errno(errno, "the host cannot provide {} MiB for translated code", size_bytes >> 20);
  }
  void* writable = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (writable == MAP_FAILED) return fail_errno(errno, "the host cannot map translated code");
  CodeMemory memory;
  memory.writable_ = static_cast<std::byte*>(writable);
  memory.size_ = size_bytes;
  memory.end_ = static_cast<std::uint32_t>(size_bytes);
  void* executable = ::mmap(nullptr, size_bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd.get(), 0);
  if (executable == MAP_FAILED) {
    return fail_errno(errno, "the host refuses executable memory; --engine interpret needs none");
  }
  memory.executable_ = static_cast<std::byte*>(executable);
  return memory;
}

CodeMemory::CodeMemory(CodeMemory&& other) noexcept
    : writable_(std::exchange(other.writable_, nullptr)),
      executable_(std::exchange(other.executable_, nullptr)),
      size_(other.size_),
      next_(other.next_),
      end_(other.end_),
      used_(other.used_) {}

CodeMemory::~CodeMemory() {
  if (writable_ != nullptr) ::munmap(writable_, size_);
  if (executable_ != nullptr) ::munmap(executable_, size_);
}

std::optional<std::uint32_t> CodeMemory::append(std::span<const std::byte> code) {
  if (code.size() > room()) return std::nullopt;
  const std::uint32_t at = next_;
  std::memcpy(writable_ + at, code.data(), code.size());
  // Blocks begin on 16 bytes.
  next_ = static_cast<std::uint32_t>(std::min<std::size_t>(end_, (at + code.size() + 15) & ~std::size_t{15}));
  used_ = std::max(used_, next_);
  return at;
}

void CodeMemory::patch_jump(std::uint32_t at, std::uint32_t target) {
  // x86 counts from the end of the displacement.
  const std::uint32_t displacement = target - (at + 4);
  std::byte* const place = writable_ + at;
  if (at % kPatchBytes > kPatchBytes - sizeof displacement) {
    std::memcpy(place, &displacement, sizeof displacement);
    return;
  }
  const std::uint32_t within = at % kPatchBytes;
  auto* const word = reinterpret_cast<std::uint64_t*>(place - within);
  std::uint64_t patched = __atomic_load_n(word, __ATOMIC_RELAXED);
  std::memcpy(reinterpret_cast<std::byte*>(&patched) + within, &displacement, sizeof displacement);
  __atomic_store_n(word, patched, __ATOMIC_RELEASE);
}

}  // namespace doppel
