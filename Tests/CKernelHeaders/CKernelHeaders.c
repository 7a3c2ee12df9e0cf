#include "CKernelHeaders.h"
#include <CWire.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#define NUMBER(name) { #name, WIRE_##name, name }
#define NUMBER_AS(wire, name) { #name, WIRE_##wire, name }
#define SIZE(wire, kernel) { "sizeof " #kernel, sizeof(struct wire), sizeof(struct kernel) }
#define OFFSET_AS(wire, field, kernel, kernel_field) \
    { #kernel "." #kernel_field, offsetof(struct wire, field), offsetof(struct kernel, kernel_field) }
#define OFFSET(wire, kernel, field) OFFSET_AS(wire, field, kernel, field)
#define CONFIG(field) OFFSET(wire_virtio_blk_config, virtio_blk_config, field)

static const struct kernel_comparison comparisons[] = {
    NUMBER(VIRTIO_BLK_F_SIZE_MAX), NUMBER(VIRTIO_BLK_F_SEG_MAX), NUMBER(VIRTIO_BLK_F_GEOMETRY), NUMBER(VIRTIO_BLK_F_RO),
    NUMBER(VIRTIO_BLK_F_BLK_SIZE), NUMBER(VIRTIO_BLK_F_FLUSH), NUMBER(VIRTIO_BLK_F_TOPOLOGY),
    NUMBER(VIRTIO_BLK_F_CONFIG_WCE), NUMBER(VIRTIO_BLK_F_MQ), NUMBER(VIRTIO_BLK_F_DISCARD),
    NUMBER(VIRTIO_BLK_F_WRITE_ZEROES),
    NUMBER(VIRTIO_BLK_T_IN), NUMBER(VIRTIO_BLK_T_OUT), NUMBER(VIRTIO_BLK_T_FLUSH), NUMBER(VIRTIO_BLK_T_GET_ID),
    NUMBER(VIRTIO_BLK_T_DISCARD), NUMBER(VIRTIO_BLK_T_WRITE_ZEROES),
    NUMBER(VIRTIO_BLK_S_OK), NUMBER(VIRTIO_BLK_S_IOERR), NUMBER(VIRTIO_BLK_S_UNSUPP), NUMBER(VIRTIO_BLK_ID_BYTES),
    NUMBER_AS(VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
    CONFIG(capacity), CONFIG(size_max), CONFIG(seg_max), CONFIG(geometry), CONFIG(blk_size), CONFIG(num_queues),
    CONFIG(max_discard_sectors), CONFIG(max_discard_seg), CONFIG(discard_sector_alignment),
    CONFIG(max_write_zeroes_sectors), CONFIG(max_write_zeroes_seg), CONFIG(write_zeroes_may_unmap),
    OFFSET_AS(wire_virtio_blk_config, writeback, virtio_blk_config, wce),
    OFFSET_AS(wire_virtio_blk_config, topology.physical_block_exp, virtio_blk_config, physical_block_exp),
    OFFSET_AS(wire_virtio_blk_config, topology.alignment_offset, virtio_blk_config, alignment_offset),
    OFFSET_AS(wire_virtio_blk_config, topology.min_io_size, virtio_blk_config, min_io_size),
    OFFSET_AS(wire_virtio_blk_config, topology.opt_io_size, virtio_blk_config, opt_io_size),
    SIZE(wire_virtio_blk_req_header, virtio_blk_outhdr),
    OFFSET(wire_virtio_blk_req_header, virtio_blk_outhdr, type),
    OFFSET(wire_virtio_blk_req_header, virtio_blk_outhdr, sector),
    SIZE(wire_virtio_blk_discard_write_zeroes, virtio_blk_discard_write_zeroes),
    OFFSET(wire_virtio_blk_discard_write_zeroes, virtio_blk_discard_write_zeroes, sector),
    OFFSET(wire_virtio_blk_discard_write_zeroes, virtio_blk_discard_write_zeroes, num_sectors),
    OFFSET(wire_virtio_blk_discard_write_zeroes, virtio_blk_discard_write_zeroes, flags),

    NUMBER(VIRTIO_F_NOTIFY_ON_EMPTY), NUMBER(VIRTIO_F_ANY_LAYOUT), NUMBER(VIRTIO_RING_F_INDIRECT_DESC),
    NUMBER(VIRTIO_RING_F_EVENT_IDX), NUMBER(VIRTIO_F_VERSION_1), NUMBER(VIRTIO_F_ACCESS_PLATFORM),
    NUMBER(VIRTIO_F_RING_PACKED),
    NUMBER_AS(VIRTQ_DESC_F_NEXT, VRING_DESC_F_NEXT), NUMBER_AS(VIRTQ_DESC_F_WRITE, VRING_DESC_F_WRITE),
    NUMBER_AS(VIRTQ_DESC_F_INDIRECT, VRING_DESC_F_INDIRECT),
    NUMBER_AS(VIRTQ_AVAIL_F_NO_INTERRUPT, VRING_AVAIL_F_NO_INTERRUPT),
    NUMBER_AS(VIRTQ_USED_F_NO_NOTIFY, VRING_USED_F_NO_NOTIFY),
    SIZE(wire_virtq_desc, vring_desc),
    OFFSET(wire_virtq_desc, vring_desc, addr), OFFSET(wire_virtq_desc, vring_desc, len),
    OFFSET(wire_virtq_desc, vring_desc, flags), OFFSET(wire_virtq_desc, vring_desc, next),
    SIZE(wire_virtq_used_elem, vring_used_elem),
    OFFSET(wire_virtq_used_elem, vring_used_elem, id), OFFSET(wire_virtq_used_elem, vring_used_elem, len),
};

struct kernel_comparison kernel_comparison_at(size_t index) {
    static const struct kernel_comparison end;
    return index < sizeof comparisons / sizeof *comparisons ? comparisons[index] : end;
}

int kernel_need_event(uint16_t event, uint16_t new_index, uint16_t old_index) {
    return vring_need_event(event, new_index, old_index);
}

// The layout only: nothing is stored, so any aligned address will do.
static struct vring layout(unsigned size) {
    struct vring ring;
    vring_init(&ring, size, (void *)(uintptr_t)4096, 4096);
    return ring;
}

size_t kernel_available_ring_bytes(unsigned size) {
    struct vring ring = layout(size);
    return (size_t)((char *)(&vring_used_event(&ring) + 1) - (char *)ring.avail);
}

size_t kernel_used_ring_bytes(unsigned size) {
    struct vring ring = layout(size);
    return (size_t)((char *)(&vring_avail_event(&ring) + 1) - (char *)ring.used);
}
