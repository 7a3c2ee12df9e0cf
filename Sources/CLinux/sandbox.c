#define _GNU_SOURCE
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ROOM_NAMESPACES = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP,
};

// fork without what libc does around it: the other threads of this process hold locks that nobody will ever release in
// the child, so it makes system calls only.
static pid_t bare_fork(unsigned long flags) { return (pid_t)syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0); }

static int write_map(pid_t process, const char *file, const char *text) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", process, file);
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    const ssize_t count = write(fd, text, strlen(text));
    const int error = count < 0 ? errno : 0;
    close(fd);
    return error;
}

static int write_maps(pid_t process, int *has_user, unsigned user, unsigned group) {
    char users[96], groups[96];
    snprintf(users, sizeof users, "0 %u 1\n1 %u 1\n", geteuid(), user);
    snprintf(groups, sizeof groups, "0 %u 1\n1 %u 1\n", getegid(), group);
    *has_user = user != geteuid() && group != getegid() && !write_map(process, "uid_map", users);
    if (*has_user) return write_map(process, "gid_map", groups);
    snprintf(users, sizeof users, "0 %u 1\n", geteuid());
    snprintf(groups, sizeof groups, "0 %u 1\n", getegid());
    int error = write_map(process, "uid_map", users);
    // Who may map its own group only must give up changing them first.
    if (!error && geteuid() != 0) error = write_map(process, "setgroups", "deny");
    return error ? error : write_map(process, "gid_map", groups);
}

// The one process of a room that is always there. `steps` is a socket to whoever makes it.
static void keep_room(int lifeline, int steps) {
    char byte;
    int32_t error = 0;
    sigset_t all;
    sigfillset(&all);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
    if (read(steps, &byte, 1) != 1) _exit(0);
    setsid();
    error = clinux_empty_root();
    if (!error) error = clinux_drop_privileges(~0u, ~0u);
    prctl(PR_SET_NAME, "baton-room");
    if (write(steps, &error, sizeof error) != sizeof error || error) _exit(1);
    dup2(lifeline, 0);
    syscall(SYS_close_range, 1u, ~0u, 0u);
    // Nothing but read, write and exit from here on.
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    while (read(0, &byte, 1) == 1) {}
    syscall(SYS_exit, 0);
}

int clinux_room_make(int *pid, int *has_user, int lifeline, unsigned user, unsigned group) {
    int steps[2];
    int32_t error = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, steps)) return errno;
    *pid = bare_fork((has_user ? ROOM_NAMESPACES : ROOM_NAMESPACES & ~CLONE_NEWUSER) | CLONE_NEWNS);
    if (*pid == 0) {
        close(steps[0]);
        keep_room(lifeline, steps[1]);
        _exit(1);
    }
    error = *pid < 0 ? errno : 0;
    close(steps[1]);
    if (!error) {
        error = has_user ? write_maps(*pid, has_user, user, group) : 0;
        if (!error && write(steps[0], "", 1) != 1) error = EIO;
        int32_t said = 0;
        ssize_t count = -1;
        do {
            if (!error) count = read(steps[0], &said, sizeof said);
        } while (!error && count < 0 && errno == EINTR);
        if (!error) error = count == sizeof said ? said : EIO;
        if (error) {
            kill(*pid, SIGKILL);
            while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR) {}
        }
    }
    close(steps[0]);
    return error;
}

struct step {
    int32_t error, pid;
};

static void tell(int to, int error, int pid) {
    const struct step step = {error, pid};
    if (write(to, &step, sizeof step) != sizeof step) _exit(127);
}

static void become_program(int report, const char *program, char *const arguments[], int output, const int *inherited,
                           unsigned inherited_count) {
    extern char **environ;
    sigset_t none;
    for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
    sigemptyset(&none);
    setsid();
    const int empty = open("/dev/null", O_RDONLY);
    int failed = empty < 0 || (empty != 0 && dup2(empty, 0) < 0) || dup2(output, 1) < 0 || dup2(output, 2) < 0;
    if (empty > 2) close(empty);
    for (unsigned i = 0; i < inherited_count; i++) failed = failed || fcntl(inherited[i], F_SETFD, 0) < 0;
    // What it mounts and unmounts is its own affair.
    failed = failed || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
    if (!failed) execve(program, arguments, environ);
    tell(report, errno, 0);
    _exit(127);
}

