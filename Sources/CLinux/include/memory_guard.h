// What becomes of a read or write of memory that its file no longer has (SIGBUS). The front-end owns the files of guest
// memory, of the inflight log and of the dirty log, and may shorten them at any moment.
//
// A guarded range in which that happens is replaced, whole, by zero memory of our own: the access goes on, as do all
// later ones, and the guest sees none of it any more. Whoever watches the event ends the session. A SIGBUS anywhere else
// ends the process, as without a guard.
//
// This is C because it runs in a signal handler, where nothing may allocate, lock or be initialised on first use.
#pragma once
#include <stddef.h>

/// Takes up SIGBUS. From then on each range that is lost adds 1 to the eventfd `event`, which stays open. Returns
/// sigaction's result.
int clinux_guard_install(int event);

/// Guards `count` bytes at `base`, both multiples of the page. Returns a number for `clinux_guard_remove`, or -1 when
/// there are 4096 guarded ranges already.
int clinux_guard_add(void *base, size_t count);

/// To be called before the range is unmapped.
void clinux_guard_remove(int number);

/// Adds 1 to the event, for who has learned from the kernel that guarded memory is gone.
void clinux_guard_report(void);
