// What a worker that serves a directory gets of the host, and what it gives up. As in sandbox.h, this is C because
// some of it must be system calls only, and because what is not there ought to be seen.
#pragma once
#include <stdint.h>

/// Makes a tree of mounts of its own of a directory, which is in no namespace yet, with everything that is mounted
/// below it: no device of it can be opened, no program of it started. `..` at its root leads nowhere. Returns a
/// descriptor of its root; -1 and errno.
int clinux_clone_tree(int directory, int read_only);

/// Makes a tree, as clinux_clone_tree gives it, the root of this process, whose mount namespace is its own; nothing
/// else stays mounted in it. Returns 0 or an error number.
int clinux_share_root(int tree);

/// The directory of this process's open files as a tree of its own: it leads to them and to nothing else of /proc.
/// Where that is not allowed, `or_plain` says whether the plain directory will do. Returns a descriptor; -1 and errno.
int clinux_open_process_files(int or_plain);

/// The names of the capabilities that whoever starts a share's workers needs, and whether the calling thread has them:
/// CAP_SYS_ADMIN to make namespaces and trees of mounts, CAP_SYS_PTRACE to get kernel rings back from workers, then
/// what clinux_keep_file_capabilities keeps. NULL after the last.
const char *clinux_capability_for_share(unsigned index, int *is_there);

/// The name of a system call that a share's workers cannot do without and that a filter keeps from this process, who
/// has those capabilities; NULL if there is none.
const char *clinux_refused_call_of_share(void);

/// Gives up all capabilities, in all sets, for good, but those that acting for the users of a file system needs; no
/// program that is started gets any. `may_use_handles`: CAP_DAC_READ_SEARCH stays, too. Returns 0 or an error number.
int clinux_keep_file_capabilities(int may_use_handles);

/// Mounts a file system whose requests come to `device`, an open /dev/fuse. Permissions are the kernel's to check, and
/// anybody may use it. Returns 0, or -1 and errno.
int clinux_mount_fuse(int device, const char *place, int read_only);

/// Whether a descriptor is of /dev/fuse.
int clinux_is_fuse_device(int fd);

/// Makes a file system as clinux_mount_fuse mounts one, which is mounted nowhere yet, and gone when nobody has it open.
/// `source` is what a list of mounts shows. Returns a descriptor of its root; -1 and errno.
int clinux_make_fuse_mount(int device, const char *source, int read_only);

/// Mounts what clinux_make_fuse_mount has made. Returns 0, or -1 and errno.
int clinux_attach_mount(int tree, const char *place);

/// Unmounts it, as soon as nobody uses it. Returns 0, or -1 and errno.
int clinux_unmount_fuse(const char *place);
