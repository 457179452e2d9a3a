#include "memory/guarded_access.h"

// Each function but the copy is one access and a return: whoever finds the instruction pointer in between can make it
// return something else. Arguments as the System V ABI passes them; the result is zero when nothing happened.
asm(R"asm(
    .text
    .p2align 4
    .type doppel_guarded_begin, @function
doppel_guarded_begin:
    .macro guarded_load name, instruction
\name:
    \instruction
    mov %rax, (%rsi)
    xor %eax, %eax
    ret
    .endm
    .macro guarded_store name, instruction
\name:
    \instruction
    xor %eax, %eax
    ret
    .endm
    guarded_load doppel_guarded_read_1, "movzbl (%rdi), %eax"
    guarded_load doppel_guarded_read_2, "movzwl (%rdi), %eax"
    guarded_load doppel_guarded_read_4, "movl (%rdi), %eax"
    guarded_load doppel_guarded_read_8, "movq (%rdi), %rax"
    guarded_store doppel_guarded_write_1, "movb %sil, (%rdi)"
    guarded_store doppel_guarded_write_2, "movw %si, (%rdi)"
    guarded_store doppel_guarded_write_4, "movl %esi, (%rdi)"
    guarded_store doppel_guarded_write_8, "movq %rsi, (%rdi)"
    guarded_store doppel_guarded_probe, "lock orl $0, (%rdi)"
doppel_guarded_end:
    .purgem guarded_load
    .purgem guarded_store
    .size doppel_guarded_begin, . - doppel_guarded_begin
doppel_guarded_failed:
    ret
    # rcx has what is left at any time.
doppel_guarded_copy:
    rep movsb
doppel_guarded_copy_end:
    mov %rcx, %rax
    ret
)asm");

extern "C" {
extern const char doppel_guarded_begin[], doppel_guarded_end[], doppel_guarded_failed[];
std::size_t doppel_guarded_copy(std::byte* to, const std::byte* from, std::size_t, std::size_t bytes);
extern const char doppel_guarded_copy_end[];
int doppel_guarded_read_1(const std::byte*, std::uint64_t*);
int doppel_guarded_read_2(const std::byte*, std::uint64_t*);
int doppel_guarded_read_4(const std::byte*, std::uint64_t*);
int doppel_guarded_read_8(const std::byte*, std::uint64_t*);
int doppel_guarded_write_1(std::byte*, std::uint64_t);
int doppel_guarded_write_2(std::byte*, std::uint64_t);
int doppel_guarded_write_4(std::byte*, std::uint64_t);
int doppel_guarded_write_8(std::byte*, std::uint64_t);
int doppel_guarded_probe(std::byte*);
}

namespace doppel {

int guarded_read(const std::byte* from, unsigned bytes, std::uint64_t& value) {
  switch (bytes) {
    case 1: return doppel_guarded_read_1(from, &value);
    case 2: return doppel_guarded_read_2(from, &value);
    case 4: return doppel_guarded_read_4(from, &value);
    default: return doppel_guarded_read_8(from, &value);
  }
}

int guarded_write(std::byte* to, unsigned bytes, std::uint64_t value) {
  switch (bytes) {
    case 1: return doppel_guarded_write_1(to, value);
    case 2: return doppel_guarded_write_2(to, value);
    case 4: return doppel_guarded_write_4(to, value);
    default: return doppel_guarded_write_8(to, value);
  }
}

int guarded_probe_write(std::byte* at) { return doppel_guarded_probe(at); }

std::size_t guarded_copy(const std::byte* from, std::byte* to, std::size_t bytes) {
  return bytes - doppel_guarded_copy(to, from, 0, bytes);
}

bool recover_guarded_access(int signal, ucontext_t& context) {
  greg_t& rip = context.uc_mcontext.gregs[REG_RIP];
  const auto at = reinterpret_cast<const char*>(rip);
  if (at == reinterpret_cast<const char*>(&doppel_guarded_copy)) {
    rip = reinterpret_cast<greg_t>(doppel_guarded_copy_end);
    return true;
  }
  if (at < doppel_guarded_begin || at >= doppel_guarded_end) return false;
  context.uc_mcontext.gregs[REG_RAX] = signal;
  rip = reinterpret_cast<greg_t>(doppel_guarded_failed);
  return true;
}

}  // namespace doppel
