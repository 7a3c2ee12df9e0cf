// vhost-user: QEMU's docs/interop/vhost-user.rst. Native byte order, one stream, descriptors beside the header.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct wire_vhost_user_header {
    uint32_t request;
    uint32_t flags;
    uint32_t size;
};
_Static_assert(sizeof(struct wire_vhost_user_header) == 12, "header");
enum {
    WIRE_VHOST_USER_VERSION_MASK = 0x3,
    WIRE_VHOST_USER_VERSION = 0x1,
    WIRE_VHOST_USER_REPLY_MASK = 0x4,
    WIRE_VHOST_USER_NEED_REPLY_MASK = 0x8,
};

// Front-end message types
enum {
    WIRE_VHOST_USER_GET_FEATURES = 1,
    WIRE_VHOST_USER_SET_FEATURES = 2,
    WIRE_VHOST_USER_SET_OWNER = 3,
    WIRE_VHOST_USER_RESET_OWNER = 4,
    WIRE_VHOST_USER_SET_MEM_TABLE = 5,
    WIRE_VHOST_USER_SET_LOG_BASE = 6,
    WIRE_VHOST_USER_SET_LOG_FD = 7,
    WIRE_VHOST_USER_SET_VRING_NUM = 8,
    WIRE_VHOST_USER_SET_VRING_ADDR = 9,
    WIRE_VHOST_USER_SET_VRING_BASE = 10,
    WIRE_VHOST_USER_GET_VRING_BASE = 11,
    WIRE_VHOST_USER_SET_VRING_KICK = 12,
    WIRE_VHOST_USER_SET_VRING_CALL = 13,
    WIRE_VHOST_USER_SET_VRING_ERR = 14,
    WIRE_VHOST_USER_GET_PROTOCOL_FEATURES = 15,
    WIRE_VHOST_USER_SET_PROTOCOL_FEATURES = 16,
    WIRE_VHOST_USER_GET_QUEUE_NUM = 17,
    WIRE_VHOST_USER_SET_VRING_ENABLE = 18,
    WIRE_VHOST_USER_SEND_RARP = 19,
    WIRE_VHOST_USER_NET_SET_MTU = 20,
    WIRE_VHOST_USER_SET_BACKEND_REQ_FD = 21,
    WIRE_VHOST_USER_IOTLB_MSG = 22,
    WIRE_VHOST_USER_SET_VRING_ENDIAN = 23,
    WIRE_VHOST_USER_GET_CONFIG = 24,
    WIRE_VHOST_USER_SET_CONFIG = 25,
    WIRE_VHOST_USER_CREATE_CRYPTO_SESSION = 26,
    WIRE_VHOST_USER_CLOSE_CRYPTO_SESSION = 27,
    WIRE_VHOST_USER_POSTCOPY_ADVISE = 28,
    WIRE_VHOST_USER_POSTCOPY_LISTEN = 29,
    WIRE_VHOST_USER_POSTCOPY_END = 30,
    WIRE_VHOST_USER_GET_INFLIGHT_FD = 31,
    WIRE_VHOST_USER_SET_INFLIGHT_FD = 32,
    WIRE_VHOST_USER_GPU_SET_SOCKET = 33,
    WIRE_VHOST_USER_RESET_DEVICE = 34,
    WIRE_VHOST_USER_VRING_KICK = 35,
    WIRE_VHOST_USER_GET_MAX_MEM_SLOTS = 36,
    WIRE_VHOST_USER_ADD_MEM_REG = 37,
    WIRE_VHOST_USER_REM_MEM_REG = 38,
    WIRE_VHOST_USER_SET_STATUS = 39,
    WIRE_VHOST_USER_GET_STATUS = 40,
    WIRE_VHOST_USER_GET_SHARED_OBJECT = 41,
    WIRE_VHOST_USER_SET_DEVICE_STATE_FD = 42,
    WIRE_VHOST_USER_CHECK_DEVICE_STATE = 43,
    WIRE_VHOST_USER_GET_SHMEM_CONFIG = 44,
    WIRE_VHOST_USER_GET_VRING_BASE_SKIP_DRAIN = 45,
};

// Back-end message types
enum { WIRE_VHOST_USER_BACKEND_CONFIG_CHANGE_MSG = 2 };

// Feature bits of the virtio feature word that belong to vhost
enum { WIRE_VHOST_F_LOG_ALL = 26, WIRE_VHOST_USER_F_PROTOCOL_FEATURES = 30 };

