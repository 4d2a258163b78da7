#define _GNU_SOURCE
#include "CNativeSystem.h"

#include <fcntl.h>
#include <string.h>

int ce_open(const char *path, int flags, unsigned int mode) {
    return open(path, flags, (mode_t)mode);
}

const char *ce_error_text(int number) {
    return strerrordesc_np(number);
}
