// FUSE, the file system's protocol: version 7.45, down to 7.31. The kernel's <linux/fuse.h> is its specification:
// "FUSE_X" is WIRE_FUSE_X here, "struct fuse_x" wire_fuse_x. Everything is in host order and padded to 64 bits.
//
// A request is wire_fuse_in_header, the operation's structure, names (each with its NUL) and data, in this order; its
// answer is wire_fuse_out_header, the structure, data.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_FUSE_KERNEL_VERSION = 7,
    WIRE_FUSE_KERNEL_MINOR_VERSION = 45,
    WIRE_FUSE_ROOT_ID = 1,
    WIRE_FUSE_MIN_READ_BUFFER = 8192,
    /// Where a name begins in a directory entry, and in one with attributes; entries are padded to 8 bytes.
    WIRE_FUSE_NAME_OFFSET = 24,
    WIRE_FUSE_NAME_OFFSET_DIRENTPLUS = 152,
};

// enum fuse_opcode
enum {
    WIRE_FUSE_LOOKUP = 1,
    WIRE_FUSE_FORGET = 2,
    WIRE_FUSE_GETATTR = 3,
    WIRE_FUSE_SETATTR = 4,
    WIRE_FUSE_READLINK = 5,
    WIRE_FUSE_SYMLINK = 6,
    WIRE_FUSE_MKNOD = 8,
    WIRE_FUSE_MKDIR = 9,
    WIRE_FUSE_UNLINK = 10,
    WIRE_FUSE_RMDIR = 11,
    WIRE_FUSE_RENAME = 12,
    WIRE_FUSE_LINK = 13,
    WIRE_FUSE_OPEN = 14,
    WIRE_FUSE_READ = 15,
    WIRE_FUSE_WRITE = 16,
    WIRE_FUSE_STATFS = 17,
    WIRE_FUSE_RELEASE = 18,
    WIRE_FUSE_FSYNC = 20,
    WIRE_FUSE_SETXATTR = 21,
    WIRE_FUSE_GETXATTR = 22,
    WIRE_FUSE_LISTXATTR = 23,
    WIRE_FUSE_REMOVEXATTR = 24,
    WIRE_FUSE_FLUSH = 25,
    WIRE_FUSE_INIT = 26,
    WIRE_FUSE_OPENDIR = 27,
    WIRE_FUSE_READDIR = 28,
    WIRE_FUSE_RELEASEDIR = 29,
    WIRE_FUSE_FSYNCDIR = 30,
    WIRE_FUSE_GETLK = 31,
    WIRE_FUSE_SETLK = 32,
    WIRE_FUSE_SETLKW = 33,
    WIRE_FUSE_ACCESS = 34,
    WIRE_FUSE_CREATE = 35,
    WIRE_FUSE_INTERRUPT = 36,
    WIRE_FUSE_BMAP = 37,
    WIRE_FUSE_DESTROY = 38,
    WIRE_FUSE_IOCTL = 39,
    WIRE_FUSE_POLL = 40,
    WIRE_FUSE_NOTIFY_REPLY = 41,
    WIRE_FUSE_BATCH_FORGET = 42,
    WIRE_FUSE_FALLOCATE = 43,
    WIRE_FUSE_READDIRPLUS = 44,
    WIRE_FUSE_RENAME2 = 45,
    WIRE_FUSE_LSEEK = 46,
    WIRE_FUSE_COPY_FILE_RANGE = 47,
    WIRE_FUSE_SETUPMAPPING = 48,
    WIRE_FUSE_REMOVEMAPPING = 49,
    WIRE_FUSE_SYNCFS = 50,
    WIRE_FUSE_TMPFILE = 51,
    WIRE_FUSE_STATX = 52,
    WIRE_FUSE_COPY_FILE_RANGE_64 = 53,
};

// enum fuse_notify_code
enum {
    WIRE_FUSE_NOTIFY_POLL = 1,
    WIRE_FUSE_NOTIFY_INVAL_INODE = 2,
    WIRE_FUSE_NOTIFY_INVAL_ENTRY = 3,
    WIRE_FUSE_NOTIFY_STORE = 4,
    WIRE_FUSE_NOTIFY_RETRIEVE = 5,
    WIRE_FUSE_NOTIFY_DELETE = 6,
    WIRE_FUSE_NOTIFY_RESEND = 7,
};

