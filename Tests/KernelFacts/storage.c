// Writes that outlive the program that asked for them, and the locks that tell when the last has landed.
#include "facts.h"

static char *buffer;

static int open_slow_disk(struct place place) {
    int fd = open(place.slow_disk, O_RDWR | O_DIRECT | O_CLOEXEC);
    need(fd >= 0, place.slow_disk);
    if (!buffer) need(posix_memalign((void **)&buffer, 4096, WRITES * WRITE_SIZE) == 0, "memory");
    return fd;
}

static int set_lock(int fd, int command, short type) {
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0x42000000, .l_len = 1};
    return fcntl(fd, command, &lock);
}

static void join_group(struct place place) {
    if (!place.procs) return;
    FILE *procs = fopen(place.procs, "w");
    need(procs && fprintf(procs, "%d", getpid()) > 0 && fclose(procs) == 0, place.procs);
}

// How many of the writes are there, by the last block of each.
static int landed(int fd) {
    int count = 0;
    for (int i = 0; i < WRITES; i++)
        count += pread(fd, buffer, 4096, (off_t)(i + 1) * WRITE_SIZE - 4096) == 4096 && *buffer == 'A';
    return count;
}

// A child that locks the disk, submits all writes and waits for its death.
static pid_t start_writer(struct place place, struct io_uring *ring, unsigned flags) {
    struct signal_line line = make_line();
    pid_t child = fork();
    if (child != 0) {
        await_ready(line);
        return child;
    }
    join_group(place);
    if (flags & IORING_SETUP_R_DISABLED) need(io_uring_enable_rings(ring) == 0, "enable rings");
    int fd = open_slow_disk(place);
    need(set_lock(fd, F_OFD_SETLK, F_RDLCK) == 0, "lock");
    memset(buffer, 'A', WRITES * WRITE_SIZE);
    for (int i = 0; i < WRITES; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
        io_uring_prep_write(sqe, fd, buffer + (size_t)i * WRITE_SIZE, WRITE_SIZE, (off_t)i * WRITE_SIZE);
        sqe->user_data = i;
    }
    need(io_uring_submit(ring) == WRITES, "submit");
    say_ready(line);
    for (;;) pause();
}

static int clear_disk(struct place place) {
    int fd = open_slow_disk(place);
    memset(buffer, '0', WRITES * WRITE_SIZE);
    need(pwrite(fd, buffer, WRITES * WRITE_SIZE, 0) == WRITES * WRITE_SIZE, "pwrite");
    need(fdatasync(fd) == 0, "fdatasync");
    return fd;
}

static struct finding no_slow_disk(void) { return found(NOT_TRIED, "there is no slow disk"); }

// Waits until nothing of the dead writer is under way, so that the next fact begins with a quiet disk.
static void quiet_down(int fd) {
    need(set_lock(fd, F_OFD_SETLKW, F_WRLCK) == 0, "lock");
    close(fd);
}

