#define _GNU_SOURCE
#include "fatal_signal.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FATAL_STACK_BYTES = 64 << 10 };
#ifndef SYS_SECCOMP
enum { SYS_SECCOMP = 1 };  // si_code, which glibc does not name
#endif

static const int fatal_signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSYS};
static _Atomic(int) fatal_installed;
// Two, so that one can be written while the other counts.
static struct clinux_fatal_places fatal_places[2];
static _Atomic(const struct clinux_fatal_places *) fatal_current;
static _Atomic(int) fatal_noted;

void clinux_fatal_note_at(const struct clinux_fatal_places *places) {
    const struct clinux_fatal_places *old = atomic_load(&fatal_current);
    struct clinux_fatal_places *next = old == &fatal_places[0] ? &fatal_places[1] : &fatal_places[0];
    if (places) *next = *places;
    atomic_store(&fatal_current, places ? next : NULL);
}

static uint32_t fatal_request(const struct clinux_fatal_places *places) {
    const uint32_t self = (uint32_t)syscall(SYS_gettid);
    for (unsigned i = 0; i < places->count; i++) {
        if (((const volatile uint32_t *)places->threads)[i] != self) continue;
        // Until it serves, one thread has all loops.
        const uint32_t handling = *(const volatile uint32_t *)((const char *)places->handlings + i * places->stride);
        if (handling) return handling;
    }
    return 0;
}

// Says which system call was forbidden: a worker that has not had the device yet has no other place to note it.
static void fatal_say_call(unsigned call) {
    char text[] = "baton-worker[error] a forbidden system call, number 0000\n";
    for (char *digit = text + sizeof text - 3; call > 0 && *digit == '0'; call /= 10)
        *digit-- = (char)('0' + call % 10);
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) return;
}

void clinux_fatal_handle(int number, siginfo_t *info, void *context) {
    (void)context;
    if (number == SIGSYS && info->si_code == SYS_SECCOMP) fatal_say_call((unsigned)info->si_syscall);
    const struct clinux_fatal_places *places = atomic_load(&fatal_current);
    // Of two threads at once, the first is the cause.
    if (places && !atomic_exchange(&fatal_noted, 1)) {
        // Of a system call that the filter forbids, its number: the address would be that of the C library.
        const int is_forbidden = number == SIGSYS && info->si_code == SYS_SECCOMP;
        *(volatile uint64_t *)places->address =
            is_forbidden ? (uint64_t)(unsigned)info->si_syscall + 1 : (uint64_t)(uintptr_t)info->si_addr;
        *(volatile uint32_t *)places->handling = fatal_request(places);
        atomic_store_explicit((_Atomic(uint32_t) *)places->signal, (uint32_t)number, memory_order_release);
    }
    // That of SIGSYS the kernel has taken back already: a filter allows nobody to have another one.
    if (number != SIGSYS) signal(number, SIG_DFL);
    // Blocked until this returns: then it ends the process before anything else is carried out, whether or not the
    // fault would come again by itself.
    syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), number);
}

void *clinux_fatal_enter_thread(void) {
    if (!atomic_load(&fatal_installed)) return NULL;
    void *stack = mmap(NULL, FATAL_STACK_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    if (stack == MAP_FAILED) return NULL;
    const stack_t here = {.ss_sp = stack, .ss_size = FATAL_STACK_BYTES};
    sigaltstack(&here, NULL);
    return stack;
}

void clinux_fatal_leave_thread(void *stack) {
    if (!stack) return;
    const stack_t none = {.ss_flags = SS_DISABLE};
    sigaltstack(&none, NULL);
    munmap(stack, FATAL_STACK_BYTES);
}

int clinux_fatal_install(void) {
    struct sigaction action = {.sa_sigaction = clinux_fatal_handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    atomic_store(&fatal_installed, 1);
    for (unsigned i = 0; i < sizeof fatal_signals / sizeof fatal_signals[0]; i++) {
        struct sigaction old;
        if (sigaction(fatal_signals[i], NULL, &old)) return -1;
        if (fatal_signals[i] == SIGBUS && (old.sa_flags & SA_SIGINFO)) continue;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | (fatal_signals[i] == SIGSYS ? (int)SA_RESETHAND : 0);
        if (sigaction(fatal_signals[i], &action, NULL)) return -1;
    }
    // The main thread lives as long as the process: its stack is never taken back.
    return clinux_fatal_enter_thread() ? 0 : -1;
}
