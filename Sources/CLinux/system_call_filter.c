#define _GNU_SOURCE
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

// What a worker may ask of the kernel after its start, one line each: the call, and what its first arguments must be.
// Everything that is not here ends the process. The list is short enough to be read, and a plain BPF program of it to
// be checked by hand: so there is no library between.

enum condition {
    ALWAYS,
    /// Only in a worker on its own.
    IF_ALONE,
    /// Only in a worker that serves files.
    IF_SHARE,
    /// The same, and the argument is exactly this.
    SHARE_EQUALS,
    /// The argument is exactly this.
    EQUALS,
    /// The argument is this process.
    ITSELF,
    /// None of these bits is set in the argument.
    WITHOUT,
    /// The call does not exist, as far as the worker can tell.
    MISSING,
};

struct rule {
    int call;
    enum condition condition;
    unsigned char argument;
    uint32_t value;
};

#define CALL(name) SYS_##name
// What glibc's pthread_create asks for: a thread of this process, never a process.
#define THREAD_FLAGS 0x3d0f00u
#define EXECUTABLE 4u /* PROT_EXEC */

static const struct rule rules[] = {
    // The data path
    {CALL(io_uring_enter), ALWAYS, 0, 0},
    {CALL(io_uring_register), EQUALS, 1, 6 /* IORING_REGISTER_FILES_UPDATE */},
    {CALL(read), ALWAYS, 0, 0},
    {CALL(write), ALWAYS, 0, 0},
    {CALL(preadv2), ALWAYS, 0, 0},
#if defined(__x86_64__)
    {CALL(epoll_wait), ALWAYS, 0, 0},
    {CALL(poll), ALWAYS, 0, 0},
#endif
    {CALL(epoll_pwait), ALWAYS, 0, 0},
    {CALL(futex), ALWAYS, 0, 0},
    {CALL(clock_gettime), ALWAYS, 0, 0},
    {CALL(clock_nanosleep), ALWAYS, 0, 0},
    {CALL(gettimeofday), ALWAYS, 0, 0},
    {CALL(sched_yield), ALWAYS, 0, 0},
    // To the lowest priority: for what a dead worker still has to clean up
    {CALL(setpriority), EQUALS, 2, 19},
    // Its image: locks, size, what it can do, holes
    {CALL(fcntl), EQUALS, 1, F_DUPFD_CLOEXEC},
    {CALL(fcntl), EQUALS, 1, F_GETFD},
    {CALL(fcntl), EQUALS, 1, F_SETFD},
    {CALL(fcntl), EQUALS, 1, F_GETFL},
    {CALL(fcntl), EQUALS, 1, F_SETFL},
    {CALL(fcntl), EQUALS, 1, F_GETLK},
    {CALL(fcntl), EQUALS, 1, F_SETLK},
    {CALL(fcntl), EQUALS, 1, F_OFD_GETLK},
    {CALL(fcntl), EQUALS, 1, F_OFD_SETLK},
    {CALL(fstat), ALWAYS, 0, 0},
    // As glibc spells fstat: of a descriptor, without a path.
    {CALL(newfstatat), EQUALS, 3, AT_EMPTY_PATH},
    {CALL(statx), EQUALS, 2, AT_EMPTY_PATH},
    {CALL(fstatfs), ALWAYS, 0, 0},
    {CALL(lseek), ALWAYS, 0, 0},
    {CALL(fallocate), ALWAYS, 0, 0},
    {CALL(fsync), ALWAYS, 0, 0},
    {CALL(fdatasync), ALWAYS, 0, 0},
    {CALL(ftruncate), ALWAYS, 0, 0},
    {CALL(pread64), ALWAYS, 0, 0},
    {CALL(pwrite64), ALWAYS, 0, 0},
    {CALL(ioctl), EQUALS, 1, BLKGETSIZE64},
    {CALL(ioctl), EQUALS, 1, BLKSSZGET},
    {CALL(ioctl), EQUALS, 1, BLKPBSZGET},
    {CALL(ioctl), EQUALS, 1, BLKDISCARD},
    // Its sockets, all of them given
    {CALL(recvmsg), ALWAYS, 0, 0},
    {CALL(sendmsg), ALWAYS, 0, 0},
    {CALL(recvfrom), ALWAYS, 0, 0},
    {CALL(sendto), ALWAYS, 0, 0},
    {CALL(getsockopt), ALWAYS, 0, 0},
    {CALL(setsockopt), ALWAYS, 0, 0},
    {CALL(accept4), IF_ALONE, 0, 0},
    // A worker on its own opens its image anew for each time in which it has it, looks at who else has it, and removes
    // its socket at the end: with the rights of its user
    {CALL(openat), IF_ALONE, 0, 0},
    {CALL(newfstatat), IF_ALONE, 0, 0},
    {CALL(statx), IF_ALONE, 0, 0},
    {CALL(readlinkat), IF_ALONE, 0, 0},
    {CALL(getdents64), IF_ALONE, 0, 0},
    {CALL(faccessat), IF_ALONE, 0, 0},
    {CALL(unlinkat), IF_ALONE, 0, 0},
    {CALL(inotify_add_watch), IF_ALONE, 0, 0},
#if defined(__x86_64__)
    {CALL(open), IF_ALONE, 0, 0},
    {CALL(stat), IF_ALONE, 0, 0},
    {CALL(lstat), IF_ALONE, 0, 0},
    {CALL(readlink), IF_ALONE, 0, 0},
    {CALL(access), IF_ALONE, 0, 0},
    {CALL(unlink), IF_ALONE, 0, 0},
#endif
    // The files of a share, all below its root: the process has no other
    {CALL(openat), IF_SHARE, 0, 0},
    {CALL(openat2), IF_SHARE, 0, 0},
    {CALL(open_by_handle_at), IF_SHARE, 0, 0},
    {CALL(name_to_handle_at), IF_SHARE, 0, 0},
    {CALL(newfstatat), IF_SHARE, 0, 0},
    {CALL(statx), IF_SHARE, 0, 0},
    {CALL(readlinkat), IF_SHARE, 0, 0},
    {CALL(mkdirat), IF_SHARE, 0, 0},
    {CALL(mknodat), IF_SHARE, 0, 0},
    {CALL(symlinkat), IF_SHARE, 0, 0},
    {CALL(linkat), IF_SHARE, 0, 0},
    {CALL(unlinkat), IF_SHARE, 0, 0},
    {CALL(renameat2), IF_SHARE, 0, 0},
    {CALL(fchmod), IF_SHARE, 0, 0},
    {CALL(fchmodat), IF_SHARE, 0, 0},
    {452 /* fchmodat2 */, IF_SHARE, 0, 0},
    {CALL(fchown), IF_SHARE, 0, 0},
    {CALL(fchownat), IF_SHARE, 0, 0},
    {CALL(utimensat), IF_SHARE, 0, 0},
    {CALL(faccessat), IF_SHARE, 0, 0},
    {CALL(faccessat2), IF_SHARE, 0, 0},
    {CALL(getdents64), IF_SHARE, 0, 0},
    {CALL(statfs), IF_SHARE, 0, 0},
    {CALL(syncfs), IF_SHARE, 0, 0},
    {CALL(flock), IF_SHARE, 0, 0},
    {CALL(copy_file_range), IF_SHARE, 0, 0},
    {CALL(preadv), IF_SHARE, 0, 0},
    {CALL(pwritev), IF_SHARE, 0, 0},
    {CALL(pwritev2), IF_SHARE, 0, 0},
    {CALL(setxattr), IF_SHARE, 0, 0},
    {CALL(lsetxattr), IF_SHARE, 0, 0},
    {CALL(fsetxattr), IF_SHARE, 0, 0},
    {463 /* setxattrat */, IF_SHARE, 0, 0},
    {CALL(getxattr), IF_SHARE, 0, 0},
    {CALL(lgetxattr), IF_SHARE, 0, 0},
    {CALL(fgetxattr), IF_SHARE, 0, 0},
    {464 /* getxattrat */, IF_SHARE, 0, 0},
    {CALL(listxattr), IF_SHARE, 0, 0},
    {CALL(llistxattr), IF_SHARE, 0, 0},
    {CALL(flistxattr), IF_SHARE, 0, 0},
    {465 /* listxattrat */, IF_SHARE, 0, 0},
    {CALL(removexattr), IF_SHARE, 0, 0},
    {CALL(lremovexattr), IF_SHARE, 0, 0},
    {CALL(fremovexattr), IF_SHARE, 0, 0},
    {466 /* removexattrat */, IF_SHARE, 0, 0},
    {CALL(truncate), IF_SHARE, 0, 0},
    // As whom a thread works on them, or a ring
    {CALL(io_uring_register), SHARE_EQUALS, 1, 9 /* IORING_REGISTER_PERSONALITY */},
    {CALL(setfsuid), IF_SHARE, 0, 0},
    {CALL(setfsgid), IF_SHARE, 0, 0},
    {CALL(setgroups), IF_SHARE, 0, 0},
    {CALL(capget), IF_SHARE, 0, 0},
    {CALL(capset), IF_SHARE, 0, 0},
    {CALL(umask), IF_SHARE, 0, 0},
    {CALL(geteuid), IF_SHARE, 0, 0},
    {CALL(getegid), IF_SHARE, 0, 0},
    {CALL(prlimit64), SHARE_EQUALS, 0, 0},
    {CALL(unshare), SHARE_EQUALS, 0, 0x200 /* CLONE_FS: a umask of its own */},
    // Descriptors
    {CALL(close), ALWAYS, 0, 0},
    {CALL(dup), ALWAYS, 0, 0},
    {CALL(dup3), ALWAYS, 0, 0},
    {CALL(eventfd2), ALWAYS, 0, 0},
    {CALL(epoll_create1), ALWAYS, 0, 0},
    {CALL(epoll_ctl), ALWAYS, 0, 0},
    {CALL(ppoll), ALWAYS, 0, 0},
    {CALL(memfd_create), ALWAYS, 0, 0},
    // Memory, none of which it can execute
    {CALL(mmap), WITHOUT, 2, EXECUTABLE},
    {CALL(mprotect), WITHOUT, 2, EXECUTABLE},
    {CALL(munmap), ALWAYS, 0, 0},
    {CALL(mremap), ALWAYS, 0, 0},
    {CALL(madvise), ALWAYS, 0, 0},
    {CALL(mlock), ALWAYS, 0, 0},
    {CALL(munlock), ALWAYS, 0, 0},
    {CALL(brk), ALWAYS, 0, 0},
    // Threads of its own
    {CALL(clone), EQUALS, 0, THREAD_FLAGS},
    // Its flags are in memory, where no filter sees them: glibc falls back on clone.
    {CALL(clone3), MISSING, 0, 0},
    {CALL(set_robust_list), ALWAYS, 0, 0},
    {CALL(rseq), ALWAYS, 0, 0},
    {CALL(gettid), ALWAYS, 0, 0},
    {CALL(getpid), ALWAYS, 0, 0},
    {CALL(sched_setaffinity), EQUALS, 0, 0},
    {CALL(sched_getaffinity), ALWAYS, 0, 0},
    {CALL(prctl), EQUALS, 0, 15 /* PR_SET_NAME */},
    {CALL(prctl), EQUALS, 0, 0x53564d41 /* PR_SET_VMA: glibc names its memory */},
    // Signals, to itself
    // The handlers of its own faults go back to what they were. Not that of SIGSYS: no other one may take its place.
    {CALL(rt_sigaction), EQUALS, 0, SIGSEGV},
    {CALL(rt_sigaction), EQUALS, 0, SIGBUS},
    {CALL(rt_sigaction), EQUALS, 0, SIGILL},
    {CALL(rt_sigaction), EQUALS, 0, SIGTRAP},
    {CALL(rt_sigaction), EQUALS, 0, SIGABRT},
    {CALL(rt_sigaction), EQUALS, 0, SIGFPE},
    // glibc's own, which it takes up with the first thread
    {CALL(rt_sigaction), EQUALS, 0, 32},
    {CALL(rt_sigaction), EQUALS, 0, 33},
    {CALL(rt_sigprocmask), ALWAYS, 0, 0},
    {CALL(rt_sigreturn), ALWAYS, 0, 0},
    {CALL(sigaltstack), ALWAYS, 0, 0},
    {CALL(tgkill), ITSELF, 0, 0},
    // The rest of a life
    {CALL(getrandom), ALWAYS, 0, 0},
    {CALL(restart_syscall), ALWAYS, 0, 0},
    {CALL(exit), ALWAYS, 0, 0},
    {CALL(exit_group), ALWAYS, 0, 0},
};