struct finding orphans(struct place place) {
    if (!place.slow_disk) return no_slow_disk();
    int fd = clear_disk(place), wrong = 0;
    struct io_uring ring;
    need(io_uring_queue_init(64, &ring, RING_FLAGS) == 0, "io_uring_setup");
    pid_t child = start_writer(place, &ring, 0);
    double start = now_ms();
    kill_and_reap(child);
    double reaped = now_ms() - start, first = 0;
    unsigned at_death = completions(&ring);
    while (completions(&ring) < WRITES && now_ms() - start < 60000) {
        if (!first && completions(&ring)) first = now_ms() - start;
        // A completion may stand in the overflow list or wait for a call.
        syscall(SYS_io_uring_enter, ring.ring_fd, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
        usleep(200);
    }
    double last = now_ms() - start;
    for (unsigned i = 0; i < completions(&ring); i++) wrong += ring.cq.cqes[i & *ring.cq.kring_mask].res != WRITE_SIZE;
    bool holds = completions(&ring) == WRITES && wrong == 0 && at_death < WRITES && landed(fd) == WRITES;
    struct finding finding = found(holds ? HOLDS : FAILS,
                                   "reaped after %.1f ms, %u of %d completions later, the last after %.0f ms", reaped,
                                   completions(&ring) - at_death, WRITES, last);
    io_uring_queue_exit(&ring);
    quiet_down(fd);
    return finding;
}

struct finding orphans_single_issuer(struct place place) {
    if (!place.slow_disk) return no_slow_disk();
    int fd = clear_disk(place);
    unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN;
    struct io_uring ring;
    if (io_uring_queue_init(64, &ring, flags) != 0) return found(LACKS, "no such flag");
    kill_and_reap(start_writer(place, &ring, flags));
    double start = now_ms();
    while (completions(&ring) < WRITES && now_ms() - start < 60000) usleep(1000);
    unsigned came = completions(&ring);
    ring.sq.sqe_head = ring.sq.sqe_tail = *ring.sq.ktail;
    io_uring_prep_nop(io_uring_get_sqe(&ring));
    int submitted = io_uring_submit(&ring);
    io_uring_queue_exit(&ring);
    quiet_down(fd);
    return found(came == WRITES && submitted == -EEXIST ? HOLDS : FAILS,
                 "%u of %d completions; its successor's submission gives %d", came, WRITES, submitted);
}

struct finding orphans_deferred(struct place place) {
    if (!place.slow_disk) return no_slow_disk();
    int fd = clear_disk(place);
    unsigned flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED;
    struct io_uring ring;
    if (io_uring_queue_init(64, &ring, flags) != 0) return found(LACKS, "no such flag");
    kill_and_reap(start_writer(place, &ring, flags));
    double start = now_ms();
    while (landed(fd) < WRITES && now_ms() - start < 60000) usleep(1000);
    usleep(500000);
    unsigned came = completions(&ring);
    io_uring_queue_exit(&ring);
    quiet_down(fd);
    return found(came == 0 ? HOLDS : LACKS, "%u of %d completions, 0.5 s after the last write had landed", came,
                 WRITES);
}

struct finding fence(struct place place) {
    if (!place.slow_disk) return no_slow_disk();
    int fd = clear_disk(place);
    struct io_uring ring;
    pid_t child;
    struct signal_line line = make_line();
    // A ring that nobody but the writer has: in a process of its own, whose death ends it. The writer is then ours to
    // reap: whoever else would, does it when it likes.
    need(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "prctl");
    pid_t middle = fork();
    if (middle == 0) {
        need(io_uring_queue_init(64, &ring, 0) == 0, "io_uring_setup");
        child = start_writer(place, &ring, 0);
        need(write(line.ends[1], &child, sizeof child) == sizeof child, "write");
        _exit(0);
    }
    need(read(line.ends[0], &child, sizeof child) == sizeof child, "read");
    waitpid(middle, NULL, 0);
    double start = now_ms(), gone = 0, granted = 0;
    int refused = 0, landed_when_gone = 0;
    kill(child, SIGKILL);
    // Asked for all the time and not only once the writer is gone: that may be late as well.
    while (!granted && now_ms() - start < 60000) {
        if (!gone && waitpid(child, NULL, WNOHANG) == child) {
            gone = now_ms() - start;
            landed_when_gone = landed(fd);
        }
        if (set_lock(fd, F_OFD_SETLK, F_WRLCK) == 0) granted = now_ms() - start;
        else refused++;
        usleep(200);
    }
    int count = landed(fd);
    if (!gone) {
        need(waitpid(child, NULL, 0) == child, "waitpid");
        gone = now_ms() - start;
        landed_when_gone = count;
    }
    need(prctl(PR_SET_CHILD_SUBREAPER, 0) == 0, "prctl");
    close(fd);
    return found(granted && refused && count == WRITES ? HOLDS : FAILS,
                 "gone after %.1f ms, %d of %d landed; refused %d times, granted after %.0f ms, %d landed", gone,
                 landed_when_gone, WRITES, refused, granted, count);
}

struct finding duplicated_lock(struct place place) {
    char path[] = "lock-XXXXXX";
    int fd = mkstemp(path), other = open(path, O_RDWR);
    (void)place;
    unlink(path);
    pid_t child = fork();
    if (child == 0) _exit(set_lock(fd, F_OFD_SETLK, F_WRLCK) != 0); // our descriptor is a duplicate of its own
    need(waitpid(child, NULL, 0) == child, "waitpid");
    bool held = set_lock(other, F_OFD_SETLK, F_WRLCK) != 0;
    close(fd);
    bool fell = set_lock(other, F_OFD_SETLK, F_WRLCK) == 0;
    close(other);
    return found(held && fell ? HOLDS : FAILS, "%s with the owner dead, %s with the duplicate closed",
                 held ? "held" : "fallen", fell ? "fallen" : "held");
}

// --- What newer kernels have

#ifndef BLOCK_URING_CMD_DISCARD
#define BLOCK_URING_CMD_DISCARD _IO(0x12, 0)
#endif

// Asked for no bytes, a kernel that has the command refuses the range, and one that has not refuses the command.
struct finding discard_command(struct place place) {
    struct io_uring ring;
    struct io_uring_cqe *cqe;
    struct stat status;
    if (!place.slow_disk || stat(place.slow_disk, &status) || !S_ISBLK(status.st_mode))
        return found(NOT_TRIED, "needs a block device");
    need(io_uring_queue_init(8, &ring, RING_FLAGS) == 0, "io_uring_setup");
    int fd = open(place.slow_disk, O_RDWR | O_CLOEXEC);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    io_uring_prep_nop(sqe);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = fd;
    sqe->off = BLOCK_URING_CMD_DISCARD; // cmd_op
    io_uring_submit(&ring);
    need(io_uring_wait_cqe(&ring, &cqe) == 0, "io_uring_wait_cqe");
    int result = cqe->res;
    io_uring_queue_exit(&ring);
    close(fd);
    return found(result == -EINVAL ? HOLDS : LACKS, "an empty range gives %s", strerror(-result));
}

struct finding fixed_fd_install(struct place place) {
    enum { OP_FIXED_FD_INSTALL = 54 };
    struct io_uring_probe *probe = io_uring_get_probe();
    (void)place;
    need(probe, "io_uring_get_probe");
    bool has = OP_FIXED_FD_INSTALL <= probe->last_op;
    unsigned last = probe->last_op;
    io_uring_free_probe(probe);
    return found(has ? HOLDS : LACKS, "the last opcode is %u", last);
}

#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000U
#endif

struct finding direct_alignment(struct place place) {
    union { struct statx statx; uint32_t words[64]; } answer = {0};
    const char *path = place.slow_disk;
    if (!path) return no_slow_disk();
    need(statx(AT_FDCWD, path, 0, STATX_DIOALIGN, &answer.statx) == 0, "statx");
    if (!(answer.statx.stx_mask & STATX_DIOALIGN)) return found(LACKS, "not for this file");
    // stx_dio_mem_align and stx_dio_offset_align, which older headers do not name, are at 0x98.
    return found(HOLDS, "memory %u, offsets %u", answer.words[0x98 / 4], answer.words[0x9c / 4]);
}
