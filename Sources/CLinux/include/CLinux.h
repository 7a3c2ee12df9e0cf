// What Swift cannot see of Linux: macros with arguments, variadic calls, and calls that glibc hides behind _GNU_SOURCE.
// Every symbol carries the module's prefix. No state, no policy: one call each.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
// liburing's copy, as CLiburing has it: the kernel's own of another version would be a second definition.
#include <liburing/compat.h>
#include <liburing/io_uring.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "fatal_signal.h"
#include "file_system.h"
#include "memory_guard.h"
#include "sandbox.h"
#include "share.h"

// glibc declares these only under _GNU_SOURCE.
extern int dup3(int fd, int number, int flags);
extern int memfd_create(const char *name, unsigned int flags);
extern int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
extern int pipe2(int fds[2], int flags);
extern int fallocate(int fd, int mode, off_t offset, off_t length);

enum {
    CLINUX_O_DIRECT = 040000,
    CLINUX_O_NOATIME = 01000000,
    CLINUX_MFD_CLOEXEC = 1,
    CLINUX_MFD_ALLOW_SEALING = 2,
    CLINUX_F_ADD_SEALS = 1033,
    CLINUX_F_SEAL_SIZE = 1 | 2 | 4,
    CLINUX_MADV_POPULATE_WRITE = 23,
    CLINUX_MSG_NOSIGNAL = 0x4000,
    CLINUX_MSG_CMSG_CLOEXEC = 0x40000000,
    /// The kernel's SCM_MAX_FD: no message carries more.
    CLINUX_MAX_FDS = 253,
};

/// Makes the program's and its libraries' code and data, and some of the calling thread's stack, present in memory.
/// They may be dropped again; nothing is locked.
void clinux_populate_program(void);

extern int pthread_setname_np(unsigned long thread, const char *name);

/// Watches `fd` for input under a token: epoll_event holds a union of pointers, which Swift would call unsafe.
static inline int clinux_epoll_watch(int epoll, int fd, uint64_t token, int edge) {
    struct epoll_event event = {.events = EPOLLIN | (edge ? (uint32_t)EPOLLET : 0), .data.u64 = token};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static inline int clinux_gettid(void) { return (int)syscall(SYS_gettid); }

/// Asks the scheduler to run the calling thread, and those that it starts, in slices of so many nanoseconds:
/// sched_setattr, which glibc lacks. A thread of short slices waits less behind others; its share stays the same.
/// Without effect before Linux 6.12.
static inline int clinux_set_slice(uint64_t nanoseconds) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {0};
    if (syscall(SYS_sched_getattr, 0, &attributes, (unsigned)sizeof attributes, 0) != 0) return -1;
    attributes.size = sizeof attributes;
    attributes.runtime = nanoseconds;
    return (int)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

/// Lets the next clinux_next_option begin with the first argument of another list.
static inline void clinux_restart_options(void) { optind = 0; }

/// getopt_long, with its global results handed back: the value of the option found, and the index of the next argument.
static inline int clinux_next_option(int count, char *const arguments[], const struct option *table, const char **value,
                                     int *next) {
    int code = getopt_long(count, arguments, ":", table, NULL);
    *value = optarg;
    *next = optind;
    return code;
}

/// Pins the calling thread to one CPU: sched_setaffinity, whose CPU_SET is a macro.
static inline int clinux_pin_thread(unsigned cpu) {
    unsigned long mask[64] = {0};
    const unsigned bits = 8 * sizeof mask[0];
    if (cpu >= bits * 64) { errno = EINVAL; return -1; }
    mask[cpu / bits] = 1ul << (cpu % bits);
    return (int)syscall(SYS_sched_setaffinity, 0, sizeof mask, mask);
}

/// connect or bind to a UNIX socket path: sockaddr's casts are noise in Swift. ENAMETOOLONG over 107 bytes.
static inline int clinux_unix_address(const char *path, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path) { errno = ENAMETOOLONG; return -1; }
    strcpy(address->sun_path, path);
    return 0;
}
static inline int clinux_connect(int fd, const char *path) {
    struct sockaddr_un address;
    return clinux_unix_address(path, &address) ? -1 : connect(fd, (struct sockaddr *)&address, sizeof address);
}
static inline int clinux_bind(int fd, const char *path) {
    struct sockaddr_un address;
    return clinux_unix_address(path, &address) ? -1 : bind(fd, (struct sockaddr *)&address, sizeof address);
}

