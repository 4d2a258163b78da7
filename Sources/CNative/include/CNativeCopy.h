// Copies between memory that is too large for the caches.
#ifndef CHECKPOINT_ENGINE_CNATIVE_COPY_H
#define CHECKPOINT_ENGINE_CNATIVE_COPY_H

#include <stddef.h>

// memcpy(3) for targets that nobody reads soon: the stores go past the caches, so that the target's lines are not
// read first. The C library does the same only above a threshold near the size of the last cache. The two
// ranges do not overlap.
void ce_copy_streaming(void *target, const void *source, size_t byte_count);

#endif
