// What a device's workers count, in memory that outlives them: written by the worker that has the device, read by the
// supervisor at any moment. On one machine: fields are in host order and aligned, each is loaded and stored whole.
//
//   header (4 KiB) | one block a queue: counters, runs, histograms, one word a slot
#pragma once
#include <stddef.h>
#include <stdint.h>

#define WIRE_STATISTICS_MAGIC 0x3173746154420a89ull
enum {
    WIRE_STATISTICS_VERSION = 1,
    WIRE_STATISTICS_HEADER_BYTES = 4096,
    WIRE_STATISTICS_MAX_LOOPS = 16,
    /// Kinds of requests that are counted; the first `WIRE_STATISTICS_TIMED` are timed, too.
    WIRE_STATISTICS_KINDS = 8,
    WIRE_STATISTICS_TIMED = 3,
    WIRE_STATISTICS_RUNS = 16,
    /// Buckets of a histogram: see LatencyBuckets.swift.
    WIRE_STATISTICS_BUCKETS = 448,
};

/// Requests of one kind that were returned.
struct wire_statistics_kind {
    uint64_t operations;
    /// Of those that succeeded.
    uint64_t bytes;
    uint64_t errors;
    /// How long they took in all, in nanoseconds; of kinds that are timed.
    uint64_t nanoseconds;
};

/// What one loop's storage has counted. A cache line each.
struct wire_statistics_loop {
    uint64_t no_space;
    uint64_t retries;
    uint64_t short_transfers;
    uint64_t unexpected_ends;
    uint64_t errors;
    /// Parts of requests that went over a bounce buffer.
    uint64_t bounced;
    uint64_t reserved[2];
};

struct wire_statistics_header {
    uint64_t magic;
    uint32_t version;
    uint32_t queue_count;
    /// Slots of a queue.
    uint32_t queue_size;
    uint32_t reserved0;
    uint64_t byte_count;
    uint8_t reserved1[32];

    /// When the worker stopped that has handed the device over, in nanoseconds of CLOCK_MONOTONIC; 0: none has.
    uint64_t stopped_at;
    /// How long the device was without a worker when it last changed hands, and how many times it has, by cause:
    /// 1 a death, 2 a hand-over; 0: never.
    uint64_t gap_nanoseconds;
    uint64_t gap_cause;
    uint64_t gaps[2];
    uint64_t reserved2[3];

    struct wire_statistics_loop loops[WIRE_STATISTICS_MAX_LOOPS];
    uint8_t reserved3[2944];
};

/// Requests of one kind that were taken at the same moment and returned since the last publication.
struct wire_statistics_run {
    /// As in the words of their slots, without bit 0.
    uint64_t word;
    uint64_t count;
};

/// One queue's share, in front of the words of its slots.
struct wire_statistics_queue {
    struct wire_statistics_kind kinds[WIRE_STATISTICS_KINDS];
    /// Broken chains and nonsensical requests.
    uint64_t malformed;
    uint64_t interrupts;
    /// Completions that matched no request.
    uint64_t stale_completions;
    uint64_t reserved[5];
    struct wire_statistics_run runs[WIRE_STATISTICS_TIMED][WIRE_STATISTICS_RUNS];
    uint64_t buckets[WIRE_STATISTICS_TIMED][WIRE_STATISTICS_BUCKETS];
};

_Static_assert(sizeof(struct wire_statistics_header) == WIRE_STATISTICS_HEADER_BYTES, "layout");
_Static_assert(offsetof(struct wire_statistics_header, stopped_at) == 64, "layout");
_Static_assert(offsetof(struct wire_statistics_header, loops) == 128, "layout");
_Static_assert(sizeof(struct wire_statistics_kind) == 32, "layout");
_Static_assert(sizeof(struct wire_statistics_loop) == 64, "layout");
_Static_assert(offsetof(struct wire_statistics_queue, malformed) == 256, "layout");
_Static_assert(offsetof(struct wire_statistics_queue, runs) == 320, "layout");
_Static_assert(sizeof(struct wire_statistics_queue) % 64 == 0, "layout");

/// Where the fields are, for Swift, which has no offsetof.
enum {
    WIRE_STATISTICS_STOPPED_AT = offsetof(struct wire_statistics_header, stopped_at),
    WIRE_STATISTICS_GAP = offsetof(struct wire_statistics_header, gap_nanoseconds),
    WIRE_STATISTICS_GAP_CAUSE = offsetof(struct wire_statistics_header, gap_cause),
    WIRE_STATISTICS_GAPS = offsetof(struct wire_statistics_header, gaps),
    WIRE_STATISTICS_LOOPS = offsetof(struct wire_statistics_header, loops),
    WIRE_STATISTICS_MALFORMED = offsetof(struct wire_statistics_queue, malformed),
    WIRE_STATISTICS_INTERRUPTS = offsetof(struct wire_statistics_queue, interrupts),
    WIRE_STATISTICS_STALE = offsetof(struct wire_statistics_queue, stale_completions),
    WIRE_STATISTICS_FIRST_RUN = offsetof(struct wire_statistics_queue, runs),
    WIRE_STATISTICS_FIRST_BUCKET = offsetof(struct wire_statistics_queue, buckets),
    WIRE_STATISTICS_QUEUE_BYTES = sizeof(struct wire_statistics_queue),
};