/// Opens what lies at a path, itself and not what it points to, for fstat and /proc/self/fd alone. glibc hides O_PATH.
static inline int clinux_open_path(const char *path) {
    enum { PATH_ONLY = 010000000 };
    return open(path, PATH_ONLY | O_NOFOLLOW | O_CLOEXEC);
}

/// Sends bytes and file descriptors in one message (SCM_RIGHTS). Returns sendmsg's result.
static inline ssize_t clinux_send(int fd, const void *bytes, size_t count, const int *fds, unsigned fd_count) {
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int) * CLINUX_MAX_FDS)]; } control;
    struct iovec part = {(void *)bytes, count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count > CLINUX_MAX_FDS) { errno = EINVAL; return -1; }
    if (fd_count) {
        memset(&control, 0, sizeof control.header);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * fd_count);
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL);
}

/// Receives bytes and file descriptors (close-on-exec). `fds` has room for CLINUX_MAX_FDS; `fd_count` is set to what
/// came. `truncated` is set when the kernel had to drop descriptors. Returns recvmsg's result.
static inline ssize_t clinux_receive(int fd, void *bytes, size_t count, int flags, int *fds, unsigned *fd_count,
                                     int *truncated) {
    union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int) * CLINUX_MAX_FDS)]; } control;
    struct iovec part = {bytes, count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    *fd_count = 0;
    *truncated = 0;
    ssize_t result = recvmsg(fd, &message, flags | CLINUX_MSG_CMSG_CLOEXEC);
    if (result < 0) return result;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        unsigned n = (unsigned)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (unsigned i = 0; i < n; i++) {
            int received;
            memcpy(&received, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
            if (*fd_count < CLINUX_MAX_FDS) fds[(*fd_count)++] = received; else close(received);
        }
    }
    *truncated = (message.msg_flags & MSG_CTRUNC) != 0;
    return result;
}

/// BLKGETSIZE64, BLKSSZGET and BLKPBSZGET: ioctl is variadic.
static inline int clinux_block_device_size(int fd, uint64_t *bytes) { return ioctl(fd, BLKGETSIZE64, bytes); }
static inline int clinux_logical_block_size(int fd, int *bytes) { return ioctl(fd, BLKSSZGET, bytes); }
static inline int clinux_physical_block_size(int fd, unsigned *bytes) { return ioctl(fd, BLKPBSZGET, bytes); }

/// Whether a block device can discard: it is asked for something that it refuses in any case. 0 or 1.
static inline int clinux_can_discard(int fd) {
    // No sector begins at byte 1. A device that cannot discard at all says so first.
    const uint64_t range[2] = {1, 512};
    return ioctl(fd, BLKDISCARD, range) != 0 && errno == EINVAL;
}

/// STATX_DIOALIGN (Linux 6.1): what O_DIRECT asks of offsets and of memory. glibc 2.36's struct statx does not name the
/// fields, so this is the raw call on the kernel's layout. Returns -1 and errno, or 0 with both 0 where the file system
/// does not say.
static inline int clinux_direct_alignment(int fd, uint32_t *memory, uint32_t *offset) {
    union { unsigned char bytes[256]; uint32_t words[64]; } buffer;
    memset(&buffer, 0, sizeof buffer);
    const unsigned mask_dioalign = 0x2000;
    if (syscall(SYS_statx, fd, "", 0x1000 /* AT_EMPTY_PATH */, mask_dioalign, &buffer)) return -1;
    const int told = (buffer.words[0] & mask_dioalign) != 0;
    *memory = told ? buffer.words[0x98 / 4] : 0;
    *offset = told ? buffer.words[0x9c / 4] : 0;
    return 0;
}

