// System calls on files as a program makes them, one each, for tests that compare a file system with the kernel's own.
// Each returns -1 and sets errno as the call itself does.
#pragma once
#include <stdint.h>
#include <sys/xattr.h>

struct file_times { int64_t seconds[2]; int64_t nanoseconds[2]; };

/// What stat says, less what depends on where the file system lies.
struct file_status {
    uint64_t size, inode, device, links;
    uint32_t mode, user, group, major, minor;
    int64_t modified, accessed;
    uint32_t modified_nanoseconds, accessed_nanoseconds;
};

/// The calling thread alone becomes another user, without supplementary groups; back to root with 0 and 0. By the
/// system calls themselves: the C library would change all threads.
int file_become(uint32_t user, uint32_t group);

int file_open(int directory, const char *path, int flags, uint32_t mode);
int file_rename(int directory, const char *from, const char *to, uint32_t flags);
int64_t file_copy(int from, int64_t at, int to, int64_t into, uint64_t count);
int file_allocate(int file, int mode, int64_t offset, int64_t count);
int file_access(int directory, const char *path, int mask);
int file_change_mode(int directory, const char *path, uint32_t mode);
int file_change_owner(int directory, const char *path, uint32_t user, uint32_t group);
int64_t file_seek(int file, int64_t offset, int whence);
int file_sync_all(int file);
int file_flock(int file, int operation);

/// Gives an open file a name, also one that has none (O_TMPFILE).
int file_link_open(int file, int directory, const char *path);

/// Of a name, which is not followed, or of an open file where the path is empty.
int file_status_at(int directory, const char *path, struct file_status *status);
int file_make_node(int directory, const char *path, uint32_t mode, uint32_t major, uint32_t minor);
/// Seconds, nanoseconds of access and modification; nanoseconds may be UTIME_NOW, UTIME_OMIT.
int file_set_times(int directory, const char *path, const struct file_times *times);
/// UTIME_NOW and UTIME_OMIT.
enum { FILE_NOW = 0x3fffffff, FILE_OMIT = 0x3ffffffe };

/// An open-file-description lock: type F_RDLCK, F_WRLCK or F_UNLCK of bytes `first` to `last`.
int file_lock(int file, int type, int64_t first, int64_t last);
/// The lock in the way of another: its type, F_UNLCK where none is.
int file_test_lock(int file, int *type, int64_t *first, int64_t *last);

struct file_system_status { uint64_t blocks, block_size, name_length; };
int file_system_at(int file, struct file_system_status *status);