// INIT: what both sides can do; bits from 32 on are in flags2: numbers of bits
enum {
    WIRE_FUSE_ASYNC_READ_BIT = 0,
    WIRE_FUSE_POSIX_LOCKS_BIT = 1,
    WIRE_FUSE_FILE_OPS_BIT = 2,
    WIRE_FUSE_ATOMIC_O_TRUNC_BIT = 3,
    WIRE_FUSE_EXPORT_SUPPORT_BIT = 4,
    WIRE_FUSE_BIG_WRITES_BIT = 5,
    WIRE_FUSE_DONT_MASK_BIT = 6,
    WIRE_FUSE_SPLICE_WRITE_BIT = 7,
    WIRE_FUSE_SPLICE_MOVE_BIT = 8,
    WIRE_FUSE_SPLICE_READ_BIT = 9,
    WIRE_FUSE_FLOCK_LOCKS_BIT = 10,
    WIRE_FUSE_HAS_IOCTL_DIR_BIT = 11,
    WIRE_FUSE_AUTO_INVAL_DATA_BIT = 12,
    WIRE_FUSE_DO_READDIRPLUS_BIT = 13,
    WIRE_FUSE_READDIRPLUS_AUTO_BIT = 14,
    WIRE_FUSE_ASYNC_DIO_BIT = 15,
    WIRE_FUSE_WRITEBACK_CACHE_BIT = 16,
    WIRE_FUSE_NO_OPEN_SUPPORT_BIT = 17,
    WIRE_FUSE_PARALLEL_DIROPS_BIT = 18,
    WIRE_FUSE_HANDLE_KILLPRIV_BIT = 19,
    WIRE_FUSE_POSIX_ACL_BIT = 20,
    WIRE_FUSE_ABORT_ERROR_BIT = 21,
    WIRE_FUSE_MAX_PAGES_BIT = 22,
    WIRE_FUSE_CACHE_SYMLINKS_BIT = 23,
    WIRE_FUSE_NO_OPENDIR_SUPPORT_BIT = 24,
    WIRE_FUSE_EXPLICIT_INVAL_DATA_BIT = 25,
    WIRE_FUSE_MAP_ALIGNMENT_BIT = 26,
    WIRE_FUSE_SUBMOUNTS_BIT = 27,
    WIRE_FUSE_HANDLE_KILLPRIV_V2_BIT = 28,
    WIRE_FUSE_SETXATTR_EXT_BIT = 29,
    WIRE_FUSE_INIT_EXT_BIT = 30,
    WIRE_FUSE_INIT_RESERVED_BIT = 31,
    WIRE_FUSE_SECURITY_CTX_BIT = 32,
    WIRE_FUSE_HAS_INODE_DAX_BIT = 33,
    WIRE_FUSE_CREATE_SUPP_GROUP_BIT = 34,
    WIRE_FUSE_HAS_EXPIRE_ONLY_BIT = 35,
    WIRE_FUSE_DIRECT_IO_ALLOW_MMAP_BIT = 36,
    WIRE_FUSE_PASSTHROUGH_BIT = 37,
    WIRE_FUSE_NO_EXPORT_SUPPORT_BIT = 38,
    WIRE_FUSE_HAS_RESEND_BIT = 39,
    WIRE_FUSE_ALLOW_IDMAP_BIT = 40,
    WIRE_FUSE_OVER_IO_URING_BIT = 41,
    WIRE_FUSE_REQUEST_TIMEOUT_BIT = 42,
};

// SETATTR: what to set: numbers of bits
enum {
    WIRE_FUSE_FATTR_MODE_BIT = 0,
    WIRE_FUSE_FATTR_UID_BIT = 1,
    WIRE_FUSE_FATTR_GID_BIT = 2,
    WIRE_FUSE_FATTR_SIZE_BIT = 3,
    WIRE_FUSE_FATTR_ATIME_BIT = 4,
    WIRE_FUSE_FATTR_MTIME_BIT = 5,
    WIRE_FUSE_FATTR_FH_BIT = 6,
    WIRE_FUSE_FATTR_ATIME_NOW_BIT = 7,
    WIRE_FUSE_FATTR_MTIME_NOW_BIT = 8,
    WIRE_FUSE_FATTR_LOCKOWNER_BIT = 9,
    WIRE_FUSE_FATTR_CTIME_BIT = 10,
    WIRE_FUSE_FATTR_KILL_SUIDGID_BIT = 11,
};

