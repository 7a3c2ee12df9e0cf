// Virtqueues: Virtual I/O Device (VIRTIO) 1.2, sections 2.6 to 2.8 and 6.
#pragma once
#include <stdint.h>

// 6 Reserved feature bits
enum {
    WIRE_VIRTIO_F_NOTIFY_ON_EMPTY = 24,
    WIRE_VIRTIO_F_ANY_LAYOUT = 27,
    WIRE_VIRTIO_RING_F_INDIRECT_DESC = 28,
    WIRE_VIRTIO_RING_F_EVENT_IDX = 29,
    WIRE_VIRTIO_F_VERSION_1 = 32,
    WIRE_VIRTIO_F_ACCESS_PLATFORM = 33,
    WIRE_VIRTIO_F_RING_PACKED = 34,
};

// 2.7.5 The virtqueue descriptor table
enum { WIRE_VIRTQ_DESC_F_NEXT = 1, WIRE_VIRTQ_DESC_F_WRITE = 2, WIRE_VIRTQ_DESC_F_INDIRECT = 4 };
struct wire_virtq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags;
    uint16_t next;
};
_Static_assert(sizeof(struct wire_virtq_desc) == 16, "virtq_desc");

// 2.7.6 The virtqueue available ring: flags, idx, ring[size], used_event
enum { WIRE_VIRTQ_AVAIL_F_NO_INTERRUPT = 1 };
// 2.7.8 The virtqueue used ring: flags, idx, ring[size], avail_event
enum { WIRE_VIRTQ_USED_F_NO_NOTIFY = 1 };
struct wire_virtq_used_elem {
    uint32_t id;
    uint32_t len;
};
_Static_assert(sizeof(struct wire_virtq_used_elem) == 8, "virtq_used_elem");

// 2.8 Packed virtqueues
enum { WIRE_VIRTQ_DESC_F_AVAIL = 1 << 7, WIRE_VIRTQ_DESC_F_USED = 1 << 15 };
struct wire_pvirtq_desc {
    uint64_t addr;
    uint32_t len;
    uint16_t id;
    uint16_t flags;
};
_Static_assert(sizeof(struct wire_pvirtq_desc) == 16, "pvirtq_desc");
// 2.8.14 Event suppression structure format: the descriptor in bits 0 to 14 and a wrap counter, then flags
struct wire_pvirtq_event_suppress {
    uint16_t off_wrap;
    uint16_t flags;
};
_Static_assert(sizeof(struct wire_pvirtq_event_suppress) == 4, "pvirtq_event_suppress");
enum { WIRE_RING_EVENT_FLAGS_ENABLE = 0, WIRE_RING_EVENT_FLAGS_DISABLE = 1, WIRE_RING_EVENT_FLAGS_DESC = 2 };
