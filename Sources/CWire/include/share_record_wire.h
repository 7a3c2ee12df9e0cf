// The tables of a share: which nodes and open files its driver knows, in memory that outlives a worker. On one machine:
// fields are in host order and aligned, each is loaded and stored whole. Slots refer to each other by number + 1; 0:
// none.
//
//   header (4 KiB) | buckets, 4 bytes for each node | nodes | files | effects | lists of effects
#pragma once
#include <stddef.h>
#include <stdint.h>

#define WIRE_SHARE_MAGIC 0x3165726168530a89ull
enum {
    WIRE_SHARE_VERSION = 1,
    WIRE_SHARE_HEADER_BYTES = 4096,
    WIRE_SHARE_NODE_BYTES = 96,
    WIRE_SHARE_FILE_BYTES = 32,
    /// A file handle that is longer is not kept: its node has a descriptor.
    WIRE_SHARE_HANDLE_BYTES = 40,
    WIRE_SHARE_MAX_MOUNTS = 32,
    WIRE_SHARE_INTERRUPTS = 32,
    WIRE_SHARE_EFFECT_BYTES = 32,
    /// Nodes that one READDIRPLUS can tell of.
    WIRE_SHARE_EFFECT_NODES = 126,
};

/// A mount on which nodes are.
struct wire_share_mount {
    /// A hash of where it hangs, what its root is and how it is mounted, never 0; 0: free. Not the kernel's number,
    /// which is another for each worker.
    uint64_t identity;
    /// The file that opens handles on it, as its slot + 1; 0: the share's root does.
    uint64_t file;
};

struct wire_share_header {
    uint64_t magic;
    /// The lowest version that whoever uses the tables must know, and what was written last.
    uint32_t version, written_version;
    uint32_t node_capacity, file_capacity;
    uint64_t byte_count;

    /// The change of the node table under way: kind << 32 | slot + 1; 0: none.
    uint64_t intent;
    /// Live nodes when that change is done.
    uint64_t intent_count;
    uint64_t live_nodes;
    /// The first free node, and the lowest that never was in use.
    uint32_t free_node, fresh_node;

    /// What was agreed on in INIT: the minor version of the protocol, 0 before INIT; the feature bits.
    uint64_t agreed_minor, agreed_flags;
    /// The lowest file that never was in use.
    uint32_t fresh_file;
    /// Descriptors of a queue that effects are kept for, and queues.
    uint32_t effect_slots, effect_queues, reserved0;
    /// Tells this share's private names from those of others in the same directory.
    uint64_t name_salt;
    /// Of the change under way: the place of its effect, from 1 on, 0: none; what that will say; lookups of the node.
    uint64_t intent_effect, intent_word, intent_lookups;
    /// Effects of another one are those of a driver that is gone.
    uint64_t effect_epoch;
    uint64_t reserved[14];
    /// `unique` of requests that were interrupted last; 0: none.
    uint64_t interrupts[WIRE_SHARE_INTERRUPTS];
    struct wire_share_mount mounts[WIRE_SHARE_MAX_MOUNTS];
};

/// A node that the driver knows. A node id is generation << 32 | slot.
struct wire_share_node {
    /// generation | state << 32 | file type (S_IFMT >> 12) << 40 | bytes of the handle << 48. One store of it makes and
    /// unmakes a node. State 0: free, 1: live.
    uint64_t control;
    /// Lookups that the driver has not forgotten.
    uint64_t lookups;
    uint64_t inode, device;
    /// The next node of its bucket, or the next free one.
    uint32_t next;
    uint32_t hash;
    uint32_t mount;
    int32_t handle_type;
    uint8_t handle[WIRE_SHARE_HANDLE_BYTES];
    /// Without a handle: the file that keeps it, as its slot + 1.
    uint32_t file;
    uint32_t reserved;
};

/// An open file. A handle that the driver knows is generation << 32 | slot.
struct wire_share_file {
    /// generation | state << 32 | kind << 40. One store of it makes and unmakes a file. State 0: free, 1: open,
    /// 2: about to be let go of. Kinds: FileTable.swift.
    uint64_t control;
    uint64_t node;
    /// Of a lock: who has it.
    uint64_t owner;
    uint32_t flags;
    uint32_t reserved;
};

/// What a request that is not answered yet has done to the tables.
struct wire_share_effect {
    /// Of the request; 0: none.
    uint64_t unique;
    /// The node that it has counted a lookup of; below 2^32: so many of its nodes, in its list, or that it has
    /// forgotten. Of kind 2: 0: not begun; 1: what it needs was there; bit 63: done, with its count below.
    uint64_t word;
    /// The file that it has opened; 0: none.
    uint64_t handle;
    uint32_t epoch;
    /// 0: it makes lookups, 1: it forgets, 2: it changes something.
    uint32_t kind;
};