// Answers to OPEN and CREATE: numbers of bits
enum {
    WIRE_FUSE_FOPEN_DIRECT_IO_BIT = 0,
    WIRE_FUSE_FOPEN_KEEP_CACHE_BIT = 1,
    WIRE_FUSE_FOPEN_NONSEEKABLE_BIT = 2,
    WIRE_FUSE_FOPEN_CACHE_DIR_BIT = 3,
    WIRE_FUSE_FOPEN_STREAM_BIT = 4,
    WIRE_FUSE_FOPEN_NOFLUSH_BIT = 5,
    WIRE_FUSE_FOPEN_PARALLEL_DIRECT_WRITES_BIT = 6,
};

// Flags of requests: numbers of bits
enum {
    WIRE_FUSE_RELEASE_FLUSH_BIT = 0,
    WIRE_FUSE_RELEASE_FLOCK_UNLOCK_BIT = 1,
    WIRE_FUSE_GETATTR_FH_BIT = 0,
    WIRE_FUSE_LK_FLOCK_BIT = 0,
    WIRE_FUSE_WRITE_CACHE_BIT = 0,
    WIRE_FUSE_WRITE_LOCKOWNER_BIT = 1,
    WIRE_FUSE_WRITE_KILL_SUIDGID_BIT = 2,
    WIRE_FUSE_READ_LOCKOWNER_BIT = 1,
    WIRE_FUSE_FSYNC_FDATASYNC_BIT = 0,
    WIRE_FUSE_OPEN_KILL_SUIDGID_BIT = 0,
    WIRE_FUSE_SETXATTR_ACL_KILL_SGID_BIT = 0,
    WIRE_FUSE_EXPIRE_ONLY_BIT = 0,
};

// fuse_attr.flags: numbers of bits
enum {
    WIRE_FUSE_ATTR_SUBMOUNT_BIT = 0,
    WIRE_FUSE_ATTR_DAX_BIT = 1,
};

// Extensions of a request, behind its names; a type below 32 is the number of security contexts (7.36)
enum { WIRE_FUSE_MAX_NR_SECCTX = 31, WIRE_FUSE_EXT_GROUPS = 32 };

/// FUSE_UNIQUE_RESEND: this bit of `unique` says that the request was sent before (7.40).
#define WIRE_FUSE_UNIQUE_RESEND (1ull << 63)

