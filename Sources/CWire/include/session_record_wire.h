// The session record: what a device's worker leaves to the next one, in memory that outlives it. Written by one process
// at a time, on one machine: fields are in host order and aligned.
//
//   header (4 KiB) | control area 0 | control area 1 | statistics, one block a queue | request records, one a slot
#pragma once
#include <stddef.h>
#include <stdint.h>

#define WIRE_RECORD_MAGIC 0x314e4f5441420a89ull
enum {
    WIRE_RECORD_VERSION = 1,
    WIRE_RECORD_HEADER_BYTES = 4096,
    WIRE_RECORD_CONTROL_BYTES = 65536,
    WIRE_RECORD_STATISTICS_BYTES = 256,
    WIRE_RECORD_REQUEST_BYTES = 64,
    WIRE_RECORD_MAX_RINGS = 16,
    WIRE_RECORD_MAX_QUEUES = 256,
    WIRE_RECORD_LIVES = 8,
};

/// A kernel ring: struct io_uring_params as io_uring_setup has filled it in.
struct wire_record_ring {
    uint8_t parameters[120];
    uint64_t reserved;
};

/// One loop, as it shows itself to others at any moment.
struct wire_record_loop {
    /// Rounds that it has made over its queues.
    uint64_t turns;
    /// The request that it handles: queue << 16 | slot, plus 1; 0: none.
    uint32_t handling;
    /// 1: it sleeps until a kick, a completion or a command comes.
    uint32_t resting;
    /// The number of the epoll descriptor in which it sleeps, plus 1; 0: not known.
    uint32_t poller;
    /// One cache line each.
    uint8_t reserved[44];
};

/// One worker's time with the device. That of generation g is number g modulo WIRE_RECORD_LIVES.
struct wire_record_life {
    uint64_t generation;
    /// What the device had returned in all when it began.
    uint64_t returned_before;
    /// The signal that ended the worker by its own fault, or 0; the address that it names (of SIGSYS: the number of the
    /// forbidden system call, plus 1); and the request that the thread handled which got it (as in wire_record_loop).
    uint64_t fatal_address;
    uint32_t fatal_signal;
    uint32_t handling;
    uint32_t process;
    /// 1: the supervisor killed it because a loop went on no more; `handling` is that loop's.
    uint32_t hung;
    uint8_t reserved[24];
};

/// What a queue tells of itself: the first field of its statistics.
struct wire_record_queue {
    /// Requests returned since the device was made.
    uint64_t returned;
};

struct wire_record_header {
    uint64_t magic;
    /// The lowest version that whoever uses the record must know.
    uint32_t version;
    uint32_t queue_count;
    uint32_t queue_size;
    uint32_t ring_count;
    uint64_t byte_count;
    /// The version that the owner writes: fields that later ones have added are not kept up. 0: nobody has had it.
    uint32_t written_version;
    uint8_t reserved0[28];

    /// The worker that has the device, by number; 0: nobody. Claimed by compare and swap.
    uint64_t owner;
    /// The highest number that any worker has had.
    uint64_t last_generation;
    /// Its process, and the threads that use the rings; 0 where there is none.
    uint32_t owner_pid;
    uint32_t owner_threads[WIRE_RECORD_MAX_RINGS];
    uint8_t reserved1[44];

    /// A pthread_mutex_t, robust and shared: held by the owner's sentinel.
    uint64_t sentinel[8];

    /// Requests that were answered with an error because workers died over them.
    uint64_t given_up;
    uint8_t reserved3[56];

    /// Bit 0 names the control area that counts. Grows by one with each commit.
    uint64_t control_sequence;
    uint8_t reserved4[56];

    struct wire_record_life lives[WIRE_RECORD_LIVES];
    /// For fields that later versions add. Zero until then; whoever does not know them leaves them as they are.
    uint8_t additions[64];
    struct wire_record_ring rings[WIRE_RECORD_MAX_RINGS];
    struct wire_record_loop loops[WIRE_RECORD_MAX_RINGS];
    uint8_t reserved6[64];
};

/// A request's operation under way: what a successor needs to recognise its completion and to go on with it.
struct wire_request_record {
    /// sequence << 32 | index in the submission queue: replaced at once, and so the commit of a step.
    uint64_t operation;
    /// 1: `operation` belongs to the request that the inflight log has.
    uint64_t issued;
    /// What was done before the step; the one that bit 0 of the sequence names.
    struct { uint64_t done, state; } progress[2];
    /// The inflight log's counter of a request over which workers died by their own fault, which was the last of them,
    /// and how many they were: generation << 8 | number.
    uint64_t suspect, strikes;
};

_Static_assert(sizeof(struct wire_record_ring) == 128, "layout");
_Static_assert(offsetof(struct wire_record_header, owner) == 64, "layout");
_Static_assert(offsetof(struct wire_record_header, additions) == 896, "layout");
_Static_assert(sizeof(struct wire_record_loop) == 64, "layout");
_Static_assert(sizeof(struct wire_record_life) == 64, "layout");
_Static_assert(offsetof(struct wire_record_header, sentinel) == 192, "layout");
_Static_assert(offsetof(struct wire_record_header, given_up) == 256, "layout");
_Static_assert(offsetof(struct wire_record_header, control_sequence) == 320, "layout");
_Static_assert(offsetof(struct wire_record_header, lives) == 384, "layout");
_Static_assert(offsetof(struct wire_record_header, additions) == 896, "layout");
_Static_assert(offsetof(struct wire_record_header, rings) == 960, "layout");
_Static_assert(offsetof(struct wire_record_header, loops) % 64 == 0, "layout");
_Static_assert(sizeof(struct wire_record_queue) <= WIRE_RECORD_STATISTICS_BYTES, "layout");
_Static_assert(offsetof(struct wire_request_record, suspect) == 48, "layout");
_Static_assert(sizeof(struct wire_record_header) == WIRE_RECORD_HEADER_BYTES, "layout");
_Static_assert(sizeof(struct wire_request_record) == WIRE_RECORD_REQUEST_BYTES, "layout");

/// Where the fields are, for Swift, which has no offsetof.
enum {
    WIRE_RECORD_WRITTEN_VERSION = offsetof(struct wire_record_header, written_version),
    WIRE_RECORD_ADDITIONS = offsetof(struct wire_record_header, additions),
    WIRE_RECORD_ADDITIONS_BYTES = sizeof(((struct wire_record_header *)0)->additions),
    WIRE_RECORD_OWNER = offsetof(struct wire_record_header, owner),
    WIRE_RECORD_LAST_GENERATION = offsetof(struct wire_record_header, last_generation),
    WIRE_RECORD_OWNER_PID = offsetof(struct wire_record_header, owner_pid),
    WIRE_RECORD_OWNER_THREADS = offsetof(struct wire_record_header, owner_threads),
    WIRE_RECORD_SENTINEL = offsetof(struct wire_record_header, sentinel),
    WIRE_RECORD_GIVEN_UP = offsetof(struct wire_record_header, given_up),
    WIRE_RECORD_FIRST_LIFE = offsetof(struct wire_record_header, lives),
    WIRE_RECORD_FIRST_LOOP = offsetof(struct wire_record_header, loops),
    WIRE_RECORD_CONTROL_SEQUENCE = offsetof(struct wire_record_header, control_sequence),
    WIRE_RECORD_RINGS = offsetof(struct wire_record_header, rings),
    WIRE_RECORD_RING_STRIDE = sizeof(struct wire_record_ring),
    WIRE_RECORD_RING_PARAMETERS = sizeof(((struct wire_record_ring *)0)->parameters),
};
