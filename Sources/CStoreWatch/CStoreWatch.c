#define _GNU_SOURCE
#include "CStoreWatch.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <ucontext.h>

enum { MOST_RANGES = 8 };

struct range {
    char *start;
    size_t count;
    /// Of its first byte, in the file.
    size_t offset;
};

struct store_watch {
    struct range ranges[MOST_RANGES];
    int range_count;
    const void *view;
    size_t count;
    size_t capacity;
    char *snapshots;
    struct store_watch_point *points;
    /// Snapshots that were due.
    size_t due;
    uint32_t stores;
    uint32_t last_store;
    uint32_t world;
    /// Something changed since the last snapshot.
    int is_due;
    /// One store runs, with the trap flag set.
    int is_stepping;
};

/// What this thread runs under. The handlers find it here: a fault is handled by the thread that caused it.
static __thread struct store_watch *current;
static struct sigaction fault_before, trap_before;

static void protect(const struct store_watch *watch, int protection) {
    for (int index = 0; index < watch->range_count; index++)
        if (mprotect(watch->ranges[index].start, watch->ranges[index].count, protection) != 0) abort();
}

static void take_snapshot(struct store_watch *watch) {
    if (!watch->is_due) return;
    watch->is_due = 0;
    if (watch->due < watch->capacity) {
        memcpy(watch->snapshots + watch->due * watch->count, watch->view, watch->count);
        watch->points[watch->due] = (struct store_watch_point){watch->stores, watch->last_store, watch->world};
    }
    watch->due++;
}

#ifdef __x86_64__
/// EFLAGS.TF: trap behind the next instruction.
static const greg_t trap_flag = 0x100;

static void on_fault(int signal, siginfo_t *info, void *context) {
    struct store_watch *watch = current;
    for (int index = 0; watch && !watch->is_stepping && index < watch->range_count; index++) {
        const struct range *range = &watch->ranges[index];
        size_t inside = (size_t)((char *)info->si_addr - range->start);
        if (inside >= range->count) continue;
        take_snapshot(watch);
        watch->stores++;
        watch->last_store = (uint32_t)(range->offset + inside);
        watch->is_due = 1;
        watch->is_stepping = 1;
        // All of them: a store may cross from one page into the next.
        protect(watch, PROT_READ | PROT_WRITE);
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] |= trap_flag;
        return;
    }
    // Not ours: it happens again, to whoever handled it before.
    sigaction(signal, &fault_before, NULL);
}

static void on_trap(int signal, siginfo_t *info, void *context) {
    struct store_watch *watch = current;
    if (!watch || !watch->is_stepping) {
        (void)info;
        sigaction(signal, &trap_before, NULL);
        raise(signal);
        return;
    }
    watch->is_stepping = 0;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~trap_flag;
    protect(watch, PROT_READ);
}

int store_watch_is_supported(void) { return 1; }
#else
static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)info, (void)context;
    sigaction(signal, &fault_before, NULL);
}
static void on_trap(int signal, siginfo_t *info, void *context) {
    (void)info, (void)context;
    sigaction(signal, &trap_before, NULL);
    raise(signal);
}

int store_watch_is_supported(void) { return 0; }
#endif

static void install(void) {
    struct sigaction action = {.sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    action.sa_sigaction = on_fault;
    if (sigaction(SIGSEGV, &action, &fault_before) != 0) abort();
    action.sa_sigaction = on_trap;
    if (sigaction(SIGTRAP, &action, &trap_before) != 0) abort();
}

struct store_watch *store_watch_create(const void *view, size_t count, size_t capacity) {
    struct store_watch *watch = calloc(1, sizeof *watch);
    if (!watch) return NULL;
    watch->view = view;
    watch->count = count;
    watch->capacity = capacity;
    watch->points = calloc(capacity, sizeof *watch->points);
    // Pages that no snapshot needs cost nothing.
    watch->snapshots = mmap(
        NULL, capacity * count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (watch->points && watch->snapshots != MAP_FAILED) return watch;
    if (watch->snapshots != MAP_FAILED) munmap(watch->snapshots, capacity * count);
    free(watch->points);
    free(watch);
    return NULL;
}

void store_watch_destroy(struct store_watch *watch) {
    munmap(watch->snapshots, watch->capacity * watch->count);
    free(watch->points);
    free(watch);
}

int store_watch_find_mappings(struct store_watch *watch, int file) {
    struct stat status;
    if (fstat(file, &status) != 0) return -1;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps) return -1;
    watch->range_count = 0;
    int result = 0;
    char line[512];
    while (result >= 0 && fgets(line, sizeof line, maps)) {
        unsigned long start, end, offset, inode;
        unsigned int major_number, minor_number;
        if (sscanf(line, "%lx-%lx %*s %lx %x:%x %lu", &start, &end, &offset, &major_number, &minor_number, &inode) != 6)
            continue;
        if (inode != status.st_ino || makedev(major_number, minor_number) != status.st_dev) continue;
        if (start == (unsigned long)watch->view) continue;
        if (watch->range_count == MOST_RANGES) {
            result = -1;
            break;
        }
        watch->ranges[watch->range_count++] = (struct range){(char *)start, end - start, offset};
        result = watch->range_count;
    }
    fclose(maps);
    return result;
}

void store_watch_begin(struct store_watch *watch) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install);
    if (current) abort();
    watch->due = 0;
    watch->stores = 0;
    watch->last_store = STORE_WATCH_NO_STORE;
    watch->world = 0;
    watch->is_due = 1;
    current = watch;
    protect(watch, PROT_READ);
}

void store_watch_end(struct store_watch *watch) {
    take_snapshot(watch);
    protect(watch, PROT_READ | PROT_WRITE);
    current = NULL;
}

void store_watch_pause(struct store_watch *watch) {
    take_snapshot(watch);
    protect(watch, PROT_READ | PROT_WRITE);
}

void store_watch_resume(struct store_watch *watch, uint32_t world) {
    watch->world = world;
    watch->is_due = 1;
    protect(watch, PROT_READ);
}

size_t store_watch_due(const struct store_watch *watch) { return watch->due; }
size_t store_watch_capacity(const struct store_watch *watch) { return watch->capacity; }
size_t store_watch_stores(const struct store_watch *watch) { return watch->stores; }

const void *store_watch_snapshot(const struct store_watch *watch, size_t index) {
    return watch->snapshots + index * watch->count;
}

struct store_watch_point store_watch_point_at(const struct store_watch *watch, size_t index) {
    return watch->points[index];
}