// Protocol features
enum {
    WIRE_VHOST_USER_PROTOCOL_F_MQ = 0,
    WIRE_VHOST_USER_PROTOCOL_F_LOG_SHMFD = 1,
    WIRE_VHOST_USER_PROTOCOL_F_RARP = 2,
    WIRE_VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
    WIRE_VHOST_USER_PROTOCOL_F_MTU = 4,
    WIRE_VHOST_USER_PROTOCOL_F_BACKEND_REQ = 5,
    WIRE_VHOST_USER_PROTOCOL_F_CROSS_ENDIAN = 6,
    WIRE_VHOST_USER_PROTOCOL_F_CRYPTO_SESSION = 7,
    WIRE_VHOST_USER_PROTOCOL_F_PAGEFAULT = 8,
    WIRE_VHOST_USER_PROTOCOL_F_CONFIG = 9,
    WIRE_VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD = 10,
    WIRE_VHOST_USER_PROTOCOL_F_HOST_NOTIFIER = 11,
    WIRE_VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
    WIRE_VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
    WIRE_VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS = 14,
    WIRE_VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS = 15,
    WIRE_VHOST_USER_PROTOCOL_F_STATUS = 16,
    WIRE_VHOST_USER_PROTOCOL_F_XEN_MMAP = 17,
    WIRE_VHOST_USER_PROTOCOL_F_SHARED_OBJECT = 18,
    WIRE_VHOST_USER_PROTOCOL_F_DEVICE_STATE = 19,
    // Other implementations have used 20 to 23 for other things: the numbers are those of QEMU.
    WIRE_VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT = 20,
    WIRE_VHOST_USER_PROTOCOL_F_GPA_ADDRESSES = 21,
    WIRE_VHOST_USER_PROTOCOL_F_SHMEM = 22,
    WIRE_VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN = 23,
};

struct wire_vhost_vring_state {
    uint32_t index;
    uint32_t num;
};
_Static_assert(sizeof(struct wire_vhost_vring_state) == 8, "vring state");

enum { WIRE_VHOST_VRING_F_LOG = 0 };
struct wire_vhost_vring_addr {
    uint32_t index;
    uint32_t flags;
    uint64_t desc_user_addr;
    uint64_t used_user_addr;
    uint64_t avail_user_addr;
    uint64_t log_guest_addr;
};
_Static_assert(sizeof(struct wire_vhost_vring_addr) == 40, "vring addr");

// SET_VRING_KICK, _CALL and _ERR
enum {
    WIRE_VHOST_USER_VRING_IDX_MASK = 0xff,
    WIRE_VHOST_USER_VRING_NOFD_MASK = 0x100,
};

enum { WIRE_VHOST_USER_MAX_TABLE_REGIONS = 8 };
struct wire_vhost_user_mem_region {
    uint64_t guest_phys_addr;
    uint64_t memory_size;
    uint64_t userspace_addr;
    uint64_t mmap_offset;
};
_Static_assert(sizeof(struct wire_vhost_user_mem_region) == 32, "memory region");
struct wire_vhost_user_mem_table_header {
    uint32_t nregions;
    uint32_t padding;
};
_Static_assert(sizeof(struct wire_vhost_user_mem_table_header) == 8, "memory regions header");
struct wire_vhost_user_single_mem_region {
    uint64_t padding;
    struct wire_vhost_user_mem_region region;
};
_Static_assert(sizeof(struct wire_vhost_user_single_mem_region) == 40, "single memory region");

enum { WIRE_VHOST_USER_MAX_CONFIG_SIZE = 256 };
struct wire_vhost_user_config_header {
    uint32_t offset;
    uint32_t size;
    uint32_t flags;
};
_Static_assert(sizeof(struct wire_vhost_user_config_header) == 12, "config header");

struct wire_vhost_user_inflight {
    uint64_t mmap_size;
    uint64_t mmap_offset;
    uint16_t num_queues;
    uint16_t queue_size;
    // Not in the specification's text, but on every implementation's wire: the C structure is aligned to 8.
    uint32_t padding;
};
_Static_assert(sizeof(struct wire_vhost_user_inflight) == 24, "inflight: 20 bytes of fields, 24 on the wire");

struct wire_vhost_user_log {
    uint64_t mmap_size;
    uint64_t mmap_offset;
};
_Static_assert(sizeof(struct wire_vhost_user_log) == 16, "log");
