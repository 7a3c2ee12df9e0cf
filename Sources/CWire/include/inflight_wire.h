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
