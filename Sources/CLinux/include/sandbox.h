// What keeps a worker that a hostile guest has taken over from reaching anything but its own disk: namespaces, an empty
// root, no capability, a filter of system calls. docs/decisions/custody/0015 says which, in what order, and why.
//
// This is C because it runs between fork and exec, where only system calls are safe, and because a filter is a table
// that ought to be read as one.
#pragma once
#include <signal.h>
#include <stdint.h>

/// Makes a room: a process in user, PID, network, IPC, UTS and control group namespaces of its own, and with an empty
/// root, which does nothing but keep them, and which ends when nobody has the other end of the pipe `lifeline` open.
/// When it ends, everything in it does. Inside, user and group 0 are the caller's own and 1 is `user` and `group`,
/// if the caller may say so; else there is only 0, the caller's own.
///
/// Returns 0 or an error number. `has_user` is set to whether there is a user 1. NULL: the room has no user namespace,
/// and its processes the host's users.
int clinux_room_make(int *pid, int *has_user, int lifeline, unsigned user, unsigned group);

/// Starts a program as clinux_spawn does, in a session of its own, in a room. It is a child of the caller's. It sees
/// the caller's file systems yet, in a mount namespace of its own, and has all capabilities there and in the room, none
/// outside, unless the room has no user namespace (`room_has_users`). Returns 0 or an error number.
int clinux_spawn_in_room(int *pid, int room, int room_has_users, const char *program,
                         char *const arguments[], int output, const int *inherited, unsigned inherited_count);

/// CLONE_NEW…, which glibc hides behind _GNU_SOURCE.
enum { CLINUX_NEW_MOUNTS = 0x20000, CLINUX_NEW_NETWORK = 0x40000000, CLINUX_NEW_IPC = 0x8000000 };

/// Namespaces of its own for this process where a room could not be had: as far as it may. Returns a set of
/// CLONE_NEW…
int clinux_leave_namespaces(void);

/// Gives this process, whose mount namespace is its own, an empty root that nothing can be written to. Returns 0 or an
/// error number.
int clinux_empty_root(void);

/// Gives up all capabilities, in all sets, for good, and becomes a user and group (all ones: stays what it is). Returns
/// 0 or an error number.
int clinux_drop_privileges(unsigned user, unsigned group);

/// Nobody without rights over this process may look into it, and no core is written of it; and the most descriptors and
/// threads that it may have. Returns 0 or an error number.
int clinux_limit_process(unsigned descriptors, unsigned threads);

/// What a worker may do after its start.
enum {
    /// A worker in custody.
    CLINUX_CALLS_OF_CUSTODY = 0,
    /// A worker on its own: accepts connections, and watches its image.
    CLINUX_CALLS_ALONE = 1,
    /// A worker in custody that serves files.
    CLINUX_CALLS_OF_SHARE = 2,
    /// A worker on its own that does.
    CLINUX_CALLS_OF_SHARE_ALONE = 3,
};

/// Allows this process, with all threads that it has and will have, the calls of a set, and takes from it the means to
/// gain privileges; for good. Another call is SIGSYS, which clinux_fatal_handle notes with its number. Returns 0 or an
/// error number.
int clinux_filter_calls(int set);
