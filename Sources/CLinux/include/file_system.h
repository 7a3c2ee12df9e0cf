// System calls on files by descriptor, name and handle that Swift cannot see, or that the C library would make for the
// whole process: credentials and umask are a thread's own here. One call each; -1 and errno on failure.
#pragma once
#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

enum {
    CLINUX_AT_EMPTY_PATH = 0x1000,
    CLINUX_AT_NO_AUTOMOUNT = 0x800,
    CLINUX_O_PATH = 010000000,
    CLINUX_O_TMPFILE = 020000000 | 0200000,
    CLINUX_O_LARGEFILE = 0100000,
    CLINUX_RESOLVE_NO_XDEV = 1,
    CLINUX_RESOLVE_NO_MAGICLINKS = 2,
    CLINUX_RESOLVE_NO_SYMLINKS = 4,
    CLINUX_RESOLVE_BENEATH = 8,
    CLINUX_STATX_MNT_ID = 0x1000,
    CLINUX_SEEK_DATA = 3,
    CLINUX_SEEK_HOLE = 4,
    CLINUX_HANDLE_BYTES = 128,
    CLINUX_RENAME_FLAGS = 7,
};

/// struct file_handle with room for the longest.
struct clinux_file_handle {
    uint32_t byte_count;
    int32_t type;
    uint8_t bytes[CLINUX_HANDLE_BYTES];
};

static inline int clinux_statx(int directory, const char *path, int flags, unsigned mask, struct statx *to) {
    return (int)syscall(SYS_statx, directory, path, flags, mask, to);
}

/// The handle of a file and the number of its mount. Never follows a symbolic link.
static inline int clinux_name_to_handle(int directory, const char *path, int flags, struct clinux_file_handle *handle,
                                        int *mount) {
    handle->byte_count = CLINUX_HANDLE_BYTES;
    return (int)syscall(SYS_name_to_handle_at, directory, path, handle, mount, flags);
}

/// Opens a file by its handle. `mount` is a descriptor of any file on the same file system that is open for real.
static inline int clinux_open_by_handle(int mount, const void *bytes, unsigned count, int type, int flags) {
    struct clinux_file_handle handle;
    if (count > CLINUX_HANDLE_BYTES) { errno = EINVAL; return -1; }
    handle.byte_count = count;
    handle.type = type;
    memcpy(handle.bytes, bytes, count);
    return (int)syscall(SYS_open_by_handle_at, mount, &handle, flags);
}

static inline int clinux_openat(int directory, const char *path, int flags, unsigned mode, uint64_t resolve) {
    struct open_how how = {.flags = (uint64_t)(uint32_t)flags, .mode = mode, .resolve = resolve};
    return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

static inline int clinux_renameat(int from, const char *name, int to, const char *new_name, unsigned flags) {
    return (int)syscall(SYS_renameat2, from, name, to, new_name, flags);
}

/// fchmodat2 (Linux 6.6), which needs no descriptor that is open for real.
static inline int clinux_chmod_empty(int fd, unsigned mode) {
    return (int)syscall(452, fd, "", mode, CLINUX_AT_EMPTY_PATH);
}

// <sys/xattr.h>'s, which Swift does not look at
extern int setxattr(const char *path, const char *name, const void *value, size_t size, int flags);
extern ssize_t getxattr(const char *path, const char *name, void *value, size_t size);
extern ssize_t listxattr(const char *path, char *list, size_t size);
extern int removexattr(const char *path, const char *name);
extern int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
extern ssize_t fgetxattr(int fd, const char *name, void *value, size_t size);
extern ssize_t flistxattr(int fd, char *list, size_t size);
extern int fremovexattr(int fd, const char *name);

static inline ssize_t clinux_getdents(int fd, void *to, size_t count) {
    return syscall(SYS_getdents64, fd, to, (unsigned)count);
}
static inline ssize_t clinux_copy_range(int from, int64_t offset, int to, int64_t to_offset, size_t count) {
    return syscall(SYS_copy_file_range, from, &offset, to, &to_offset, count, 0u);
}
static inline int clinux_syncfs(int fd) { return (int)syscall(SYS_syncfs, fd); }
static inline int clinux_faccess_empty(int fd, int mode) {
    // AT_EACCESS: what the thread may do as it is, not its process's real user.
    return (int)syscall(SYS_faccessat2, fd, "", mode, CLINUX_AT_EMPTY_PATH | 0x200);
}
static inline uint64_t clinux_make_device(uint32_t major_number, uint32_t minor_number) {
    return makedev(major_number, minor_number);
}

/// A range lock of an open file description (F_OFD_SETLK, F_OFD_GETLK). `length` 0: to the end.
static inline int clinux_lock_range(int fd, int test, short *type, int64_t *start, int64_t *length, int *process) {
    struct flock lock = {.l_type = *type, .l_whence = SEEK_SET, .l_start = *start, .l_len = *length};
    const int result = fcntl(fd, test ? 36 : 37, &lock);
    *type = lock.l_type;
    *start = lock.l_start;
    *length = lock.l_len;
    *process = lock.l_pid;
    return result;
}

// The calling thread's credentials. setfsuid tells no failure: it returns the user before, and is asked again.
static inline int clinux_set_file_user(uint32_t user) {
    syscall(SYS_setfsuid, user);
    return (uint32_t)syscall(SYS_setfsuid, ~0u) == user ? 0 : -1;
}
static inline int clinux_set_file_group(uint32_t group) {
    syscall(SYS_setfsgid, group);
    return (uint32_t)syscall(SYS_setfsgid, ~0u) == group ? 0 : -1;
}
/// `count` 0 or 1: the thread's supplementary group.
static inline int clinux_set_groups(unsigned count, uint32_t group) {
    return (int)syscall(SYS_setgroups, count, &group);
}
/// Takes CAP_FSETID out of the thread's effective capabilities, or puts it back as far as it is permitted.
int clinux_allow_fsetid(int allow);
/// The thread's umask is its own from now on.
int clinux_own_umask(void);