/// The raw io_uring_enter: liburing's own is not exported by every version.
static inline int clinux_io_uring_enter(int ring, unsigned submit, unsigned wait, unsigned flags) {
    return (int)syscall(SYS_io_uring_enter, ring, submit, wait, flags, NULL, 0);
}

/// Takes an eventfd's counter back to 0 without waiting, whatever its flags say (RWF_NOWAIT). Returns preadv2's result.
static inline ssize_t clinux_drain_eventfd(int fd) {
    uint64_t value;
    struct iovec part = {&value, sizeof value};
    return syscall(SYS_preadv2, fd, &part, 1, -1l, -1l, 0x8 /* RWF_NOWAIT */);
}

/// Tells the CPU that this is a spin loop.
static inline void clinux_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/// Starts a program (found along PATH) with standard input from /dev/null, standard output and error into `output`, and
/// no signal blocked or ignored. posix_spawn's attribute calls and `environ` are noise in Swift. `inherited` stay open
/// in it under the same numbers (a dup2 onto itself clears close-on-exec); `detached` gives it a session of its own.
/// Returns an error number.
static inline int clinux_spawn(int *pid, const char *program, char *const arguments[], int output, const int *inherited,
                               unsigned inherited_count, int detached) {
    extern char **environ;
    enum { SETSID = 0x80 /* POSIX_SPAWN_SETSID, which glibc hides behind _GNU_SOURCE */ };
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output, 1);
    posix_spawn_file_actions_adddup2(&actions, output, 2);
    for (unsigned i = 0; i < inherited_count; i++)
        posix_spawn_file_actions_adddup2(&actions, inherited[i], inherited[i]);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, (short)(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                                  (detached ? SETSID : 0)));
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    const int result = posix_spawnp(pid, program, &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return result;
}

/// Marks all descriptors but the standard ones close-on-exec (close_range with CLOSE_RANGE_CLOEXEC, Linux 5.11).
static inline int clinux_close_all_on_exec(void) { return (int)syscall(SYS_close_range, 3u, ~0u, 4u); }