enum { RULE_COUNT = sizeof rules / sizeof rules[0] };

#if defined(__x86_64__)
enum { ARCHITECTURE = AUDIT_ARCH_X86_64, LAST_CALL = 0x3fffffff };
#elif defined(__aarch64__)
enum { ARCHITECTURE = AUDIT_ARCH_AARCH64, LAST_CALL = 0x7fffffff };
#endif

static struct sock_filter statement(unsigned short code, uint32_t value) {
    return (struct sock_filter)BPF_STMT(code, value);
}
static struct sock_filter jump(unsigned short code, uint32_t value, unsigned char yes, unsigned char no) {
    return (struct sock_filter)BPF_JUMP(code, value, yes, no);
}

/// Low half of an argument; all of those that are compared have 32 bits.
static uint32_t argument_offset(unsigned number) {
    return (uint32_t)(offsetof(struct seccomp_data, args) + 8 * number);
}

int clinux_filter_calls(int set) {
    struct sock_filter program[8 * RULE_COUNT + 8];
    unsigned short count = 0;
    const unsigned short load = BPF_LD | BPF_W | BPF_ABS, equal = BPF_JMP | BPF_JEQ | BPF_K,
                         above = BPF_JMP | BPF_JGT | BPF_K, bits = BPF_JMP | BPF_JSET | BPF_K, end = BPF_RET | BPF_K;
    program[count++] = statement(load, offsetof(struct seccomp_data, arch));
    program[count++] = jump(equal, ARCHITECTURE, 1, 0);
    program[count++] = statement(end, SECCOMP_RET_KILL_PROCESS);
    program[count++] = statement(load, offsetof(struct seccomp_data, nr));
    // The x32 calls have other numbers.
    program[count++] = jump(above, LAST_CALL, 0, 1);
    program[count++] = statement(end, SECCOMP_RET_KILL_PROCESS);
    const int is_alone = set == CLINUX_CALLS_ALONE || set == CLINUX_CALLS_OF_SHARE_ALONE;
    const int is_share = set == CLINUX_CALLS_OF_SHARE || set == CLINUX_CALLS_OF_SHARE_ALONE;
    for (unsigned i = 0; i < RULE_COUNT; i++) {
        const struct rule *rule = &rules[i];
        const int compares = rule->condition == EQUALS || rule->condition == ITSELF || rule->condition == WITHOUT ||
                             rule->condition == SHARE_EQUALS;
        const uint32_t value = rule->condition == ITSELF ? (uint32_t)getpid() : rule->value;
        if (rule->condition == IF_ALONE && !is_alone) continue;
        if ((rule->condition == IF_SHARE || rule->condition == SHARE_EQUALS) && !is_share) continue;
        program[count++] = jump(equal, (uint32_t)rule->call, 0, compares ? 4 : 1);
        if (compares) {
            program[count++] = statement(load, argument_offset(rule->argument));
            program[count++] = rule->condition == WITHOUT ? jump(bits, value, 1, 0) : jump(equal, value, 0, 1);
        }
        program[count++] = statement(
            end, rule->condition == MISSING ? SECCOMP_RET_ERRNO | ENOSYS : SECCOMP_RET_ALLOW);
        // Another rule may allow the call with other arguments.
        if (compares) program[count++] = statement(load, offsetof(struct seccomp_data, nr));
    }
    program[count++] = statement(end, SECCOMP_RET_TRAP);
    const struct sock_fprog filter = {.len = count, .filter = program};
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    // A build for tests: the sanitizer asks for much that a worker does not.
    return 0;
#endif
#endif
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return errno;
    // Of the threads that there are already, too. A thread that cannot is named by its number.
    const long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
    return result < 0 ? errno : result > 0 ? ESRCH : 0;
}
