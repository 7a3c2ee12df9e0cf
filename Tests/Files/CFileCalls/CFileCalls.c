#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "CFileCalls.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <unistd.h>

_Static_assert(FILE_NOW == UTIME_NOW && FILE_OMIT == UTIME_OMIT, "utimensat's special times");

int file_become(uint32_t user, uint32_t group) {
    if (user == 0 && syscall(SYS_setresuid, -1, 0, -1) != 0) return -1;
    if (syscall(SYS_setgroups, 0, (void *)0) != 0 && user == 0) return -1;
    if (syscall(SYS_setresgid, -1, group, -1) != 0) return -1;
    return user == 0 ? 0 : (int)syscall(SYS_setresuid, -1, user, -1);
}

int file_open(int directory, const char *path, int flags, uint32_t mode) {
    return (int)syscall(SYS_openat, directory, path, flags | O_CLOEXEC | O_LARGEFILE, mode);
}

int file_rename(int directory, const char *from, const char *to, uint32_t flags) {
    return (int)syscall(SYS_renameat2, directory, from, directory, to, flags);
}

int64_t file_copy(int from, int64_t at, int to, int64_t into, uint64_t count) {
    return syscall(SYS_copy_file_range, from, &at, to, &into, count, 0);
}

int file_allocate(int file, int mode, int64_t offset, int64_t count) {
    return (int)syscall(SYS_fallocate, file, mode, offset, count);
}

int file_access(int directory, const char *path, int mask) {
    return (int)syscall(SYS_faccessat2, directory, path, mask, AT_EACCESS);
}

int file_change_mode(int directory, const char *path, uint32_t mode) {
    return (int)syscall(SYS_fchmodat, directory, path, mode);
}

int file_change_owner(int directory, const char *path, uint32_t user, uint32_t group) {
    return fchownat(directory, path, user, group, AT_SYMLINK_NOFOLLOW);
}

int64_t file_seek(int file, int64_t offset, int whence) { return lseek(file, offset, whence); }

int file_sync_all(int file) { return (int)syscall(SYS_syncfs, file); }

int file_flock(int file, int operation) { return flock(file, operation); }

// A path for calls that take no directory.
static int file_through(int file, char path[64]) {
    const char *start = "/proc/self/fd/";
    char digits[12];
    int count = 0, at = (int)strlen(start);
    memcpy(path, start, (size_t)at);
    do digits[count++] = (char)('0' + file % 10);
    while ((file /= 10) > 0);
    while (count > 0) path[at++] = digits[--count];
    path[at] = 0;
    return at;
}

int file_link_open(int file, int directory, const char *path) {
    char through[64];
    file_through(file, through);
    return linkat(AT_FDCWD, through, directory, path, AT_SYMLINK_FOLLOW);
}

static void file_take_status(const struct stat *from, struct file_status *to) {
    to->size = (uint64_t)from->st_size;
    to->inode = from->st_ino;
    to->device = from->st_dev;
    to->links = from->st_nlink;
    to->mode = from->st_mode;
    to->user = from->st_uid;
    to->group = from->st_gid;
    to->major = gnu_dev_major(from->st_rdev);
    to->minor = gnu_dev_minor(from->st_rdev);
    to->modified = from->st_mtim.tv_sec;
    to->accessed = from->st_atim.tv_sec;
    to->modified_nanoseconds = (uint32_t)from->st_mtim.tv_nsec;
    to->accessed_nanoseconds = (uint32_t)from->st_atim.tv_nsec;
}

int file_status_at(int directory, const char *path, struct file_status *status) {
    struct stat found;
    if (fstatat(directory, path, &found, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0) return -1;
    file_take_status(&found, status);
    return 0;
}

int file_make_node(int directory, const char *path, uint32_t mode, uint32_t major, uint32_t minor) {
    return mknodat(directory, path, mode, gnu_dev_makedev(major, minor));
}

int file_set_times(int directory, const char *path, const struct file_times *times) {
    struct timespec both[2] = {{times->seconds[0], times->nanoseconds[0]}, {times->seconds[1], times->nanoseconds[1]}};
    return utimensat(directory, path, both, AT_SYMLINK_NOFOLLOW);
}

// Zero stands for "to the end".
static int64_t file_lock_length(int64_t first, int64_t last) { return last == INT64_MAX ? 0 : last - first + 1; }

int file_lock(int file, int type, int64_t first, int64_t last) {
    struct flock lock = {
        .l_type = (short)type, .l_whence = SEEK_SET, .l_start = first, .l_len = file_lock_length(first, last)};
    return fcntl(file, F_OFD_SETLK, &lock);
}

int file_test_lock(int file, int *type, int64_t *first, int64_t *last) {
    struct flock lock = {
        .l_type = (short)*type, .l_whence = SEEK_SET, .l_start = *first, .l_len = file_lock_length(*first, *last)};
    if (fcntl(file, F_OFD_GETLK, &lock) != 0) return -1;
    *type = lock.l_type;
    *first = lock.l_start;
    *last = lock.l_len == 0 ? INT64_MAX : lock.l_start + lock.l_len - 1;
    return 0;
}

int file_system_at(int file, struct file_system_status *status) {
    struct statfs found;
    if (fstatfs(file, &found) != 0) return -1;
    status->blocks = found.f_blocks;
    status->block_size = (uint64_t)found.f_bsize;
    status->name_length = (uint64_t)found.f_namelen;
    return 0;
}
