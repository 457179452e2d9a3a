#include "memory/guarded_access.h"

// Each function is one access and a return, so that whoever finds the instruction pointer in between can make it return
// something else. Arguments as the System V ABI passes them; the result is zero when nothing happened.
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
)asm");

extern "C" {
extern const char doppel_guarded_begin[], doppel_guarded_end[], doppel_guarded_failed[];
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
  std::size_t done = 0;
  while (done < bytes) {
    std::uint64_t value = 0;
    unsigned part = 8;
    if (bytes - done < part || guarded_read(from + done, part, value) != 0) {
      part = 1;
      if (guarded_read(from + done, part, value) != 0) break;
    }
    __builtin_memcpy(to + done, &value, part);
    done += part;
  }
  return done;
}

bool recover_guarded_access(int signal, ucontext_t& context) {
  greg_t& rip = context.uc_mcontext.gregs[REG_RIP];
  const auto at = reinterpret_cast<const char*>(rip);
  if (at < doppel_guarded_begin || at >= doppel_guarded_end) return false;
  context.uc_mcontext.gregs[REG_RAX] = signal;
  rip = reinterpret_cast<greg_t>(doppel_guarded_failed);
  return true;
}

}  // namespace doppel
