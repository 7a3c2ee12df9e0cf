#define _GNU_SOURCE
#include "CLinux.h"

#include "fatal_signal.h"
#include "memory_guard.h"
// Not in the header: liburing has a copy of its own, and Swift takes the two for contradictory definitions.
#include <linux/io_uring.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { GUARD_FREE = 0, GUARD_RESERVED = 1, GUARD_COUNT = 4096 };

// `base` is GUARD_FREE, GUARD_RESERVED while `count` is being written, or an address.
static struct {
    _Atomic(uintptr_t) base;
    _Atomic(size_t) count;
} guards[GUARD_COUNT];
static _Atomic(int) guard_event = -1;

void clinux_guard_report(void) {
    const uint64_t one = 1;
    const int event = atomic_load(&guard_event);
    // A full counter says it as well.
    if (event >= 0 && write(event, &one, sizeof one) < 0) return;
}

// Returns whether the address was in a guarded range, which is zero memory now.
static int guard_replace(uintptr_t address) {
    for (int number = 0; number < GUARD_COUNT; number++) {
        const uintptr_t base = atomic_load(&guards[number].base);
        const size_t count = atomic_load(&guards[number].count);
        if (base <= GUARD_RESERVED || address - base >= count) continue;
        return mmap((void *)base, count, PROT_READ | PROT_WRITE,
                    MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED;
    }
    return 0;
}

static void guard_handle(int signal_number, siginfo_t *info, void *context) {
    const int saved = errno;
    if (guard_replace((uintptr_t)info->si_addr)) {
        clinux_guard_report();
    } else {
        clinux_fatal_handle(signal_number, info, context);
    }
    errno = saved;
}

int clinux_guard_install(int event) {
    struct sigaction action = {.sa_sigaction = guard_handle, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    atomic_store(&guard_event, event);
    sigemptyset(&action.sa_mask);
    return sigaction(SIGBUS, &action, NULL);
}

int clinux_guard_add(void *base, size_t count) {
    for (int number = 0; number < GUARD_COUNT; number++) {
        uintptr_t expected = GUARD_FREE;
        if (!atomic_compare_exchange_strong(&guards[number].base, &expected, GUARD_RESERVED)) continue;
        atomic_store(&guards[number].count, count);
        atomic_store(&guards[number].base, (uintptr_t)base);
        return number;
    }
    return -1;
}

void clinux_guard_remove(int number) { atomic_store(&guards[number].base, GUARD_FREE); }

_Static_assert(sizeof(struct io_uring_params) == 120, "what a session record has room for");
int clinux_make_ring(unsigned entries, unsigned completions, const unsigned char *operations, unsigned operation_count,
                     unsigned files, int registers, unsigned char parameters[120]) {
    enum { LIMIT = 64 };
    struct io_uring_restriction allowed[LIMIT];
    if (operation_count + 2 > LIMIT) {
        errno = EINVAL;
        return -1;
    }
    memset(allowed, 0, sizeof allowed);
    for (unsigned index = 0; index < operation_count; index++) {
        allowed[index].opcode = IORING_RESTRICTION_SQE_OP;
        allowed[index].sqe_op = operations[index];
    }
    struct io_uring_rsrc_register table = {.nr = files, .flags = IORING_RSRC_REGISTER_SPARSE};
    if (files > 0) {
        allowed[operation_count].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
        allowed[operation_count++].sqe_flags = IOSQE_FIXED_FILE;
    }
    if (registers >= 0) {
        allowed[operation_count].opcode = IORING_RESTRICTION_REGISTER_OP;
        allowed[operation_count++].register_op = (unsigned char)registers;
    }
    struct io_uring_params made = {
        .flags = IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED,
        .cq_entries = completions < entries ? entries : completions,
    };
    const int ring = (int)syscall(SYS_io_uring_setup, entries, &made);
    if (ring < 0) return ring;
    if ((files > 0 && syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES2, &table, sizeof table) < 0) ||
        syscall(SYS_io_uring_register, ring, IORING_REGISTER_RESTRICTIONS, allowed, operation_count) < 0 ||
        syscall(SYS_io_uring_register, ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0) < 0) {
        const int error = errno;
        close(ring);
        errno = error;
        return -1;
    }
    memcpy(parameters, &made, sizeof made);
    return ring;
}

void clinux_forget_files(int ring) {
    const int32_t none[2] = {-1, -1};
    const struct io_uring_files_update update = {.fds = (uintptr_t)none};
    (void)syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES_UPDATE, &update, 2);
}

int clinux_ring_has_work(const void *rings, const unsigned char parameters[120]) {
    struct io_uring_params made;
    memcpy(&made, parameters, sizeof made);
    const unsigned last = 4096 - sizeof(uint32_t);
    if (made.sq_off.flags > last || made.cq_off.head > last || made.cq_off.tail > last) return 0;
    const char *base = rings;
    const uint32_t flags = atomic_load_explicit((const _Atomic(uint32_t) *)(base + made.sq_off.flags),
                                                memory_order_acquire);
    const uint32_t head = atomic_load_explicit((const _Atomic(uint32_t) *)(base + made.cq_off.head),
                                               memory_order_acquire);
    const uint32_t tail = atomic_load_explicit((const _Atomic(uint32_t) *)(base + made.cq_off.tail),
                                               memory_order_acquire);
    return head != tail || (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}
