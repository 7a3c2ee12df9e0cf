// The kernel's own words for what CWire says, side by side, for a test.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct kernel_comparison {
    /// The kernel's name.
    const char *name;
    /// What CWire has.
    long long ours;
    /// What <linux/virtio_….h> has.
    long long kernels;
};

/// The comparison at an index from 0 on; one without a name is behind the last.
struct kernel_comparison kernel_comparison_at(size_t index);

/// The same of FUSE and virtio-fs.
struct kernel_comparison fuse_comparison_at(size_t index);

/// vring_need_event of <linux/virtio_ring.h>.
int kernel_need_event(uint16_t event, uint16_t new_index, uint16_t old_index);

/// Bytes of the available and of the used ring with their event indices, as vring_init lays them out.
size_t kernel_available_ring_bytes(unsigned size);
size_t kernel_used_ring_bytes(unsigned size);
