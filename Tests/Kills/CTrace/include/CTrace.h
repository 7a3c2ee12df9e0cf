// Stopping another process's thread at a chosen store or system call: ptrace, which is variadic and full of casts.
#pragma once
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>

/// Takes a thread under control without stopping it; it is killed if this process ends. All calls for it come from the
/// calling thread from now on.
static inline int ctrace_seize(int thread) {
    const long options = PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD;
    return (int)ptrace(PTRACE_SEIZE, thread, 0, options);
}

/// Asks it to stop.
static inline int ctrace_interrupt(int thread) { return (int)ptrace(PTRACE_INTERRUPT, thread, 0, 0); }

/// Lets it run on: to the next system call's beginning or end, or until something else stops it.
static inline int ctrace_continue(int thread, int to_call, int signal) {
    return (int)ptrace(to_call ? PTRACE_SYSCALL : PTRACE_CONT, thread, 0, (long)signal);
}

/// Lets it run on, and does without control of it. It has stopped.
static inline int ctrace_detach(int thread) { return (int)ptrace(PTRACE_DETACH, thread, 0, 0); }

enum ctrace_stop {
    CTRACE_RUNNING,
    /// Gone.
    CTRACE_ENDED,
    /// At a system call.
    CTRACE_CALL,
    /// By a watched store, or a step.
    CTRACE_TRAP,
    /// As it was asked to.
    CTRACE_INTERRUPTED,
    /// By a signal that is on its way to it.
    CTRACE_SIGNAL,
};

/// What has become of a thread. `signal` is set for CTRACE_SIGNAL.
static inline enum ctrace_stop ctrace_look(int thread, int *signal) {
    int status = 0;
    *signal = 0;
    const pid_t result = waitpid(thread, &status, __WALL | WNOHANG);
    if (result == 0) return CTRACE_RUNNING;
    if (result < 0 || !WIFSTOPPED(status)) return CTRACE_ENDED;
    if (WSTOPSIG(status) == (SIGTRAP | 0x80)) return CTRACE_CALL;
    if (status >> 16 == PTRACE_EVENT_STOP) return CTRACE_INTERRUPTED;
    if (WSTOPSIG(status) == SIGTRAP) return CTRACE_TRAP;
    *signal = WSTOPSIG(status);
    return CTRACE_SIGNAL;
}

/// The system call that a thread has stopped at: its number, its second argument, and at its end the result.
/// Returns 1 at its beginning, 2 at its end, 0 when it is at none.
static inline int ctrace_call(int thread, uint64_t *number, uint64_t *second, int64_t *result) {
    struct __ptrace_syscall_info information;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, sizeof information, &information) < 0) return 0;
    if (information.op == PTRACE_SYSCALL_INFO_ENTRY) {
        *number = information.entry.nr;
        *second = information.entry.args[1];
        return 1;
    }
    *result = information.exit.rval;
    return information.op == PTRACE_SYSCALL_INFO_EXIT ? 2 : 0;
}

enum { CTRACE_WATCHES = 4 };

/// Stops a stopped thread, once it goes on, right after each store to one of `count` places of `length` bytes (1, 2, 4
/// or 8, aligned). Replaces what was watched. ENOTSUP where debug registers are not x86-64's.
static inline int ctrace_watch(int thread, const uint64_t *places, unsigned count, unsigned length) {
#if defined(__x86_64__)
    const uint64_t code = length == 8 ? 2 : length - 1;
    uint64_t control = 0;
    const size_t registers = offsetof(struct user, u_debugreg);
    if (ptrace(PTRACE_POKEUSER, thread, registers + 7 * 8, 0)) return -1;
    for (unsigned i = 0; i < count && i < CTRACE_WATCHES; i++) {
        if (ptrace(PTRACE_POKEUSER, thread, registers + i * 8, places[i])) return -1;
        // Enabled for this thread, on stores, so many bytes.
        control |= (uint64_t)1 << (2 * i) | (uint64_t)1 << (16 + 4 * i) | code << (18 + 4 * i);
    }
    if (ptrace(PTRACE_POKEUSER, thread, registers + 6 * 8, 0)) return -1;
    return (int)ptrace(PTRACE_POKEUSER, thread, registers + 7 * 8, control);
#else
    (void)thread, (void)places, (void)count, (void)length;
    errno = ENOTSUP;
    return -1;
#endif
}
