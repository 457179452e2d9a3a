#include "process/abi/host_call.h"

#include <atomic>

#include "process/abi/thread.h"

extern "C" {
std::int64_t doppel_host_call(const std::atomic<std::uint32_t>* interrupted, long number, const std::uint64_t* arguments);
extern const char doppel_host_call_look[], doppel_host_call_enter[];
int doppel_guarded_compare_exchange(std::uint32_t* at, std::uint32_t* expected, std::uint32_t desired);
extern const char doppel_guarded_begin[], doppel_guarded_end[], doppel_guarded_fault[];
}

// None of these uses the stack, so that the handler may move one to its end. From doppel_host_call_look to the SYSCALL
// nothing has happened yet; a call that the kernel wants to run again is set back to the SYSCALL before the handler.
asm(R"(
    .text
    .type doppel_host_call, @function
doppel_host_call:
    mov %rdi, %rcx
    mov %rsi, %rax
    mov %rdx, %r11
    mov 0(%r11), %rdi
    mov 8(%r11), %rsi
    mov 16(%r11), %rdx
    mov 24(%r11), %r10
    mov 32(%r11), %r8
    mov 40(%r11), %r9
doppel_host_call_look:
    cmpl $0, (%rcx)
    jne doppel_host_call_restart
doppel_host_call_enter:
    syscall
    .globl doppel_host_call_done
doppel_host_call_done:
    ret
    .globl doppel_host_call_restart
doppel_host_call_restart:
    mov $-512, %rax
    ret

doppel_guarded_begin:
    .type doppel_guarded_compare_exchange, @function
doppel_guarded_compare_exchange:
    mov (%rsi), %eax
    lock cmpxchg %edx, (%rdi)
    mov %eax, (%rsi)
    sete %al
    movzbl %al, %eax
    ret
doppel_guarded_end:
doppel_guarded_fault:
    mov $-1, %eax
    ret
)");

namespace doppel::process {
namespace {

std::uintptr_t address(const char* label) { return reinterpret_cast<std::uintptr_t>(label); }
std::uintptr_t pc_of(const ucontext_t& context) {
  return static_cast<std::uintptr_t>(context.uc_mcontext.gregs[REG_RIP]);
}
void go_on_at(ucontext_t& context, const char* label) {
  context.uc_mcontext.gregs[REG_RIP] = static_cast<greg_t>(address(label));
}

}  // namespace

std::int64_t host_call(long number, std::uint64_t a0, std::uint64_t a1, std::uint64_t a2, std::uint64_t a3,
                       std::uint64_t a4, std::uint64_t a5) {
  static constexpr std::atomic<std::uint32_t> kNever{0};
  const GuestThread* thread = GuestThread::running();
  const std::uint64_t arguments[6]{a0, a1, a2, a3, a4, a5};
  return doppel_host_call(thread != nullptr ? &thread->signal_waiting() : &kNever, number, arguments);
}

int guarded_compare_exchange(std::uint32_t* at, std::uint32_t& expected, std::uint32_t desired) {
  return doppel_guarded_compare_exchange(at, &expected, desired);
}

void leave_interrupted_call(ucontext_t& context) {
  const std::uintptr_t pc = pc_of(context);
  if (pc >= address(doppel_host_call_look) && pc <= address(doppel_host_call_enter)) {
    go_on_at(context, doppel_host_call_restart);
  }
}

bool leave_guarded_access(ucontext_t& context) {
  const std::uintptr_t pc = pc_of(context);
  if (pc < address(doppel_guarded_begin) || pc >= address(doppel_guarded_end)) return false;
  go_on_at(context, doppel_guarded_fault);
  return true;
}

}  // namespace doppel::process