struct wire_fuse_attr {
    uint64_t ino, size, blocks, atime, mtime, ctime;
    uint32_t atimensec, mtimensec, ctimensec, mode, nlink, uid, gid, rdev, blksize, flags;
};
struct wire_fuse_kstatfs {
    uint64_t blocks, bfree, bavail, files, ffree;
    uint32_t bsize, namelen, frsize, padding, spare[6];
};
struct wire_fuse_file_lock {
    uint64_t start, end;
    uint32_t type, pid;
};
struct wire_fuse_entry_out {
    uint64_t nodeid, generation, entry_valid, attr_valid;
    uint32_t entry_valid_nsec, attr_valid_nsec;
    struct wire_fuse_attr attr;
};
struct wire_fuse_forget_in { uint64_t nlookup; };
struct wire_fuse_forget_one { uint64_t nodeid; uint64_t nlookup; };
struct wire_fuse_batch_forget_in { uint32_t count; uint32_t dummy; };
struct wire_fuse_getattr_in { uint32_t getattr_flags; uint32_t dummy; uint64_t fh; };
struct wire_fuse_attr_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec, dummy;
    struct wire_fuse_attr attr;
};
struct wire_fuse_mknod_in {
    uint32_t mode, rdev, umask, padding;
};
struct wire_fuse_mkdir_in { uint32_t mode; uint32_t umask; };
struct wire_fuse_rename_in { uint64_t newdir; };
struct wire_fuse_rename2_in { uint64_t newdir; uint32_t flags; uint32_t padding; };
struct wire_fuse_link_in { uint64_t oldnodeid; };
struct wire_fuse_setattr_in {
    uint32_t valid, padding;
    uint64_t fh, size, lock_owner, atime, mtime, ctime;
    uint32_t atimensec, mtimensec, ctimensec, mode, unused4, uid, gid, unused5;
};
struct wire_fuse_open_in { uint32_t flags; uint32_t open_flags; };
struct wire_fuse_create_in {
    uint32_t flags, mode, umask, open_flags;
};
struct wire_fuse_open_out { uint64_t fh; uint32_t open_flags; uint32_t padding; };
struct wire_fuse_release_in {
    uint64_t fh;
    uint32_t flags, release_flags;
    uint64_t lock_owner;
};
struct wire_fuse_flush_in {
    uint64_t fh;
    uint32_t unused, padding;
    uint64_t lock_owner;
};
struct wire_fuse_read_in {
    uint64_t fh, offset;
    uint32_t size, read_flags;
    uint64_t lock_owner;
    uint32_t flags, padding;
};
struct wire_fuse_write_in {
    uint64_t fh, offset;
    uint32_t size, write_flags;
    uint64_t lock_owner;
    uint32_t flags, padding;
};
struct wire_fuse_write_out { uint32_t size; uint32_t padding; };
struct wire_fuse_statfs_out { struct wire_fuse_kstatfs st; };
struct wire_fuse_fsync_in { uint64_t fh; uint32_t fsync_flags; uint32_t padding; };
struct wire_fuse_setxattr_in {
    uint32_t size, flags, setxattr_flags, padding;
};
struct wire_fuse_getxattr_in { uint32_t size; uint32_t padding; };
struct wire_fuse_getxattr_out { uint32_t size; uint32_t padding; };
struct wire_fuse_lk_in {
    uint64_t fh, owner;
    struct wire_fuse_file_lock lk;
    uint32_t lk_flags, padding;
};
struct wire_fuse_lk_out { struct wire_fuse_file_lock lk; };
struct wire_fuse_access_in { uint32_t mask; uint32_t padding; };
struct wire_fuse_init_in {
    uint32_t major, minor, max_readahead, flags, flags2, unused[11];
};
struct wire_fuse_init_out {
    uint32_t major, minor, max_readahead, flags;
    uint16_t max_background, congestion_threshold;
    uint32_t max_write, time_gran;
    uint16_t max_pages, map_alignment;
    uint32_t flags2, unused[7];
};
struct wire_fuse_interrupt_in { uint64_t unique; };
struct wire_fuse_ioctl_in {
    uint64_t fh;
    uint32_t flags, cmd;
    uint64_t arg;
    uint32_t in_size, out_size;
};
struct wire_fuse_fallocate_in {
    uint64_t fh, offset, length;
    uint32_t mode, padding;
};
struct wire_fuse_in_header {
    uint32_t len, opcode;
    uint64_t unique, nodeid;
    uint32_t uid, gid, pid;
    uint16_t total_extlen, padding;
};
struct wire_fuse_out_header { uint32_t len; int32_t error; uint64_t unique; };
/// Followed by the name, without a NUL, padded.
struct wire_fuse_dirent {
    uint64_t ino, off;
    uint32_t namelen, type;
};
struct wire_fuse_direntplus { struct wire_fuse_entry_out entry_out; struct wire_fuse_dirent dirent; };
struct wire_fuse_notify_inval_inode_out { uint64_t ino; int64_t off; int64_t len; };
struct wire_fuse_notify_inval_entry_out { uint64_t parent; uint32_t namelen; uint32_t flags; };
struct wire_fuse_notify_delete_out {
    uint64_t parent, child;
    uint32_t namelen, padding;
};
struct wire_fuse_lseek_in {
    uint64_t fh, offset;
    uint32_t whence, padding;
};
struct wire_fuse_lseek_out { uint64_t offset; };
struct wire_fuse_copy_file_range_in {
    uint64_t fh_in, off_in, nodeid_out, fh_out, off_out, len, flags;
};
struct wire_fuse_syncfs_in { uint64_t padding; };
/// Followed by the name of a security context with its NUL, and the context.
struct wire_fuse_secctx { uint32_t size; uint32_t padding; };
struct wire_fuse_secctx_header { uint32_t size; uint32_t nr_secctx; };
struct wire_fuse_ext_header { uint32_t size; uint32_t type; };
/// Behind wire_fuse_ext_header of type EXT_GROUPS; nr_groups numbers of 32 bits follow (7.38).
struct wire_fuse_supp_groups { uint32_t nr_groups; };
struct wire_fuse_sx_time { int64_t tv_sec; uint32_t tv_nsec; int32_t __reserved; };
struct wire_fuse_statx {
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, __spare0[1];
    uint64_t ino, size, blocks, attributes_mask;
    struct wire_fuse_sx_time atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t __spare2[14];
};
/// STATX (7.39).
struct wire_fuse_statx_in {
    uint32_t getattr_flags, reserved;
    uint64_t fh;
    uint32_t sx_flags, sx_mask;
};
struct wire_fuse_statx_out {
    uint64_t attr_valid;
    uint32_t attr_valid_nsec, flags;
    uint64_t spare[2];
    struct wire_fuse_statx stat;
};

