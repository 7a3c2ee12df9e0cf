// What a device's workers count, in memory that outlives them: written by the worker that has the device, read by the
// supervisor at any moment. And the other way round: what the operator wants of the device. On one machine: fields
// are in host order and aligned, each is loaded and stored whole.
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

/// What the operator wants of the device: written by the supervisor, read by the loops. All 0, as in the file of a
/// supervisor that knew none of it: no limits, and a host without room is reported.
struct wire_device_policy {
    /// 1: one of the rates is not 0. Stored last.
    uint64_t is_limited;
    /// Requests in a second, and bytes; 0: no limit.
    uint64_t operations;
    uint64_t operation_burst;
    uint64_t bandwidth;
    uint64_t bandwidth_burst;
    /// 1: a request that finds no room on the host waits for it.
    uint64_t holds_for_room;
    /// Grows when requests that wait for room are to be tried again at once.
    uint64_t retries;
    uint64_t reserved;
};

/// How full a bucket is, in one word: when it will be full, in nanoseconds of CLOCK_MONOTONIC (RateBucket.swift).
struct wire_rate_bucket {
    uint64_t full_at;
    uint64_t reserved[7];
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
    /// Of a share: nodes that its driver knows, and files and directories that it has open.
    uint64_t nodes, open_files;
    uint64_t reserved2[1];

    struct wire_statistics_loop loops[WIRE_STATISTICS_MAX_LOOPS];

    struct wire_device_policy policy;
    /// Of requests, and of bytes: each with a cache line of its own, since all loops write them.
    struct wire_rate_bucket buckets[2];
    uint8_t reserved3[2752];
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
    /// Nanoseconds in which requests were there and had to wait for a limit.
    uint64_t throttled;
    /// Requests that wait for room on the host, now.
    uint64_t held;
    uint64_t reserved[3];
    struct wire_statistics_run runs[WIRE_STATISTICS_TIMED][WIRE_STATISTICS_RUNS];
    uint64_t buckets[WIRE_STATISTICS_TIMED][WIRE_STATISTICS_BUCKETS];
};

_Static_assert(sizeof(struct wire_statistics_header) == WIRE_STATISTICS_HEADER_BYTES, "layout");
_Static_assert(offsetof(struct wire_statistics_header, stopped_at) == 64, "layout");
_Static_assert(offsetof(struct wire_statistics_header, loops) == 128, "layout");
_Static_assert(offsetof(struct wire_statistics_header, policy) == 1152, "layout");
_Static_assert(sizeof(struct wire_device_policy) == 64, "layout");
_Static_assert(sizeof(struct wire_rate_bucket) == 64, "layout");
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
    WIRE_STATISTICS_NODES = offsetof(struct wire_statistics_header, nodes),
    WIRE_STATISTICS_OPEN_FILES = offsetof(struct wire_statistics_header, open_files),
    WIRE_STATISTICS_LOOPS = offsetof(struct wire_statistics_header, loops),
    WIRE_STATISTICS_POLICY = offsetof(struct wire_statistics_header, policy),
    WIRE_STATISTICS_RATE_BUCKETS = offsetof(struct wire_statistics_header, buckets),
    WIRE_STATISTICS_MALFORMED = offsetof(struct wire_statistics_queue, malformed),
    WIRE_STATISTICS_INTERRUPTS = offsetof(struct wire_statistics_queue, interrupts),
    WIRE_STATISTICS_STALE = offsetof(struct wire_statistics_queue, stale_completions),
    WIRE_STATISTICS_THROTTLED = offsetof(struct wire_statistics_queue, throttled),
    WIRE_STATISTICS_HELD = offsetof(struct wire_statistics_queue, held),
    WIRE_STATISTICS_FIRST_RUN = offsetof(struct wire_statistics_queue, runs),
    WIRE_STATISTICS_FIRST_BUCKET = offsetof(struct wire_statistics_queue, buckets),
    WIRE_STATISTICS_QUEUE_BYTES = sizeof(struct wire_statistics_queue),
};

/// Where the fields of the policy are, within it.
enum {
    WIRE_POLICY_IS_LIMITED = offsetof(struct wire_device_policy, is_limited),
    WIRE_POLICY_OPERATIONS = offsetof(struct wire_device_policy, operations),
    WIRE_POLICY_OPERATION_BURST = offsetof(struct wire_device_policy, operation_burst),
    WIRE_POLICY_BANDWIDTH = offsetof(struct wire_device_policy, bandwidth),
    WIRE_POLICY_BANDWIDTH_BURST = offsetof(struct wire_device_policy, bandwidth_burst),
    WIRE_POLICY_HOLDS_FOR_ROOM = offsetof(struct wire_device_policy, holds_for_room),
    WIRE_POLICY_RETRIES = offsetof(struct wire_device_policy, retries),
    WIRE_RATE_BUCKET_BYTES = sizeof(struct wire_rate_bucket),
};

/// Stores `wanted` where `expected` is. False: something else was there.
static inline _Bool wire_replace64(void *at, uint64_t expected, uint64_t wanted) {
    return __atomic_compare_exchange_n((uint64_t *)at, &expected, wanted, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}