int clinux_spawn_in_room(int *pid, int room, int room_has_users, const char *program,
                         char *const arguments[], int output, const int *inherited, unsigned inherited_count) {
    int report[2];
    sigset_t all, before;
    if (pipe2(report, O_CLOEXEC)) return errno;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    // Two processes: one enters the room, but only children of it are in its PID namespace.
    const pid_t helper = bare_fork(0);
    if (helper == 0) {
        if (setns(room, room_has_users ? ROOM_NAMESPACES : ROOM_NAMESPACES & ~CLONE_NEWUSER)) {
            tell(report[1], errno, 0);
            _exit(1);
        }
        const pid_t worker = bare_fork(CLONE_PARENT);
        if (worker == 0) become_program(report[1], program, arguments, output, inherited, inherited_count);
        tell(report[1], worker < 0 ? errno : 0, worker);
        _exit(0);
    }
    int error = helper < 0 ? errno : 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    *pid = -1;
    while (!error) {
        struct step step;
        const ssize_t count = read(report[0], &step, sizeof step);
        if (count < 0 && errno == EINTR) continue;
        if (count != sizeof step) break;
        if (step.pid > 0) *pid = step.pid;
        if (step.error) error = step.error;
    }
    close(report[0]);
    if (helper > 0) while (waitpid(helper, NULL, 0) < 0 && errno == EINTR) {}
    if (!error && *pid < 0) error = EIO;
    if (error && *pid > 0) while (waitpid(*pid, NULL, 0) < 0 && errno == EINTR) {}
    return error;
}

int clinux_leave_namespaces(void) {
    static const int kinds[] = {CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP};
    int left = 0;
    for (unsigned i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (!unshare(kinds[i])) left |= kinds[i];
    if (left & CLONE_NEWNS) mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    return left;
}

int clinux_empty_root(void) {
    // Any directory serves: it is covered.
    static const char *const places[] = {"/proc", "/tmp", "/dev", "/usr"};
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    int error = 0;
    unsigned i = 0;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) return errno;
    for (; i < sizeof places / sizeof places[0]; i++) {
        error = mount("baton-empty", places[i], "tmpfs", flags, "mode=0555,size=4k,nr_inodes=1") ? errno : 0;
        if (!error) break;
    }
    if (error || chdir(places[i])) return error ? error : errno;
    if (!syscall(SYS_pivot_root, ".", ".")) {
        if (umount2(".", MNT_DETACH)) return errno;
    } else if (mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".")) {
        // The file system that the kernel was started with is no mount that could be exchanged: it is covered.
        return errno;
    }
    if (chdir("/")) return errno;
    return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) ? errno : 0;
}

int clinux_drop_privileges(unsigned user, unsigned group) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2];
    memset(none, 0, sizeof none);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    // Fails where there is none to drop: of a capability that the kernel does not know, or without CAP_SETPCAP. What
    // counts is looked at below.
    for (int number = 0; number < 64; number++) prctl(PR_CAPBSET_DROP, number, 0, 0, 0);
    // In a user namespace whose maker may set no groups this is refused, and there are none to give up.
    syscall(SYS_setgroups, 0, NULL);
    if (group != ~0u && syscall(SYS_setresgid, group, group, group)) return errno;
    if (user != ~0u && syscall(SYS_setresuid, user, user, user)) return errno;
    if (syscall(SYS_capset, &header, none)) return errno;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return errno;
    return 0;
}

static int lower_limit(int resource, rlim_t most) {
    struct rlimit limit;
    if (getrlimit(resource, &limit)) return errno;
    if (limit.rlim_max <= most) most = limit.rlim_max;
    limit.rlim_cur = limit.rlim_max = most;
    return setrlimit(resource, &limit) ? errno : 0;
}

int clinux_limit_process(unsigned descriptors, unsigned threads) {
    int error = lower_limit(RLIMIT_CORE, 0);
    if (!error) error = lower_limit(RLIMIT_NOFILE, descriptors);
    // The kernel's own threads that carry out a ring's slow operations count, too.
    if (!error) error = lower_limit(RLIMIT_NPROC, threads);
    return error || !prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? error : errno;
}
