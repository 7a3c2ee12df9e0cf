// How soon another process knows that a worker was SIGKILLed: a robust mutex that a thread of it holds, the flags of
// its loop's thread in /proc, its pidfd.
#include "facts.h"
#include <pthread.h>

enum { PF_EXITING = 0x4, PF_POSTCOREDUMP = 0x8, TOUCHED = 128 << 20 };

static struct shared {
    pthread_mutex_t alive;
    volatile int sentinel_ready, loop_tid;
    volatile unsigned long beat;
} *shared;

static void *hold(void *unused) {
    pthread_mutex_lock(&shared->alive);
    shared->sentinel_ready = 1;
    for (;;) pause();
    return unused;
}

// Field 9 of stat; all ones when the task is gone.
static unsigned task_flags(int pid, int tid) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
    int fd = open(path, O_RDONLY), length = fd < 0 ? -1 : (int)read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (length <= 0) return ~0u;
    text[length] = 0;
    char *at = strrchr(text, ')');
    for (int i = 0; at && i < 7; i++) at = strchr(at + 1, ' ');
    return at ? strtoul(at + 1, 0, 10) : ~0u;
}

static void work(int memory) {
    pthread_t thread;
    need(mmap(0, TOUCHED, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory, 0) != MAP_FAILED, "mmap");
    need(pthread_create(&thread, 0, hold, 0) == 0, "pthread_create");
    while (!shared->sentinel_ready) usleep(100);
    shared->loop_tid = syscall(SYS_gettid);
    for (;;) shared->beat++;
}

struct finding sentinel(struct place place) {
    pthread_mutexattr_t robust;
    (void)place;
    shared = mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    need(shared != MAP_FAILED, "mmap");
    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&shared->alive, &robust);
    int memory = memfd_create("guest", MFD_CLOEXEC);
    need(ftruncate(memory, TOUCHED) == 0, "ftruncate");
    pid_t child = fork();
    if (child == 0) work(memory);
    while (!shared->loop_tid) usleep(100);
    struct pollfd watched = {syscall(SYS_pidfd_open, child, 0), POLLIN, 0};
    double start = now_ms();
    kill(child, SIGKILL);
    int told = pthread_mutex_lock(&shared->alive);
    double mutex = now_ms() - start;
    unsigned ending = PF_EXITING | PF_POSTCOREDUMP;
    while (!(task_flags(child, shared->loop_tid) & ending) && now_ms() - start < 10000) continue;
    double exiting = now_ms() - start;
    unsigned long beat = shared->beat;
    usleep(300);
    bool silent = beat == shared->beat;
    poll(&watched, 1, 10000);
    double gone = now_ms() - start;
    waitpid(child, NULL, 0);
    close(watched.fd);
    close(memory);
    return found(told == EOWNERDEAD && silent ? HOLDS : FAILS,
                 "mutex %.2f ms, loop exiting %.2f ms (%s), pidfd %.1f ms", mutex, exiting,
                 silent ? "silent after" : "STILL RUNNING", gone);
}
