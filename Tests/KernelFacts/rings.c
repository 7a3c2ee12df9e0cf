// Rings that outlive the program that submitted to them.
#include "facts.h"

enum { OPERATIONS = 64, NOT_CONSUMED = -9999 };

struct tally { long executed, cancelled, not_consumed, other, inconsistent; };

static void make_directories(struct io_uring *ring, char names[][64], struct signal_line line) {
    for (int i = 0; i < OPERATIONS; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
        io_uring_prep_mkdirat(sqe, AT_FDCWD, names[i], 0755);
        sqe->user_data = i;
    }
    say_ready(line);
    io_uring_submit(ring);
    for (;;) pause();
}

// Compares each operation's completion with the file system.
static void compare(struct io_uring *ring, char names[][64], struct tally *tally) {
    int result[OPERATIONS];
    for (int i = 0; i < OPERATIONS; i++) result[i] = NOT_CONSUMED;
    for (unsigned j = *ring->cq.khead; j != *ring->cq.ktail; j++) {
        struct io_uring_cqe *cqe = &ring->cq.cqes[j & *ring->cq.kring_mask];
        result[cqe->user_data] = cqe->res;
    }
    for (int i = 0; i < OPERATIONS; i++) {
        struct stat status;
        bool exists = stat(names[i], &status) == 0, claimed = result[i] == 0;
        if (claimed) tally->executed++;
        else if (result[i] == NOT_CONSUMED) tally->not_consumed++;
        else if (result[i] == -ECANCELED || result[i] == -EINTR) tally->cancelled++;
        else tally->other++;
        tally->inconsistent += exists != claimed;
        if (exists) rmdir(names[i]);
    }
}

struct finding journal(struct place place) {
    enum { ROUNDS = 200 };
    static char names[OPERATIONS][64];
    struct tally tally = {0};
    (void)place;
    srand(1);
    // More rounds where the machine is too fast or too busy for a death in the middle.
    for (int round = 0; round < ROUNDS || (round < 50 * ROUNDS && tally.executed == 1L * OPERATIONS * round); round++) {
        struct io_uring ring;
        struct io_uring_params parameters = {.flags = RING_FLAGS};
        need(io_uring_queue_init_params(OPERATIONS, &ring, &parameters) == 0, "io_uring_setup");
        char directory[] = "journal-XXXXXX";
        need(mkdtemp(directory), "mkdtemp");
        for (int i = 0; i < OPERATIONS; i++) sprintf(names[i], "%s/%d", directory, i);
        struct signal_line line = make_line();
        pid_t child = fork();
        if (child == 0) make_directories(&ring, names, line);
        await_ready(line);
        if (round % 2) nanosleep(&(struct timespec){0, rand() % 600 * 1000}, 0);
        kill_and_reap(child);
        unsigned consumed = *ring.sq.khead;
        for (int limit = 0; limit < 4000 && *ring.cq.ktail != consumed; limit++) usleep(500);
        compare(&ring, names, &tally);
        rmdir(directory);
        io_uring_queue_exit(&ring);
    }
    long all = tally.executed + tally.cancelled + tally.not_consumed + tally.other;
    return found(tally.inconsistent || !tally.executed || tally.executed == all ? FAILS : HOLDS,
                 "%ld happened, %ld cancelled, %ld not begun, %ld others; %ld told wrongly", tally.executed,
                 tally.cancelled, tally.not_consumed, tally.other, tally.inconsistent);
}

// --- A program exec'd anew adopts the ring, with the file and the buffer that the dead one registered on it

enum { GUEST_SIZE = 16 << 20 };
#define GUEST ((char *)0x600000000000)

static void map_guest(int memory) {
    need(mmap(GUEST, GUEST_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, memory, 0) == GUEST, "mmap");
}

static int reap(struct io_uring *ring) {
    struct io_uring_cqe *cqe;
    need(io_uring_wait_cqe(ring, &cqe) == 0, "io_uring_wait_cqe");
    int result = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return result;
}