_Static_assert(sizeof(struct wire_fuse_attr) == 88, "attr");
_Static_assert(sizeof(struct wire_fuse_kstatfs) == 80, "kstatfs");
_Static_assert(sizeof(struct wire_fuse_file_lock) == 24, "file_lock");
_Static_assert(sizeof(struct wire_fuse_entry_out) == 128, "entry_out");
_Static_assert(sizeof(struct wire_fuse_forget_in) == 8, "forget_in");
_Static_assert(sizeof(struct wire_fuse_forget_one) == 16, "forget_one");
_Static_assert(sizeof(struct wire_fuse_batch_forget_in) == 8, "batch_forget_in");
_Static_assert(sizeof(struct wire_fuse_getattr_in) == 16, "getattr_in");
_Static_assert(sizeof(struct wire_fuse_attr_out) == 104, "attr_out");
_Static_assert(sizeof(struct wire_fuse_mknod_in) == 16, "mknod_in");
_Static_assert(sizeof(struct wire_fuse_mkdir_in) == 8, "mkdir_in");
_Static_assert(sizeof(struct wire_fuse_rename_in) == 8, "rename_in");
_Static_assert(sizeof(struct wire_fuse_rename2_in) == 16, "rename2_in");
_Static_assert(sizeof(struct wire_fuse_link_in) == 8, "link_in");
_Static_assert(sizeof(struct wire_fuse_setattr_in) == 88, "setattr_in");
_Static_assert(sizeof(struct wire_fuse_open_in) == 8, "open_in");
_Static_assert(sizeof(struct wire_fuse_create_in) == 16, "create_in");
_Static_assert(sizeof(struct wire_fuse_open_out) == 16, "open_out");
_Static_assert(sizeof(struct wire_fuse_release_in) == 24, "release_in");
_Static_assert(sizeof(struct wire_fuse_flush_in) == 24, "flush_in");
_Static_assert(sizeof(struct wire_fuse_read_in) == 40, "read_in");
_Static_assert(sizeof(struct wire_fuse_write_in) == 40, "write_in");
_Static_assert(sizeof(struct wire_fuse_write_out) == 8, "write_out");
_Static_assert(sizeof(struct wire_fuse_statfs_out) == 80, "statfs_out");
_Static_assert(sizeof(struct wire_fuse_fsync_in) == 16, "fsync_in");
_Static_assert(sizeof(struct wire_fuse_setxattr_in) == 16, "setxattr_in");
_Static_assert(sizeof(struct wire_fuse_getxattr_in) == 8, "getxattr_in");
_Static_assert(sizeof(struct wire_fuse_getxattr_out) == 8, "getxattr_out");
_Static_assert(sizeof(struct wire_fuse_lk_in) == 48, "lk_in");
_Static_assert(sizeof(struct wire_fuse_lk_out) == 24, "lk_out");
_Static_assert(sizeof(struct wire_fuse_access_in) == 8, "access_in");
_Static_assert(sizeof(struct wire_fuse_init_in) == 64, "init_in");
_Static_assert(sizeof(struct wire_fuse_init_out) == 64, "init_out");
_Static_assert(sizeof(struct wire_fuse_interrupt_in) == 8, "interrupt_in");
_Static_assert(sizeof(struct wire_fuse_ioctl_in) == 32, "ioctl_in");
_Static_assert(sizeof(struct wire_fuse_fallocate_in) == 32, "fallocate_in");
_Static_assert(sizeof(struct wire_fuse_in_header) == 40, "in_header");
_Static_assert(sizeof(struct wire_fuse_out_header) == 16, "out_header");
_Static_assert(sizeof(struct wire_fuse_dirent) == 24, "dirent");
_Static_assert(sizeof(struct wire_fuse_direntplus) == 152, "direntplus");
_Static_assert(sizeof(struct wire_fuse_notify_inval_inode_out) == 24, "notify_inval_inode_out");
_Static_assert(sizeof(struct wire_fuse_notify_inval_entry_out) == 16, "notify_inval_entry_out");
_Static_assert(sizeof(struct wire_fuse_notify_delete_out) == 24, "notify_delete_out");
_Static_assert(sizeof(struct wire_fuse_lseek_in) == 24, "lseek_in");
_Static_assert(sizeof(struct wire_fuse_lseek_out) == 8, "lseek_out");
_Static_assert(sizeof(struct wire_fuse_copy_file_range_in) == 56, "copy_file_range_in");
_Static_assert(sizeof(struct wire_fuse_syncfs_in) == 8, "syncfs_in");
_Static_assert(sizeof(struct wire_fuse_secctx) == 8, "secctx");
_Static_assert(sizeof(struct wire_fuse_secctx_header) == 8, "secctx_header");
_Static_assert(sizeof(struct wire_fuse_ext_header) == 8, "ext_header");
_Static_assert(sizeof(struct wire_fuse_supp_groups) == 4, "supp_groups");
_Static_assert(sizeof(struct wire_fuse_sx_time) == 16, "sx_time");
_Static_assert(sizeof(struct wire_fuse_statx) == 256, "statx");
_Static_assert(sizeof(struct wire_fuse_statx_in) == 24, "statx_in");
_Static_assert(sizeof(struct wire_fuse_statx_out) == 288, "statx_out");

