// The file system device: Virtual I/O Device (VIRTIO) 1.2, section 5.11.
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { WIRE_VIRTIO_ID_FS = 26 };

// 5.11.2 Virtqueues: hiprio, then the request queues; with the feature below a notification queue lies between them
enum { WIRE_VIRTIO_FS_HIPRIO_QUEUE = 0, WIRE_VIRTIO_FS_FIRST_REQUEST_QUEUE = 1 };

// 5.11.3 Feature bits
enum { WIRE_VIRTIO_FS_F_NOTIFICATION = 0 };

// 5.11.4 Device configuration layout
enum { WIRE_VIRTIO_FS_TAG_BYTES = 36 };
struct wire_virtio_fs_config {
    /// UTF-8, padded with NULs; without one when it is 36 bytes long.
    uint8_t tag[WIRE_VIRTIO_FS_TAG_BYTES];
    uint32_t num_request_queues;
} __attribute__((packed));
_Static_assert(sizeof(struct wire_virtio_fs_config) == 40, "virtio_fs_config up to num_request_queues");
