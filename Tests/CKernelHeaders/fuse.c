#include "CKernelHeaders.h"
#include <CWire.h>
#include <linux/fuse.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>

#define NUMBER(name) { #name, WIRE_##name, name }
#define BIT(name) { "FUSE_" #name, 1ll << WIRE_FUSE_##name##_BIT, (long long)(uint64_t)FUSE_##name }
#define BIT_AS(name) { #name, 1ll << WIRE_FUSE_##name##_BIT, (long long)(uint64_t)name }
#define SIZE(name) { "sizeof fuse_" #name, sizeof(struct wire_fuse_##name), sizeof(struct fuse_##name) }
#define FIELD(name, field) \
    { "fuse_" #name "." #field, offsetof(struct wire_fuse_##name, field), offsetof(struct fuse_##name, field) }

// Debian 12's header speaks 7.38: what came later is compared where the header has it.
static const struct kernel_comparison comparisons[] = {
    NUMBER(FUSE_ROOT_ID), NUMBER(FUSE_KERNEL_VERSION), NUMBER(FUSE_MIN_READ_BUFFER),
    { "FUSE_NAME_OFFSET", WIRE_FUSE_NAME_OFFSET, FUSE_NAME_OFFSET },
    { "FUSE_NAME_OFFSET_DIRENTPLUS", WIRE_FUSE_NAME_OFFSET_DIRENTPLUS, FUSE_NAME_OFFSET_DIRENTPLUS },
    NUMBER(FUSE_MAX_NR_SECCTX),
    NUMBER(FUSE_LOOKUP), NUMBER(FUSE_FORGET), NUMBER(FUSE_GETATTR), NUMBER(FUSE_SETATTR), NUMBER(FUSE_READLINK),
    NUMBER(FUSE_SYMLINK), NUMBER(FUSE_MKNOD), NUMBER(FUSE_MKDIR), NUMBER(FUSE_UNLINK), NUMBER(FUSE_RMDIR),
    NUMBER(FUSE_RENAME), NUMBER(FUSE_LINK), NUMBER(FUSE_OPEN), NUMBER(FUSE_READ), NUMBER(FUSE_WRITE),
    NUMBER(FUSE_STATFS), NUMBER(FUSE_RELEASE), NUMBER(FUSE_FSYNC), NUMBER(FUSE_SETXATTR), NUMBER(FUSE_GETXATTR),
    NUMBER(FUSE_LISTXATTR), NUMBER(FUSE_REMOVEXATTR), NUMBER(FUSE_FLUSH), NUMBER(FUSE_INIT), NUMBER(FUSE_OPENDIR),
    NUMBER(FUSE_READDIR), NUMBER(FUSE_RELEASEDIR), NUMBER(FUSE_FSYNCDIR), NUMBER(FUSE_GETLK), NUMBER(FUSE_SETLK),
    NUMBER(FUSE_SETLKW), NUMBER(FUSE_ACCESS), NUMBER(FUSE_CREATE), NUMBER(FUSE_INTERRUPT), NUMBER(FUSE_BMAP),
    NUMBER(FUSE_DESTROY), NUMBER(FUSE_IOCTL), NUMBER(FUSE_POLL), NUMBER(FUSE_NOTIFY_REPLY), NUMBER(FUSE_BATCH_FORGET),
    NUMBER(FUSE_FALLOCATE), NUMBER(FUSE_READDIRPLUS), NUMBER(FUSE_RENAME2), NUMBER(FUSE_LSEEK),
    NUMBER(FUSE_COPY_FILE_RANGE), NUMBER(FUSE_SETUPMAPPING), NUMBER(FUSE_REMOVEMAPPING), NUMBER(FUSE_SYNCFS),
    NUMBER(FUSE_TMPFILE), NUMBER(FUSE_NOTIFY_POLL), NUMBER(FUSE_NOTIFY_INVAL_INODE), NUMBER(FUSE_NOTIFY_INVAL_ENTRY),
    NUMBER(FUSE_NOTIFY_STORE), NUMBER(FUSE_NOTIFY_RETRIEVE), NUMBER(FUSE_NOTIFY_DELETE), BIT(ASYNC_READ),
    BIT(POSIX_LOCKS), BIT(FILE_OPS), BIT(ATOMIC_O_TRUNC), BIT(EXPORT_SUPPORT), BIT(BIG_WRITES), BIT(DONT_MASK),
    BIT(SPLICE_WRITE), BIT(SPLICE_MOVE), BIT(SPLICE_READ), BIT(FLOCK_LOCKS), BIT(HAS_IOCTL_DIR), BIT(AUTO_INVAL_DATA),
    BIT(DO_READDIRPLUS), BIT(READDIRPLUS_AUTO), BIT(ASYNC_DIO), BIT(WRITEBACK_CACHE), BIT(NO_OPEN_SUPPORT),
    BIT(PARALLEL_DIROPS), BIT(HANDLE_KILLPRIV), BIT(POSIX_ACL), BIT(ABORT_ERROR), BIT(MAX_PAGES), BIT(CACHE_SYMLINKS),
    BIT(NO_OPENDIR_SUPPORT), BIT(EXPLICIT_INVAL_DATA), BIT(MAP_ALIGNMENT), BIT(SUBMOUNTS), BIT(HANDLE_KILLPRIV_V2),
    BIT(SETXATTR_EXT), BIT(INIT_EXT), BIT(SECURITY_CTX), BIT(HAS_INODE_DAX), BIT(HAS_EXPIRE_ONLY), BIT_AS(FATTR_MODE),
    BIT_AS(FATTR_UID), BIT_AS(FATTR_GID), BIT_AS(FATTR_SIZE), BIT_AS(FATTR_ATIME), BIT_AS(FATTR_MTIME),
    BIT_AS(FATTR_FH), BIT_AS(FATTR_ATIME_NOW), BIT_AS(FATTR_MTIME_NOW), BIT_AS(FATTR_LOCKOWNER), BIT_AS(FATTR_CTIME),
    BIT_AS(FATTR_KILL_SUIDGID), BIT_AS(FOPEN_DIRECT_IO), BIT_AS(FOPEN_KEEP_CACHE), BIT_AS(FOPEN_NONSEEKABLE),
    BIT_AS(FOPEN_CACHE_DIR), BIT_AS(FOPEN_STREAM), BIT_AS(FOPEN_NOFLUSH), BIT_AS(FOPEN_PARALLEL_DIRECT_WRITES),
    BIT(RELEASE_FLUSH), BIT(RELEASE_FLOCK_UNLOCK), BIT(GETATTR_FH), BIT(LK_FLOCK), BIT(WRITE_CACHE),
    BIT(WRITE_LOCKOWNER), BIT(WRITE_KILL_SUIDGID), BIT(READ_LOCKOWNER), BIT(FSYNC_FDATASYNC), BIT(OPEN_KILL_SUIDGID),
    BIT(SETXATTR_ACL_KILL_SGID), BIT(EXPIRE_ONLY), BIT(ATTR_SUBMOUNT), BIT(ATTR_DAX), SIZE(attr), SIZE(kstatfs),
    SIZE(file_lock), SIZE(entry_out), SIZE(forget_in), SIZE(forget_one), SIZE(batch_forget_in), SIZE(getattr_in),
    SIZE(attr_out), SIZE(mknod_in), SIZE(mkdir_in), SIZE(rename_in), SIZE(rename2_in), SIZE(link_in),
    SIZE(setattr_in), SIZE(open_in), SIZE(create_in), SIZE(open_out), SIZE(release_in), SIZE(flush_in), SIZE(read_in),
    SIZE(write_in), SIZE(write_out), SIZE(statfs_out), SIZE(fsync_in), SIZE(setxattr_in), SIZE(getxattr_in),
    SIZE(getxattr_out), SIZE(lk_in), SIZE(lk_out), SIZE(access_in), SIZE(init_in), SIZE(init_out), SIZE(interrupt_in),
    SIZE(ioctl_in), SIZE(fallocate_in), SIZE(in_header), SIZE(out_header), SIZE(dirent), SIZE(direntplus),
    SIZE(notify_inval_inode_out), SIZE(notify_inval_entry_out), SIZE(notify_delete_out), SIZE(lseek_in),
    SIZE(lseek_out), SIZE(copy_file_range_in), SIZE(syncfs_in), SIZE(secctx), SIZE(secctx_header), SIZE(ext_header),
    FIELD(attr, ino), FIELD(attr, size), FIELD(attr, blocks), FIELD(attr, atime), FIELD(attr, mtime),
    FIELD(attr, ctime), FIELD(attr, atimensec), FIELD(attr, mtimensec), FIELD(attr, ctimensec), FIELD(attr, mode),
    FIELD(attr, nlink), FIELD(attr, uid), FIELD(attr, gid), FIELD(attr, rdev), FIELD(attr, blksize),
    FIELD(attr, flags), FIELD(kstatfs, blocks), FIELD(kstatfs, bfree), FIELD(kstatfs, bavail), FIELD(kstatfs, files),
    FIELD(kstatfs, ffree), FIELD(kstatfs, bsize), FIELD(kstatfs, namelen), FIELD(kstatfs, frsize),
    FIELD(file_lock, start), FIELD(file_lock, end), FIELD(file_lock, type), FIELD(file_lock, pid),
    FIELD(entry_out, nodeid), FIELD(entry_out, generation), FIELD(entry_out, entry_valid),
    FIELD(entry_out, attr_valid), FIELD(entry_out, entry_valid_nsec), FIELD(entry_out, attr_valid_nsec),
    FIELD(entry_out, attr), FIELD(forget_in, nlookup), FIELD(forget_one, nodeid), FIELD(forget_one, nlookup),
    FIELD(batch_forget_in, count), FIELD(getattr_in, getattr_flags), FIELD(getattr_in, fh),
    FIELD(attr_out, attr_valid), FIELD(attr_out, attr_valid_nsec), FIELD(attr_out, attr), FIELD(mknod_in, mode),
    FIELD(mknod_in, rdev), FIELD(mknod_in, umask), FIELD(mkdir_in, mode), FIELD(mkdir_in, umask),
    FIELD(rename_in, newdir), FIELD(rename2_in, newdir), FIELD(rename2_in, flags), FIELD(link_in, oldnodeid),
    FIELD(setattr_in, valid), FIELD(setattr_in, fh), FIELD(setattr_in, size), FIELD(setattr_in, lock_owner),
    FIELD(setattr_in, atime), FIELD(setattr_in, mtime), FIELD(setattr_in, ctime), FIELD(setattr_in, atimensec),
    FIELD(setattr_in, mtimensec), FIELD(setattr_in, ctimensec), FIELD(setattr_in, mode), FIELD(setattr_in, uid),
    FIELD(setattr_in, gid), FIELD(open_in, flags), FIELD(open_in, open_flags), FIELD(create_in, flags),
    FIELD(create_in, mode), FIELD(create_in, umask), FIELD(create_in, open_flags), FIELD(open_out, fh),
    FIELD(open_out, open_flags), FIELD(release_in, fh), FIELD(release_in, flags), FIELD(release_in, release_flags),
    FIELD(release_in, lock_owner), FIELD(flush_in, fh), FIELD(flush_in, lock_owner), FIELD(read_in, fh),
    FIELD(read_in, offset), FIELD(read_in, size), FIELD(read_in, read_flags), FIELD(read_in, lock_owner),
    FIELD(read_in, flags), FIELD(write_in, fh), FIELD(write_in, offset), FIELD(write_in, size),
    FIELD(write_in, write_flags), FIELD(write_in, lock_owner), FIELD(write_in, flags), FIELD(write_out, size),
    FIELD(statfs_out, st), FIELD(fsync_in, fh), FIELD(fsync_in, fsync_flags), FIELD(setxattr_in, size),
    FIELD(setxattr_in, flags), FIELD(setxattr_in, setxattr_flags), FIELD(getxattr_in, size),
    FIELD(getxattr_out, size), FIELD(lk_in, fh), FIELD(lk_in, owner), FIELD(lk_in, lk), FIELD(lk_in, lk_flags),
    FIELD(lk_out, lk), FIELD(access_in, mask), FIELD(init_in, major), FIELD(init_in, minor),
    FIELD(init_in, max_readahead), FIELD(init_in, flags), FIELD(init_in, flags2), FIELD(init_out, major),
    FIELD(init_out, minor), FIELD(init_out, max_readahead), FIELD(init_out, flags), FIELD(init_out, max_background),
    FIELD(init_out, congestion_threshold), FIELD(init_out, max_write), FIELD(init_out, time_gran),
    FIELD(init_out, max_pages), FIELD(init_out, map_alignment), FIELD(init_out, flags2), FIELD(interrupt_in, unique),
    FIELD(ioctl_in, fh), FIELD(ioctl_in, flags), FIELD(ioctl_in, cmd), FIELD(ioctl_in, arg), FIELD(ioctl_in, in_size),
    FIELD(ioctl_in, out_size), FIELD(fallocate_in, fh), FIELD(fallocate_in, offset), FIELD(fallocate_in, length),
    FIELD(fallocate_in, mode), FIELD(in_header, len), FIELD(in_header, opcode), FIELD(in_header, unique),
    FIELD(in_header, nodeid), FIELD(in_header, uid), FIELD(in_header, gid), FIELD(in_header, pid),
    FIELD(in_header, total_extlen), FIELD(out_header, len), FIELD(out_header, error), FIELD(out_header, unique),
    FIELD(dirent, ino), FIELD(dirent, off), FIELD(dirent, namelen), FIELD(dirent, type), FIELD(direntplus, entry_out),
    FIELD(direntplus, dirent), FIELD(notify_inval_inode_out, ino), FIELD(notify_inval_inode_out, off),
    FIELD(notify_inval_inode_out, len), FIELD(notify_inval_entry_out, parent), FIELD(notify_inval_entry_out, namelen),
    FIELD(notify_inval_entry_out, flags), FIELD(notify_delete_out, parent), FIELD(notify_delete_out, child),
    FIELD(notify_delete_out, namelen), FIELD(lseek_in, fh), FIELD(lseek_in, offset), FIELD(lseek_in, whence),
    FIELD(lseek_out, offset), FIELD(copy_file_range_in, fh_in), FIELD(copy_file_range_in, off_in),
    FIELD(copy_file_range_in, nodeid_out), FIELD(copy_file_range_in, fh_out), FIELD(copy_file_range_in, off_out),
    FIELD(copy_file_range_in, len), FIELD(copy_file_range_in, flags), FIELD(secctx, size), FIELD(secctx_header, size),
    FIELD(secctx_header, nr_secctx), FIELD(ext_header, size), FIELD(ext_header, type),
    { "virtio_fs_config", sizeof(struct wire_virtio_fs_config), sizeof(struct virtio_fs_config) },
    { "virtio_fs_config.num_request_queues", offsetof(struct wire_virtio_fs_config, num_request_queues),
      offsetof(struct virtio_fs_config, num_request_queues) },
    NUMBER(VIRTIO_ID_FS),
#if FUSE_KERNEL_MINOR_VERSION >= 40
    NUMBER(FUSE_STATX), NUMBER(FUSE_EXT_GROUPS), NUMBER(FUSE_NOTIFY_RESEND),
    SIZE(statx_in), SIZE(statx_out), SIZE(statx), SIZE(supp_groups), FIELD(statx, ino), FIELD(statx, atime),
    FIELD(statx, rdev_major), FIELD(statx_out, stat), FIELD(statx_in, sx_mask),
    BIT(CREATE_SUPP_GROUP), BIT(DIRECT_IO_ALLOW_MMAP), BIT(PASSTHROUGH), BIT(NO_EXPORT_SUPPORT), BIT(HAS_RESEND),
#endif
};

struct kernel_comparison fuse_comparison_at(size_t index) {
    static const struct kernel_comparison end;
    return index < sizeof comparisons / sizeof *comparisons ? comparisons[index] : end;
}
