// Credentials of one thread, by raw system calls: the C library would change those of all threads.
#define _GNU_SOURCE
#include "CLinux.h"
#include <linux/capability.h>
#include <sched.h>

int clinux_allow_fsetid(int allow) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) != 0) return -1;
    const uint32_t bit = 1u << CAP_FSETID;
    const uint32_t before = data[0].effective;
    data[0].effective = allow ? before | (data[0].permitted & bit) : before & ~bit;
    return data[0].effective == before ? 0 : (int)syscall(SYS_capset, &header, data);
}

int clinux_own_umask(void) { return (int)syscall(SYS_unshare, CLONE_FS); }
