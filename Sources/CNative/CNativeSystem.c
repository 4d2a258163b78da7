#define _GNU_SOURCE
#include "CNativeSystem.h"

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

int ce_open(const char *path, int flags, unsigned int mode) {
    return open(path, flags, (mode_t)mode);
}

int ce_pipe(int ends[2]) {
    return pipe2(ends, O_CLOEXEC | O_NONBLOCK);
}

long ce_file_system_type(int descriptor) {
    struct statfs status;
    return fstatfs(descriptor, &status) == 0 ? (long)status.f_type : -1;
}

void ce_trim_heap(void) {
    malloc_trim(0);
}

void ce_heap_threshold(int byte_count) {
    mallopt(M_MMAP_THRESHOLD, byte_count);
}

void ce_thread_name(const char *name) {
    pthread_setname_np(pthread_self(), name);
}

const char *ce_error_text(int number) {
    return strerrordesc_np(number);
}