_Static_assert(offsetof(struct wire_share_header, intent) == 32, "layout");
_Static_assert(offsetof(struct wire_share_header, agreed_minor) == 64, "layout");
_Static_assert(offsetof(struct wire_share_header, mounts) == 504, "layout");
_Static_assert(sizeof(struct wire_share_header) <= WIRE_SHARE_HEADER_BYTES, "layout");
_Static_assert(sizeof(struct wire_share_node) == WIRE_SHARE_NODE_BYTES, "layout");
_Static_assert(offsetof(struct wire_share_node, next) == 32, "layout");
_Static_assert(offsetof(struct wire_share_node, handle) == 48, "layout");
_Static_assert(sizeof(struct wire_share_file) == WIRE_SHARE_FILE_BYTES, "layout");
_Static_assert(sizeof(struct wire_share_effect) == WIRE_SHARE_EFFECT_BYTES, "layout");

/// Where the fields are, for Swift, which has no offsetof.
enum {
    WIRE_SHARE_INTENT = offsetof(struct wire_share_header, intent),
    WIRE_SHARE_INTENT_COUNT = offsetof(struct wire_share_header, intent_count),
    WIRE_SHARE_LIVE_NODES = offsetof(struct wire_share_header, live_nodes),
    WIRE_SHARE_FREE_NODE = offsetof(struct wire_share_header, free_node),
    WIRE_SHARE_FRESH_NODE = offsetof(struct wire_share_header, fresh_node),
    WIRE_SHARE_AGREED_MINOR = offsetof(struct wire_share_header, agreed_minor),
    WIRE_SHARE_AGREED_FLAGS = offsetof(struct wire_share_header, agreed_flags),
    WIRE_SHARE_FRESH_FILE = offsetof(struct wire_share_header, fresh_file),
    WIRE_SHARE_NAME_SALT = offsetof(struct wire_share_header, name_salt),
    WIRE_SHARE_EFFECT_SLOTS = offsetof(struct wire_share_header, effect_slots),
    WIRE_SHARE_EFFECT_QUEUES = offsetof(struct wire_share_header, effect_queues),
    WIRE_SHARE_INTENT_EFFECT = offsetof(struct wire_share_header, intent_effect),
    WIRE_SHARE_INTENT_WORD = offsetof(struct wire_share_header, intent_word),
    WIRE_SHARE_INTENT_LOOKUPS = offsetof(struct wire_share_header, intent_lookups),
    WIRE_SHARE_EFFECT_EPOCH = offsetof(struct wire_share_header, effect_epoch),
    WIRE_SHARE_FIRST_INTERRUPT = offsetof(struct wire_share_header, interrupts),
    WIRE_SHARE_FIRST_MOUNT = offsetof(struct wire_share_header, mounts),
    WIRE_SHARE_NODE_LOOKUPS = offsetof(struct wire_share_node, lookups),
    WIRE_SHARE_NODE_INODE = offsetof(struct wire_share_node, inode),
    WIRE_SHARE_NODE_DEVICE = offsetof(struct wire_share_node, device),
    WIRE_SHARE_NODE_NEXT = offsetof(struct wire_share_node, next),
    WIRE_SHARE_NODE_HASH = offsetof(struct wire_share_node, hash),
    WIRE_SHARE_NODE_MOUNT = offsetof(struct wire_share_node, mount),
    WIRE_SHARE_NODE_HANDLE_TYPE = offsetof(struct wire_share_node, handle_type),
    WIRE_SHARE_NODE_HANDLE = offsetof(struct wire_share_node, handle),
    WIRE_SHARE_NODE_FILE = offsetof(struct wire_share_node, file),
    WIRE_SHARE_FILE_NODE = offsetof(struct wire_share_file, node),
    WIRE_SHARE_FILE_OWNER = offsetof(struct wire_share_file, owner),
    WIRE_SHARE_FILE_FLAGS = offsetof(struct wire_share_file, flags),
    WIRE_SHARE_EFFECT_WORD = offsetof(struct wire_share_effect, word),
    WIRE_SHARE_EFFECT_HANDLE = offsetof(struct wire_share_effect, handle),
    WIRE_SHARE_EFFECT_OF_EPOCH = offsetof(struct wire_share_effect, epoch),
    WIRE_SHARE_EFFECT_KIND = offsetof(struct wire_share_effect, kind),
};