// Status 0: everything the predecessor began was found, and a request of our own works; else which step did not.
int successor(char **arguments) {
    int fd = atoi(arguments[0]), memory = atoi(arguments[1]), saved = atoi(arguments[2]);
    struct io_uring_params parameters;
    struct io_uring ring;
    need(pread(saved, &parameters, sizeof parameters, 0) == sizeof parameters, "pread");
    map_guest(memory);
    double start = now_ms();
    if (io_uring_queue_mmap(fd, &parameters, &ring)) return 10;
    double mapped = now_ms() - start;
    need(pwrite(saved, &mapped, sizeof mapped, 4096) == sizeof mapped, "pwrite");
    if (*ring.sq.khead - *ring.cq.khead != 2) return 11;
    if (reap(&ring) != 4096 || reap(&ring) != 8192) return 12;
    ring.sq.sqe_head = ring.sq.sqe_tail = *ring.sq.ktail; // liburing's private copies start at 0
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    io_uring_prep_read_fixed(sqe, 0, GUEST + 8192, 4096, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE;
    io_uring_submit(&ring);
    if (reap(&ring) != 4096) return 13;
    return memcmp(GUEST + 8192, "HELLO", 5) ? 14 : 0;
}

static void submit_and_wait_for_death(struct io_uring *ring, int memory, const char *image, struct signal_line line) {
    map_guest(memory);
    struct iovec guest = {GUEST, GUEST_SIZE};
    need(io_uring_register_buffers(ring, &guest, 1) == 0, "register buffers");
    need(io_uring_register_files_sparse(ring, 4) == 0, "register files");
    io_uring_prep_openat_direct(io_uring_get_sqe(ring), AT_FDCWD, image, O_RDWR | O_CREAT, 0600, 0);
    io_uring_submit(ring);
    need(reap(ring) >= 0, "open as a direct descriptor");
    memcpy(GUEST, "HELLO", 5);
    for (int i = 0; i < 2; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
        io_uring_prep_write_fixed(sqe, 0, GUEST, i ? 8192 : 4096, i ? 4096 : 0, 0);
        sqe->flags |= IOSQE_FIXED_FILE;
        // One after the other, so that their order is known; the completions stay where they are.
        io_uring_submit_and_wait(ring, i + 1);
    }
    say_ready(line);
    for (;;) pause();
}

void become_successor(int ring, int memory, int parameters) {
    char arguments[3][12];
    fcntl(ring, F_SETFD, 0); // inherited over exec
    sprintf(arguments[0], "%d", ring);
    sprintf(arguments[1], "%d", memory);
    sprintf(arguments[2], "%d", parameters);
    execl("/proc/self/exe", "kernel-facts", "successor", arguments[0], arguments[1], arguments[2], (char *)0);
    _exit(20);
}

struct finding adoption(struct place place) {
    char image[] = "adoption-XXXXXX";
    struct io_uring_params parameters = {.flags = RING_FLAGS};
    struct io_uring ring;
    int memory = memfd_create("guest", 0), saved = memfd_create("parameters", 0), status;
    double mapped;
    (void)place;
    need(ftruncate(memory, GUEST_SIZE) == 0, "ftruncate");
    need(io_uring_queue_init_params(64, &ring, &parameters) == 0, "io_uring_setup");
    need(write(saved, &parameters, sizeof parameters) == sizeof parameters, "write");
    close(mkstemp(image));
    struct signal_line line = make_line();
    pid_t child = fork();
    if (child == 0) submit_and_wait_for_death(&ring, memory, image, line);
    await_ready(line);
    kill_and_reap(child);
    child = fork();
    if (child == 0) become_successor(ring.ring_fd, memory, saved);
    need(waitpid(child, &status, 0) == child, "waitpid");
    unlink(image);
    io_uring_queue_exit(&ring);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        return found(FAILS, "the successor ended at step %d", WEXITSTATUS(status));
    need(pread(saved, &mapped, sizeof mapped, 4096) == sizeof mapped, "pread");
    return found(HOLDS, "mapped in %.2f ms", mapped);
}

// --- What a ring allows

static int submit_one(struct io_uring *ring, void (*prepare)(struct io_uring_sqe *)) {
    prepare(io_uring_get_sqe(ring));
    int submitted = io_uring_submit(ring);
    return submitted == 1 ? reap(ring) : submitted;
}
static void prepare_nop(struct io_uring_sqe *sqe) { io_uring_prep_nop(sqe); }
static void prepare_open(struct io_uring_sqe *sqe) { io_uring_prep_openat(sqe, AT_FDCWD, "/", O_RDONLY, 0); }

struct finding restrictions(struct place place) {
    struct io_uring_params parameters = {.flags = RING_FLAGS | IORING_SETUP_R_DISABLED};
    struct io_uring ring;
    struct io_uring_restriction allowed = {.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = IORING_OP_NOP};
    int status;
    (void)place;
    need(io_uring_queue_init_params(8, &ring, &parameters) == 0, "io_uring_setup");
    need(io_uring_register_restrictions(&ring, &allowed, 1) == 0, "register restrictions");
    for (int owner = 0; owner < 2; owner++) {
        pid_t child = fork();
        if (child == 0) {
            if (owner == 0) need(io_uring_enable_rings(&ring) == 0, "enable rings");
            ring.sq.sqe_head = ring.sq.sqe_tail = *ring.sq.ktail;
            _exit(submit_one(&ring, prepare_nop) != 0 ? 1 : submit_one(&ring, prepare_open) != -EACCES ? 2 : 0);
        }
        need(waitpid(child, &status, 0) == child, "waitpid");
        if (!WIFEXITED(status) || WEXITSTATUS(status))
            return found(FAILS, "owner %d: %s", owner + 1,
                         WEXITSTATUS(status) == 1 ? "what is allowed fails" : "what is forbidden works");
    }
    io_uring_queue_exit(&ring);
    return found(HOLDS, "two owners, what is forbidden gives EACCES");
}

struct finding armed_polls(struct place place) {
    struct io_uring ring;
    struct io_uring_params parameters = {.flags = RING_FLAGS};
    int quiet[2];
    (void)place;
    need(io_uring_queue_init_params(8, &ring, &parameters) == 0 && pipe(quiet) == 0, "io_uring_setup");
    struct signal_line line = make_line();
    pid_t child = fork();
    if (child == 0) {
        io_uring_prep_poll_add(io_uring_get_sqe(&ring), quiet[0], POLLIN);
        io_uring_submit(&ring);
        say_ready(line);
        for (;;) pause();
    }
    await_ready(line);
    kill_and_reap(child);
    usleep(300000);
    if (completions(&ring)) return found(FAILS, "it completed with %d", ring.cq.cqes[0].res);
    need(write(quiet[1], "x", 1) == 1, "write");
    for (int limit = 0; limit < 2000 && !completions(&ring); limit++) {
        syscall(SYS_io_uring_enter, ring.ring_fd, 0, 0, IORING_ENTER_GETEVENTS, NULL, 0);
        usleep(500);
    }
    if (!completions(&ring)) return found(HOLDS, "and not when there is data either");
    int result = ring.cq.cqes[*ring.cq.khead & *ring.cq.kring_mask].res;
    return found(result == -ECANCELED ? HOLDS : FAILS, "with data it gives %d", result);
}

// --- How a ring travels

// EINVAL since Linux 6.8; before that the kernel takes it.
static int send_over_socket(int fd) {
    int pair[2];
    need(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair");
    union { char bytes[CMSG_SPACE(sizeof fd)]; struct cmsghdr header; } control = {0};
    struct iovec byte = {"x", 1};
    struct msghdr message = {
        .msg_iov = &byte, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    int result = sendmsg(pair[0], &message, 0) < 0 ? -errno : 0;
    close(pair[0]);
    close(pair[1]);
    return result;
}

struct finding transport(struct place place) {
    struct io_uring ring;
    (void)place;
    need(io_uring_queue_init(8, &ring, RING_FLAGS) == 0, "io_uring_setup");
    struct signal_line line = make_line();
    pid_t child = fork();
    if (child == 0) {
        say_ready(line);
        for (;;) pause();
    }
    await_ready(line);
    int pidfd = syscall(SYS_pidfd_open, child, 0);
    int taken = syscall(SYS_pidfd_getfd, pidfd, ring.ring_fd, 0);
    int result = taken < 0 ? -errno : 0, sent = send_over_socket(ring.ring_fd);
    kill_and_reap(child);
    return found(result ? FAILS : HOLDS, "pidfd_getfd %d; over a socket %s", result, sent ? strerror(-sent) : "too");
}
