// The block device: Virtual I/O Device (VIRTIO) 1.2, section 5.2.
#pragma once
#include <stddef.h>
#include <stdint.h>

// 5.2.3 Feature bits
enum {
    WIRE_VIRTIO_BLK_F_SIZE_MAX = 1,
    WIRE_VIRTIO_BLK_F_SEG_MAX = 2,
    WIRE_VIRTIO_BLK_F_GEOMETRY = 4,
    WIRE_VIRTIO_BLK_F_RO = 5,
    WIRE_VIRTIO_BLK_F_BLK_SIZE = 6,
    WIRE_VIRTIO_BLK_F_FLUSH = 9,
    WIRE_VIRTIO_BLK_F_TOPOLOGY = 10,
    WIRE_VIRTIO_BLK_F_CONFIG_WCE = 11,
    WIRE_VIRTIO_BLK_F_MQ = 12,
    WIRE_VIRTIO_BLK_F_DISCARD = 13,
    WIRE_VIRTIO_BLK_F_WRITE_ZEROES = 14,
};

// 5.2.4 Device configuration layout
struct wire_virtio_blk_config {
    uint64_t capacity;
    uint32_t size_max;
    uint32_t seg_max;
    struct { uint16_t cylinders; uint8_t heads; uint8_t sectors; } geometry;
    uint32_t blk_size;
    struct {
        uint8_t physical_block_exp;
        uint8_t alignment_offset;
        uint16_t min_io_size;
        uint32_t opt_io_size;
    } topology;
    uint8_t writeback;
    uint8_t unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors;
    uint32_t max_discard_seg;
    uint32_t discard_sector_alignment;
    uint32_t max_write_zeroes_sectors;
    uint32_t max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap;
    uint8_t unused1[3];
} __attribute__((packed));
_Static_assert(sizeof(struct wire_virtio_blk_config) == 60, "virtio_blk_config up to write_zeroes_may_unmap");
_Static_assert(offsetof(struct wire_virtio_blk_config, writeback) == 32, "virtio_blk_config.writeback");

// 5.2.6 Device operation
enum {
    WIRE_VIRTIO_BLK_T_IN = 0,
    WIRE_VIRTIO_BLK_T_OUT = 1,
    WIRE_VIRTIO_BLK_T_FLUSH = 4,
    WIRE_VIRTIO_BLK_T_GET_ID = 8,
    WIRE_VIRTIO_BLK_T_DISCARD = 11,
    WIRE_VIRTIO_BLK_T_WRITE_ZEROES = 13,
};
enum { WIRE_VIRTIO_BLK_S_OK = 0, WIRE_VIRTIO_BLK_S_IOERR = 1, WIRE_VIRTIO_BLK_S_UNSUPP = 2 };
enum { WIRE_VIRTIO_BLK_SECTOR_SIZE = 512, WIRE_VIRTIO_BLK_ID_BYTES = 20 };

struct wire_virtio_blk_req_header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};
_Static_assert(sizeof(struct wire_virtio_blk_req_header) == 16, "virtio_blk_req");

enum { WIRE_VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP = 1 };
struct wire_virtio_blk_discard_write_zeroes {
    uint64_t sector;
    uint32_t num_sectors;
    uint32_t flags;
};
_Static_assert(sizeof(struct wire_virtio_blk_discard_write_zeroes) == 16, "virtio_blk_discard_write_zeroes");
