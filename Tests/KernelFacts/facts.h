// What the facts share: how a fact says what it found, and what each of them needs.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// The flags of the rings that outlive a worker.
enum { RING_FLAGS = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG };
// Slow storage is asked for this many writes of this size: about two seconds' work at 4 MB/s.
enum { WRITES = 8, WRITE_SIZE = 1 << 20 };

// Where the facts that need storage find it.
struct place {
    const char *slow_disk;  // a file or block device of 8 MiB or more, whose writes are throttled; NULL: there is none
    const char *procs;      // the cgroup.procs file of the throttled group; NULL: the disk itself is slow
};

struct finding {
    enum { HOLDS, FAILS, LACKS, NOT_TRIED } verdict;
    char text[160];
};

static inline struct finding found(int verdict, const char *format, ...) {
    struct finding finding = {.verdict = verdict};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding.text, sizeof finding.text, format, arguments);
    va_end(arguments);
    return finding;
}

// Ends the program: not the fact, but the test of it does not work.
static inline void need(bool condition, const char *what) {
    if (condition) return;
    perror(what);
    exit(2);
}

static inline double now_ms(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static inline void kill_and_reap(pid_t child) {
    kill(child, SIGKILL);
    need(waitpid(child, NULL, 0) == child, "waitpid");
}

// A line that a child writes when it is ready to be killed.
struct signal_line { int ends[2]; };
static inline struct signal_line make_line(void) {
    struct signal_line line;
    need(pipe(line.ends) == 0, "pipe");
    return line;
}
static inline void say_ready(struct signal_line line) { need(write(line.ends[1], "x", 1) == 1, "write"); }
static inline void await_ready(struct signal_line line) {
    char x;
    need(read(line.ends[0], &x, 1) == 1, "read");
    close(line.ends[0]);
    close(line.ends[1]);
}

static inline unsigned completions(const struct io_uring *ring) {
    return __atomic_load_n(ring->cq.ktail, __ATOMIC_ACQUIRE) - *ring->cq.khead;
}

struct finding journal(struct place place);
struct finding adoption(struct place place);
struct finding restrictions(struct place place);
struct finding transport(struct place place);
struct finding armed_polls(struct place place);
struct finding sentinel(struct place place);
struct finding orphans(struct place place);
struct finding orphans_single_issuer(struct place place);
struct finding orphans_deferred(struct place place);
struct finding fence(struct place place);
struct finding duplicated_lock(struct place place);
struct finding discard_command(struct place place);
struct finding fixed_fd_install(struct place place);
struct finding direct_alignment(struct place place);

// Runs this program anew as the successor of a killed one; does not return.
void become_successor(int ring, int memory, int parameters);
int successor(char **arguments);
