// What a worker says of itself when it dies by its own fault: SIGSEGV, SIGBUS, SIGILL (which Swift's traps raise),
// SIGTRAP, SIGABRT, SIGFPE, SIGSYS. The handler notes the signal, the address and the request that the thread handled
// in memory that outlives the process, and then lets it die by that signal, so that its exit status tells the same.
//
// This is C because it runs in a signal handler, where nothing may allocate, lock or be initialised on first use. Each
// thread has a stack of its own for it: the fault may be that it has used up the other one.
#pragma once
#include <signal.h>
#include <stddef.h>
#include <stdint.h>

/// Where it is noted. `signal` is written last.
struct clinux_fatal_places {
    uint32_t *signal;
    uint32_t *handling;
    uint64_t *address;
    /// The threads that handle requests, and the places where each says which: the first, and bytes from one to the
    /// next.
    const uint32_t *threads;
    const void *handlings;
    size_t stride;
    unsigned count;
};

/// Takes these signals up for this process, and gives the calling thread its stack. SIGBUS is left to whoever has it
/// already (clinux_guard_install), who hands on what is not his. Returns 0, or -1 and errno.
int clinux_fatal_install(void);

/// From now on it is noted at `places`; NULL: nowhere. To be called by one thread.
void clinux_fatal_note_at(const struct clinux_fatal_places *places);

/// Notes a signal and makes it end the process when the handler returns.
void clinux_fatal_handle(int number, siginfo_t *info, void *context);

/// Gives the calling thread a stack for the handler, if there is one. Returns it, or NULL.
void *clinux_fatal_enter_thread(void);

/// Takes it back; the thread is about to end.
void clinux_fatal_leave_thread(void *stack);
