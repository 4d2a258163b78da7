#define _GNU_SOURCE
#include "CNativeSystem.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int ce_open(const char *path, int flags, unsigned int mode) {
    return open(path, flags, (mode_t)mode);
}

int ce_pipe(int ends[2]) {
    return pipe2(ends, O_CLOEXEC | O_NONBLOCK);
}

const char *ce_error_text(int number) {
    return strerrordesc_np(number);
}
