#define _GNU_SOURCE
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include "include/CLinux.h"

enum { PAGE = 4096, STACK = 128 << 10, POPULATE_READ = 22 };

// Data is written to one day: its pages become private copies then. Of those that cannot be written to any more
// (relocations), and where the kernel is too old (before 5.14), nothing comes of it.
static int populate_object(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size;
    (void)context;
    for (int index = 0; index < info->dlpi_phnum; index++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[index];
        if (part->p_type != PT_LOAD) continue;
        const uintptr_t start = (info->dlpi_addr + part->p_vaddr) & ~(uintptr_t)(PAGE - 1);
        const uintptr_t end = info->dlpi_addr + part->p_vaddr + part->p_memsz;
        for (uintptr_t page = start; page < end; page += PAGE << 6) {
            const size_t rest = end - page, count = rest < (PAGE << 6) ? rest : (PAGE << 6);
            madvise((void *)page, count, POPULATE_READ);
            if (part->p_flags & PF_W) madvise((void *)page, count, CLINUX_MADV_POPULATE_WRITE);
        }
    }
    return 0;
}

void clinux_populate_program(void) {
    volatile char stack[STACK];
    for (size_t offset = 0; offset < sizeof stack; offset += PAGE) stack[offset] = 0;
    dl_iterate_phdr(populate_object, NULL);
}
