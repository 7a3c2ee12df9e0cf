// The log of requests in flight: vhost-user's "Inflight I/O tracking". One region a queue, all of equal length.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { WIRE_INFLIGHT_VERSION = 1 };

struct wire_inflight_split_header {
    uint64_t features;
    uint16_t version;
    uint16_t desc_num;
    uint16_t last_batch_head;
    uint16_t used_idx;
};
_Static_assert(sizeof(struct wire_inflight_split_header) == 16, "split region header");

struct wire_inflight_split_entry {
    uint8_t inflight;
    uint8_t padding[5];
    uint16_t next;
    uint64_t counter;
};
_Static_assert(sizeof(struct wire_inflight_split_entry) == 16, "split region entry");
_Static_assert(offsetof(struct wire_inflight_split_entry, next) == 6, "split region entry's next");

struct wire_inflight_packed_header {
    uint64_t features;
    uint16_t version;
    uint16_t desc_num;
    uint16_t free_head;
    uint16_t old_free_head;
    uint16_t used_idx;
    uint16_t old_used_idx;
    uint8_t used_wrap_counter;
    uint8_t old_used_wrap_counter;
    uint8_t padding[7];
};
// 29 bytes of fields; the entries are aligned to 8.
_Static_assert(sizeof(struct wire_inflight_packed_header) == 32, "packed region header");
// Both heads are stored at once, and both positions with their wrap counters.
_Static_assert(offsetof(struct wire_inflight_packed_header, free_head) == 12, "packed region's free_head");
_Static_assert(offsetof(struct wire_inflight_packed_header, used_idx) == 16, "packed region's used_idx");
_Static_assert(offsetof(struct wire_inflight_packed_header, old_used_wrap_counter) == 21, "packed region's old wrap");

struct wire_inflight_packed_entry {
    uint8_t inflight;
    uint8_t padding;
    uint16_t next;
    uint16_t last;
    uint16_t num;
    uint64_t counter;
    uint16_t id;
    uint16_t flags;
    uint32_t len;
    uint64_t addr;
};
_Static_assert(sizeof(struct wire_inflight_packed_entry) == 32, "packed region entry");
_Static_assert(offsetof(struct wire_inflight_packed_entry, counter) == 8, "packed region entry's counter");
_Static_assert(offsetof(struct wire_inflight_packed_entry, id) == 16, "packed region entry's id");
_Static_assert(offsetof(struct wire_inflight_packed_entry, addr) == 24, "packed region entry's addr");
