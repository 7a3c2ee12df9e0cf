// What a guest that has taken over a worker might try, each by name. For tests of the sandbox only.
#pragma once

/// Carries an attack out. Returns what the kernel said, an error number as a negative one; INT_MIN for an unknown name.
/// Most do not return.
///
/// `ring` is an inherited io_uring, `parameters` what its maker was told; `sibling` is another process in this PID
/// namespace.
int attack(const char *name, int ring, const unsigned char parameters[120], int sibling);

/// The number of the system call that an attack makes, as long as it is one; else -1.
int attack_call(const char *name);
