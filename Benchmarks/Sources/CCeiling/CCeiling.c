#define _GNU_SOURCE
#include "CCeiling.h"
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t next_random(uint64_t *state) {
    uint64_t value = (*state += 0x9e3779b97f4a7c15u);
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static uint64_t random_offset(const struct ceiling_options *options, uint64_t *state) {
    return next_random(state) % (options->span / options->request_size) * options->request_size;
}

static int is_write(const struct ceiling_options *options, uint64_t *state) {
    return options->write_percentage && next_random(state) % 100 < options->write_percentage;
}

static void prepare(struct io_uring *ring, const struct ceiling_options *options, uint64_t *state, char *buffers,
                    uint64_t slot) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    char *buffer = buffers + slot * options->request_size;
    const uint64_t offset = random_offset(options, state);
    if (is_write(options, state)) {
        io_uring_prep_write(sqe, 0, buffer, options->request_size, offset);
    } else {
        io_uring_prep_read(sqe, 0, buffer, options->request_size, offset);
    }
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data64(sqe, slot);
}

static int run_uring(struct io_uring *ring, const struct ceiling_options *options, char *buffers,
                     struct ceiling_result *result) {
    uint64_t state = options->seed;
    for (unsigned slot = 0; slot < options->depth; slot++) prepare(ring, options, &state, buffers, slot);
    const uint64_t start = now(), end = start + options->milliseconds * 1000000u;
    unsigned in_flight = options->depth;
    while (in_flight) {
        const int submitted = io_uring_submit_and_wait(ring, 1);
        if (submitted < 0 && submitted != -EINTR) return submitted;
        const int over = now() >= end;
        struct io_uring_cqe *cqe;
        unsigned head, seen = 0;
        uint64_t slots[1024];
        io_uring_for_each_cqe(ring, head, cqe) {
            if (cqe->res != (int)options->request_size) return cqe->res < 0 ? cqe->res : -EIO;
            slots[seen++] = cqe->user_data;
            if (seen == sizeof slots / sizeof slots[0]) break;
        }
        io_uring_cq_advance(ring, seen);
        if (!over) result->requests += seen;
        for (unsigned index = 0; index < seen && !over; index++) prepare(ring, options, &state, buffers, slots[index]);
        if (over) in_flight -= seen;
    }
    result->nanoseconds = options->milliseconds * 1000000u;
    return 0;
}

int ceiling_uring(const struct ceiling_options *options, struct ceiling_result *result) {
    *result = (struct ceiling_result){0};
    struct io_uring ring;
    // IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, which an older header may not name.
    struct io_uring_params parameters = {.flags = (1u << 8) | (1u << 9)};
    int error = io_uring_queue_init_params(options->depth, &ring, &parameters);
    if (error) return error;
    char *buffers = aligned_alloc(4096, (size_t)options->depth * options->request_size);
    error = buffers ? io_uring_register_files(&ring, &options->fd, 1) : -ENOMEM;
    if (!error) error = run_uring(&ring, options, buffers, result);
    io_uring_queue_exit(&ring);
    free(buffers);
    return error;
}

int ceiling_preadv(const struct ceiling_options *options, struct ceiling_result *result) {
    *result = (struct ceiling_result){0};
    char *buffer = aligned_alloc(4096, options->request_size);
    if (!buffer) return -ENOMEM;
    uint64_t state = options->seed;
    const uint64_t start = now(), end = start + options->milliseconds * 1000000u;
    struct iovec part = {buffer, options->request_size};
    int error = 0;
    while (!error && (result->requests % 16 || now() < end)) {
        const off_t offset = (off_t)random_offset(options, &state);
        const ssize_t count =
            is_write(options, &state) ? pwritev(options->fd, &part, 1, offset) : preadv(options->fd, &part, 1, offset);
        if (count != (ssize_t)options->request_size) error = count < 0 ? -errno : -EIO;
        result->requests++;
    }
    result->nanoseconds = now() - start;
    free(buffer);
    return error;
}
