// Sees every store that a thread makes to shared memory, and keeps what the memory held before each.
//
// The memory is a file, mapped more than once. The views that the watched code uses are read-only while it runs, so
// each of its stores faults. The handler keeps a snapshot of the memory, taken through a view of its own, makes the
// page writable, sets the processor's trap flag and returns: the store is carried out, and nothing but it, because the
// trap comes behind one instruction. The trap's handler takes the permission back. So every instruction that stores is
// seen, whoever compiled it, and the watched code need not know.
//
// What it cannot see: stores by the kernel. Test code that plays the kernel's part does it in a pause.
#pragma once
#include <stddef.h>
#include <stdint.h>

/// What was known when a snapshot was taken.
struct store_watch_point {
    /// Stores seen before it.
    uint32_t stores;
    /// Where in the file the last of them went; STORE_WATCH_NO_STORE when there was none.
    uint32_t last_store;
    /// The number that `store_watch_set_world` had set.
    uint32_t world;
};

#define STORE_WATCH_NO_STORE UINT32_MAX

struct store_watch;

/// Whether this processor lets a program step through itself.
int store_watch_is_supported(void);

/// Makes a watch, with room for `capacity` snapshots.
///
/// `view` maps all `count` bytes of the file and is never protected. Returns NULL when there is no memory.
struct store_watch *store_watch_create(const void *view, size_t count, size_t capacity);
void store_watch_destroy(struct store_watch *watch);

/// Watches all mappings that this process has of the file, but `view`. Returns how many, or -1: /proc says nothing, or
/// there are more than 8.
int store_watch_find_mappings(struct store_watch *watch, int file);

/// From here on, this thread's stores are seen, and those of no other: one watch a thread. What was seen before is
/// forgotten.
void store_watch_begin(struct store_watch *watch);
void store_watch_end(struct store_watch *watch);

/// Lets this thread store unseen, and ends that. A snapshot is taken first if the memory changed since the last one.
void store_watch_pause(struct store_watch *watch);
/// The memory, or the world, is another one now: the next snapshot is due.
void store_watch_resume(struct store_watch *watch, uint32_t world);

/// Snapshots that were due; those beyond the capacity were not kept.
size_t store_watch_due(const struct store_watch *watch);
size_t store_watch_capacity(const struct store_watch *watch);
size_t store_watch_stores(const struct store_watch *watch);
/// What the memory held; `index` is below both numbers above.
const void *store_watch_snapshot(const struct store_watch *watch, size_t index);
struct store_watch_point store_watch_point_at(const struct store_watch *watch, size_t index);
