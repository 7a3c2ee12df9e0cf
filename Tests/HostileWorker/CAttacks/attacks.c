#define _GNU_SOURCE
#include "attacks.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

// Asks an inherited ring for an operation: a filter of system calls would not see it. Returns the completion's result.
static long through_ring(int ring, const unsigned char parameters[120], unsigned char operation) {
    struct io_uring_params made;
    memcpy(&made, parameters, sizeof made);
    const size_t bytes = 1 << 20;
    char *rings = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
    if (rings == MAP_FAILED) rings = mmap(NULL, made.sq_off.array + made.sq_entries * 4, PROT_READ | PROT_WRITE,
                                          MAP_SHARED, ring, IORING_OFF_SQ_RING);
    struct io_uring_sqe *entries = mmap(NULL, made.sq_entries * sizeof *entries, PROT_READ | PROT_WRITE, MAP_SHARED,
                                        ring, IORING_OFF_SQES);
    if (rings == MAP_FAILED || entries == MAP_FAILED) return -errno;
    _Atomic(uint32_t) *tail = (_Atomic(uint32_t) *)(rings + made.sq_off.tail);
    const uint32_t place = *tail & (made.sq_entries - 1);
    memset(&entries[place], 0, sizeof entries[place]);
    entries[place].opcode = operation;
    entries[place].fd = operation == IORING_OP_SOCKET ? AF_UNIX : AT_FDCWD;
    entries[place].addr = (uint64_t)(uintptr_t)"/etc/passwd";
    ((uint32_t *)(rings + made.sq_off.array))[place] = place;
    atomic_fetch_add(tail, 1);
    if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) return -errno;
    const uint32_t head = *(_Atomic(uint32_t) *)(rings + made.cq_off.head);
    const struct io_uring_cqe *done = (const struct io_uring_cqe *)(rings + made.cq_off.cqes);
    return done[head & (made.cq_entries - 1)].res;
}

// Stand for what is known at run time.
enum { RING = -1001, SIBLING = -1002, SCRATCH = -1003, PATH = -1004 };

struct call {
    const char *name;
    int number;
    int arguments[5];
    const char *path;
};

static const struct call calls[] = {
    {"open", SYS_openat, {AT_FDCWD, PATH, O_RDWR}, "/proc/self/mem"},
    {"open-tree", SYS_open_tree, {AT_FDCWD, PATH}, "/"},
    {"open-by-handle", SYS_open_by_handle_at, {AT_FDCWD}, NULL},
    {"readlink", SYS_readlinkat, {AT_FDCWD, PATH, SCRATCH, 16}, "/proc/self/exe"},
    {"socket", SYS_socket, {AF_UNIX, SOCK_STREAM}, NULL},
    {"connect", SYS_connect, {0}, NULL},
    {"ptrace", SYS_ptrace, {16 /* PTRACE_ATTACH */, SIBLING}, NULL},
    {"process-memory", SYS_process_vm_readv, {SIBLING}, NULL},
    {"kill", SYS_kill, {SIBLING, SIGKILL}, NULL},
    {"kill-all", SYS_kill, {-1, SIGKILL}, NULL},
    {"kill-thread", SYS_tgkill, {SIBLING, SIBLING, SIGKILL}, NULL},
    {"pidfd-open", SYS_pidfd_open, {SIBLING}, NULL},
    {"pidfd-getfd", SYS_pidfd_getfd, {0}, NULL},
    {"make-ring", SYS_io_uring_setup, {8, SCRATCH}, NULL},
    {"register", SYS_io_uring_register, {RING, IORING_REGISTER_PROBE}, NULL},
    {"setns", SYS_setns, {0}, NULL},
    {"unshare", SYS_unshare, {CLONE_NEWUSER}, NULL},
    {"mount", SYS_mount, {PATH, PATH}, "/"},
    {"chroot", SYS_chroot, {PATH}, ".."},
    {"fchdir", SYS_fchdir, {0}, NULL},
    {"bpf", SYS_bpf, {0}, NULL},
    {"keyctl", SYS_keyctl, {0}, NULL},
    {"userfaultfd", SYS_userfaultfd, {0}, NULL},
    {"perf", SYS_perf_event_open, {0}, NULL},
    {"execve", SYS_execve, {PATH}, "/bin/sh"},
    {"fork", SYS_clone, {SIGCHLD}, NULL},
    {"clone-namespace", SYS_clone, {CLONE_NEWUSER | SIGCHLD}, NULL},
    {"clone3", SYS_clone3, {0}, NULL},
    {"executable-memory", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1}, NULL},
    {"executable-stack", SYS_mprotect, {SCRATCH, 4096, PROT_READ | PROT_WRITE | PROT_EXEC}, NULL},
    {"dumpable", SYS_prctl, {PR_SET_DUMPABLE, 1}, NULL},
    {"terminal", SYS_ioctl, {2, TIOCSTI}, NULL},
    {"own-signals", SYS_fcntl, {2, F_SETOWN, SIBLING}, NULL},
    {"set-user", SYS_setresuid, {0}, NULL},
    {"other-handler", SYS_rt_sigaction, {SIGSYS, 0, 0, 8}, NULL},
    {"limits", SYS_prlimit64, {0}, NULL},
};
enum { CALL_COUNT = sizeof calls / sizeof calls[0] };

int attack_call(const char *name) {
    for (unsigned i = 0; i < CALL_COUNT; i++)
        if (!strcmp(name, calls[i].name)) return calls[i].number;
    return -1;
}

int attack(const char *name, int ring, const unsigned char parameters[120], int sibling) {
    static char scratch[8192] __attribute__((aligned(4096)));
    if (!strcmp(name, "open-through-ring")) return (int)through_ring(ring, parameters, IORING_OP_OPENAT);
    if (!strcmp(name, "socket-through-ring")) return (int)through_ring(ring, parameters, IORING_OP_SOCKET);
    if (!strcmp(name, "message-through-ring")) return (int)through_ring(ring, parameters, IORING_OP_MSG_RING);
    for (unsigned i = 0; i < CALL_COUNT; i++) {
        long with[5];
        if (strcmp(name, calls[i].name)) continue;
        for (unsigned n = 0; n < 5; n++) {
            switch (calls[i].arguments[n]) {
            case RING: with[n] = ring; break;
            case SIBLING: with[n] = sibling; break;
            case SCRATCH: with[n] = (long)scratch; break;
            case PATH: with[n] = (long)calls[i].path; break;
            default: with[n] = calls[i].arguments[n];
            }
        }
        const long result = syscall(calls[i].number, with[0], with[1], with[2], with[3], with[4]);
        return result < 0 ? -errno : (int)result;
    }
    return INT_MIN;
}