_Static_assert(offsetof(struct wire_fuse_attr, mode) == 60, "attr.mode");
_Static_assert(offsetof(struct wire_fuse_attr, flags) == 84, "attr.flags");
_Static_assert(offsetof(struct wire_fuse_entry_out, attr) == 40, "entry_out.attr");
_Static_assert(offsetof(struct wire_fuse_attr_out, attr) == 16, "attr_out.attr");
_Static_assert(offsetof(struct wire_fuse_setattr_in, mode) == 68, "setattr_in.mode");
_Static_assert(offsetof(struct wire_fuse_setattr_in, gid) == 80, "setattr_in.gid");
_Static_assert(offsetof(struct wire_fuse_setattr_in, ctime) == 48, "setattr_in.ctime");
_Static_assert(offsetof(struct wire_fuse_read_in, flags) == 32, "read_in.flags");
_Static_assert(offsetof(struct wire_fuse_write_in, size) == 16, "write_in.size");
_Static_assert(offsetof(struct wire_fuse_write_in, flags) == 32, "write_in.flags");
_Static_assert(offsetof(struct wire_fuse_lk_in, lk) == 16, "lk_in.lk");
_Static_assert(offsetof(struct wire_fuse_lk_in, lk_flags) == 40, "lk_in.lk_flags");
_Static_assert(offsetof(struct wire_fuse_init_in, flags2) == 16, "init_in.flags2");
_Static_assert(offsetof(struct wire_fuse_init_out, max_write) == 20, "init_out.max_write");
_Static_assert(offsetof(struct wire_fuse_init_out, max_pages) == 28, "init_out.max_pages");
_Static_assert(offsetof(struct wire_fuse_init_out, flags2) == 32, "init_out.flags2");
_Static_assert(offsetof(struct wire_fuse_in_header, nodeid) == 16, "in_header.nodeid");
_Static_assert(offsetof(struct wire_fuse_in_header, total_extlen) == 36, "in_header.total_extlen");
_Static_assert(offsetof(struct wire_fuse_out_header, unique) == 8, "out_header.unique");
_Static_assert(offsetof(struct wire_fuse_direntplus, dirent) == 128, "direntplus.dirent");
_Static_assert(offsetof(struct wire_fuse_statx, ino) == 32, "statx.ino");
_Static_assert(offsetof(struct wire_fuse_statx, atime) == 64, "statx.atime");
_Static_assert(offsetof(struct wire_fuse_statx, rdev_major) == 128, "statx.rdev_major");
_Static_assert(offsetof(struct wire_fuse_statx_out, stat) == 32, "statx_out.stat");
