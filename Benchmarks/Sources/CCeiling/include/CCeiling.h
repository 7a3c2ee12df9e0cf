// What the machine itself can do with a file: the baseline that no back-end on top of it can beat by much.
// In C with nothing around it, so that nobody can say the baseline was slowed down.
#pragma once
#include <stdint.h>

struct ceiling_options {
    int fd;
    unsigned depth;
    unsigned request_size;
    unsigned write_percentage;
    uint64_t span;
    uint64_t seed;
    uint64_t milliseconds;
};

struct ceiling_result {
    uint64_t requests;
    uint64_t nanoseconds;
};

/// Random requests through io_uring, `depth` in flight, flags as a vhost-user worker would set them. 0, or a negative
/// errno.
int ceiling_uring(const struct ceiling_options *options, struct ceiling_result *result);

/// The same one after the other with preadv and pwritev.
int ceiling_preadv(const struct ceiling_options *options, struct ceiling_result *result);