/// Sends a signal to the process that a pidfd names, and to no other that has got its number.
static inline int clinux_pidfd_signal(int pidfd, int signal) {
    return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

/// A duplicate of another process's descriptor, close-on-exec: the only way to a kernel ring that somebody else has.
static inline int clinux_pidfd_getfd(int pidfd, int number) {
    return (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
}

/// Whether two descriptors of this process are of one open file (kcmp with KCMP_FILE): 0 if so, -1 and errno when the
/// kernel does not say.
static inline int clinux_same_file(int first, int second) {
    const int process = getpid();
    return (int)syscall(SYS_kcmp, process, process, 0, (unsigned long)first, (unsigned long)second);
}

/// A descriptor that becomes readable when the process ends. glibc 2.36 declares it where Swift does not look.
static inline int clinux_pidfd_open(int pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

/// A mutex in memory that several processes map: it passes on when the thread that holds it dies, however it dies.
_Static_assert(sizeof(pthread_mutex_t) <= 64, "a sentinel has 64 bytes");
static inline int clinux_sentinel_make(void *at) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    const int result = pthread_mutex_init((pthread_mutex_t *)at, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return result;
}
/// Returns 0, EOWNERDEAD (it is the caller's now, and in order again) or another error number.
static inline int clinux_sentinel_lock(void *at) {
    const int result = pthread_mutex_lock((pthread_mutex_t *)at);
    if (result == EOWNERDEAD) pthread_mutex_consistent((pthread_mutex_t *)at);
    return result;
}
static inline int clinux_sentinel_unlock(void *at) { return pthread_mutex_unlock((pthread_mutex_t *)at); }

/// SO_PEERCRED: the process at the other end of a UNIX socket; -1 on failure. glibc hides struct ucred behind
/// _GNU_SOURCE.
static inline int clinux_peer_pid(int fd) {
    struct { int pid; unsigned uid, gid; } credentials = {0};
    socklen_t size = sizeof credentials;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) ? -1 : credentials.pid;
}

/// Open file description locks (F_OFD_SETLK, F_OFD_GETLK) on one byte: fcntl is variadic and glibc hides
/// the numbers behind _GNU_SOURCE. `type` is F_RDLCK, F_WRLCK or F_UNLCK. Returns fcntl's result; for a test 1 means
/// "locked".
/// CLINUX_LOCK_TRY_PROCESS is the older F_SETLK, whose locks belong to the process.
enum { CLINUX_LOCK_TRY_PROCESS = 6, CLINUX_LOCK_TEST = 36, CLINUX_LOCK_TRY = 37 };
static inline int clinux_lock_byte(int fd, int command, short type, int64_t byte) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int result = fcntl(fd, command, &lock);
    return command == CLINUX_LOCK_TEST && result == 0 ? lock.l_type != F_UNLCK : result;
}

/// The process that keeps us from locking a byte with a lock of its own (F_GETLK); 0 when none does or it is in another
/// PID namespace, -1 when an open file description does.
static inline int clinux_lock_holder(int fd, short type, int64_t byte) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    return fcntl(fd, F_GETLK, &lock) || lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

/// The magic number of the file system that a file lies on (statfs.f_type), 0 when it cannot be told.
static inline uint32_t clinux_file_system_magic(int fd) {
    struct statfs information;
    return fstatfs(fd, &information) ? 0 : (uint32_t)information.f_type;
}

/// Makes a kernel ring without mapping it, on which nobody can ever ask for other operations than those named, nor
/// register anything but by one operation of io_uring_register (`registers`; -1: none). With `files`, it has a table of
/// so many open files, empty at first, that operations may name. `parameters` receives
/// struct io_uring_params, which whoever maps it needs. Returns the descriptor (close-on-exec), or -1 and errno.
int clinux_make_ring(unsigned entries, unsigned completions, const unsigned char *operations, unsigned operation_count,
                     unsigned files, int registers, unsigned char parameters[120]);

/// Empties the first two places of a ring's table of files, if it has one and allows that.
void clinux_forget_files(int ring);

/// Whether a kernel ring has something for its user that he has not taken: completions, or work that waits for him to
/// finish it. `rings` is the first page of its mapping at offset 0. Returns 0 for parameters that make no sense.
int clinux_ring_has_work(const void *rings, const unsigned char parameters[120]);

/// A message with at most one descriptor, laid out for sendmsg: struct msghdr first, then what it points to. It stays
/// where it is until it has been sent.
struct clinux_outgoing { uint64_t words[16]; };
static inline void clinux_lay_out(struct clinux_outgoing *out, const void *bytes, size_t count, int fd) {
    struct layout {
        struct msghdr message;
        struct iovec part;
        union { struct cmsghdr header; char space[CMSG_SPACE(sizeof(int))]; } control;
    } *layout = (struct layout *)out;
    _Static_assert(sizeof *layout <= sizeof *out, "room for all of it");
    memset(out, 0, sizeof *out);
    layout->part.iov_base = (void *)bytes;
    layout->part.iov_len = count;
    layout->message.msg_iov = &layout->part;
    layout->message.msg_iovlen = 1;
    if (fd < 0) return;
    layout->message.msg_control = &layout->control;
    layout->message.msg_controllen = CMSG_SPACE(sizeof fd);
    struct cmsghdr *header = CMSG_FIRSTHDR(&layout->message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
}
