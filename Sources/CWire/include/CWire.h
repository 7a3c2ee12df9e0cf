// Every layout that crosses a process boundary, in the spelling of the specification that defines it.
#pragma once
#include "fuse_wire.h"
#include "inflight_wire.h"
#include "session_record_wire.h"
#include "share_record_wire.h"
#include "shared_memory.h"
#include "statistics_wire.h"
#include "vhost_user_wire.h"
#include "virtio_blk_wire.h"
#include "virtio_fs_wire.h"
#include "virtio_ring_wire.h"
