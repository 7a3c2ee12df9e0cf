#define _GNU_SOURCE
#include "share.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

// sys/mount.h and linux/mount.h do not go together in every glibc: what is needed of the former.
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);
int umount2(const char *target, int flags);
enum { PRIVATE = 0x40000, PRIVATE_RECURSIVE = 0x4000 | PRIVATE, MOVE = 0x2000, DETACH = 2 };

int clinux_clone_tree(int directory, int read_only) {
    const int tree = (int)syscall(SYS_open_tree, directory, "",
                                  OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
    if (tree < 0) return -1;
    struct mount_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    if (read_only) attributes.attr_set |= MOUNT_ATTR_RDONLY;
    // The copy of a shared mount is shared: what the host mounts there later would come in without these flags, and
    // pivot_root refuses it.
    attributes.propagation = PRIVATE;
    if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes)) {
        const int error = errno;
        close(tree);
        errno = error;
        return -1;
    }
    return tree;
}

int clinux_share_root(int tree) {
    // Any directory serves: it is covered.
    static const char *const places[] = {"/proc", "/tmp", "/dev", "/usr"};
    unsigned i = 0;
    int error = 0;
    if (mount(NULL, "/", NULL, PRIVATE_RECURSIVE, NULL)) return errno;
    for (; i < sizeof places / sizeof places[0]; i++) {
        error = syscall(SYS_move_mount, tree, "", AT_FDCWD, places[i], MOVE_MOUNT_F_EMPTY_PATH) ? errno : 0;
        if (!error) break;
    }
    if (error || chdir(places[i])) return error ? error : errno;
    if (!syscall(SYS_pivot_root, ".", ".")) {
        if (umount2(".", DETACH)) return errno;
    } else if (mount(".", "/", NULL, MOVE, NULL) || chroot(".")) {
        // The file system that the kernel was started with is no mount that could be exchanged: it is covered.
        return errno;
    }
    return chdir("/") ? errno : 0;
}

int clinux_open_process_files(int or_plain) {
    const int tree = (int)syscall(SYS_open_tree, AT_FDCWD, "/proc/self/fd", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree >= 0 || !or_plain) return tree;
    return open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

struct capability {
    unsigned number;
    const char *name;
};
#define CAPABILITY(name) {name, #name}
/// What a worker acts with for the users of its files.
static const struct capability file_capabilities[] = {
    CAPABILITY(CAP_CHOWN),  CAPABILITY(CAP_DAC_OVERRIDE), CAPABILITY(CAP_DAC_READ_SEARCH),
    CAPABILITY(CAP_FOWNER), CAPABILITY(CAP_FSETID),       CAPABILITY(CAP_MKNOD),
    CAPABILITY(CAP_SETFCAP), CAPABILITY(CAP_SETGID),      CAPABILITY(CAP_SETUID),
};
/// Whoever starts it: namespaces and trees of mounts; kernel rings back from a worker that is the host's root.
static const struct capability starting_capabilities[] = {CAPABILITY(CAP_SYS_ADMIN), CAPABILITY(CAP_SYS_PTRACE)};
enum {
    FILE_CAPABILITY_COUNT = sizeof file_capabilities / sizeof file_capabilities[0],
    STARTING_CAPABILITY_COUNT = sizeof starting_capabilities / sizeof starting_capabilities[0],
};

const char *clinux_capability_for_share(unsigned index, int *is_there) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (index >= STARTING_CAPABILITY_COUNT + FILE_CAPABILITY_COUNT) return NULL;
    const struct capability *capability = index < STARTING_CAPABILITY_COUNT
                                              ? &starting_capabilities[index]
                                              : &file_capabilities[index - STARTING_CAPABILITY_COUNT];
    // All of them are among the first 32.
    *is_there = !syscall(SYS_capget, &header, data) && data[0].effective & 1u << capability->number;
    return capability->name;
}

const char *clinux_refused_call_of_share(void) {
    // Neither is carried out: they end at their arguments, if they come as far.
    struct {
        uint32_t byte_count;
        int32_t type;
    } nothing = {0, 0};
    if (syscall(SYS_openat2, -1, "", &nothing, 0) && errno != EINVAL) return "openat2";
    if (syscall(SYS_open_by_handle_at, -1, &nothing, 0) && errno == EPERM) return "open_by_handle_at";
    return NULL;
}

int clinux_keep_file_capabilities(int may_use_handles) {
    uint32_t kept = 0;
    for (unsigned i = 0; i < FILE_CAPABILITY_COUNT; i++) kept |= 1u << file_capabilities[i].number;
    if (!may_use_handles) kept &= ~(1u << CAP_DAC_READ_SEARCH);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data)) return errno;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    // Fails where there is none to drop. What counts is set below.
    for (int number = 0; number < 64; number++) prctl(PR_CAPBSET_DROP, number, 0, 0, 0);
    data[0].permitted &= kept;
    data[0].effective = data[0].permitted;
    data[1].permitted = data[1].effective = 0;
    data[0].inheritable = data[1].inheritable = 0;
    if (syscall(SYS_capset, &header, data)) return errno;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? errno : 0;
}

int clinux_mount_fuse(int device, const char *place, int read_only) {
    enum { READ_ONLY = 1, NOSUID = 2, NODEV = 4 };
    char options[128];
    snprintf(options, sizeof options,
             "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", device);
    return mount("baton", place, "fuse.baton", NOSUID | NODEV | (read_only ? READ_ONLY : 0), options);
}

int clinux_is_fuse_device(int fd) {
    struct stat status;
    return !fstat(fd, &status) && S_ISCHR(status.st_mode) && status.st_rdev == makedev(10, 229);
}

int clinux_make_fuse_mount(int device, const char *source, int read_only) {
    char number[16];
    const int context = (int)syscall(SYS_fsopen, "fuse", FSOPEN_CLOEXEC);
    if (context < 0) return -1;
    snprintf(number, sizeof number, "%d", device);
    const char *const values[][2] = {{"source", source},       {"subtype", "baton"}, {"fd", number},
                                     {"rootmode", "40000"}, {"user_id", "0"},     {"group_id", "0"}};
    const char *const flags[] = {"allow_other", "default_permissions"};
    long result = 0;
    for (unsigned i = 0; i < sizeof values / sizeof values[0] && !result; i++)
        result = syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, values[i][0], values[i][1], 0);
    for (unsigned i = 0; i < sizeof flags / sizeof flags[0] && !result; i++)
        result = syscall(SYS_fsconfig, context, FSCONFIG_SET_FLAG, flags[i], NULL, 0);
    if (!result) result = syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (!result)
        result = syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC,
                         MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (read_only ? MOUNT_ATTR_RDONLY : 0));
    const int error = errno;
    close(context);
    errno = error;
    return (int)result;
}

int clinux_attach_mount(int tree, const char *place) {
    return (int)syscall(SYS_move_mount, tree, "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH);
}

int clinux_unmount_fuse(const char *place) { return umount2(place, DETACH); }
