// Device memory, memory of other processes, registered host memory.
#define _GNU_SOURCE
#include "Simulated.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum range_kind { RANGE_ALLOCATION, RANGE_IMPORT, RANGE_HOST };

struct range {
    enum range_kind kind;
    CUcontext context;
    uintptr_t start;
    size_t byte_count;
    bool has_device_pointer;  // of host memory
    char path[PATH_BYTE_COUNT];
    struct range *next;
};

// What the 64 bytes of a handle hold.
struct handle {
    char path[PATH_BYTE_COUNT];
    uint64_t byte_count;
};
_Static_assert(sizeof(struct handle) == sizeof(CUipcMemHandle), "a handle has 64 bytes");

static struct range *ranges;

static bool contains(const struct range *range, uintptr_t start, size_t byte_count) {
    if (start < range->start) return false;
    size_t offset = start - range->start;
    return offset <= range->byte_count && byte_count <= range->byte_count - offset;
}

static bool meets(const struct range *range, uintptr_t start, size_t byte_count) {
    if (start < range->start) return range->start - start < byte_count;
    return start - range->start < range->byte_count;
}

bool simulated_is_device_range(uintptr_t start, size_t byte_count) {
    for (struct range *range = ranges; range != NULL; range = range->next) {
        if (range->kind == RANGE_HOST && !range->has_device_pointer) continue;
        if (contains(range, start, byte_count)) return true;
    }
    return false;
}

bool simulated_is_host_range(uintptr_t start, size_t byte_count) {
    for (struct range *range = ranges; range != NULL; range = range->next) {
        if (range->kind != RANGE_HOST || !meets(range, start, byte_count)) continue;
        return contains(range, start, byte_count);
    }
    return true;
}

// The place in the list of the range of a kind that starts there; it holds NULL when there is none.
static struct range **find(enum range_kind kind, uintptr_t start) {
    struct range **place = &ranges;
    while (*place != NULL && ((*place)->kind != kind || (*place)->start != start)) {
        place = &(*place)->next;
    }
    return place;
}

static struct range *take(struct range **place) {
    struct range *range = *place;
    if (range != NULL) *place = range->next;
    return range;
}

// Copies that were issued may still use it.
static void end(struct range *range) {
    if (range->kind != RANGE_HOST) {
        simulated_streams_wait();
        if (range->kind == RANGE_ALLOCATION) unlink(range->path);
        munmap((void *)range->start, range->byte_count);
    }
    free(range);
}

void simulated_memory_end(CUcontext context) {
    struct range **place = &ranges;
    while (*place != NULL) {
        if ((*place)->context != context) {
            place = &(*place)->next;
            continue;
        }
        end(take(place));
        // The list may have changed while the lock was released.
        place = &ranges;
    }
}

static struct range *make(enum range_kind kind, uintptr_t start, size_t byte_count) {
    struct range *range = calloc(1, sizeof *range);
    if (range == NULL) return NULL;
    range->kind = kind;
    range->context = simulated_current();
    range->start = start;
    range->byte_count = byte_count;
    return range;
}

static void put(struct range *range) {
    range->next = ranges;
    ranges = range;
}

EXPORT CUresult cuMemGetInfo_v2(size_t *free_byte_count, size_t *total_byte_count) {
    ENTER(NEEDS_CONTEXT);
    if (free_byte_count == NULL || total_byte_count == NULL) return CUDA_ERROR_INVALID_VALUE;
    unsigned long long total = simulated_settings.memory_byte_count;
    unsigned long long used = simulated_files_used(simulated_current()->physical);
    *total_byte_count = total;
    *free_byte_count = used < total ? total - used : 0;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t byte_count) {
    ENTER(NEEDS_CONTEXT);
    if (pointer == NULL || byte_count == 0) return CUDA_ERROR_INVALID_VALUE;
    struct range *range = make(RANGE_ALLOCATION, 0, byte_count);
    if (range == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    void *start;
    int physical = range->context->physical;
    CUresult result = simulated_file_make(physical, byte_count, range->path, &start);
    if (result != CUDA_SUCCESS) {
        free(range);
        return result;
    }
    range->start = (uintptr_t)start;
    *pointer = range->start;
    simulated_locked();
    put(range);
    // The cleanup at exit may have missed it.
    if (simulated_is_exiting()) unlink(range->path);
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer) {
    ENTER(NEEDS_CONTEXT);
    simulated_locked();
    struct range *range = take(find(RANGE_ALLOCATION, (uintptr_t)pointer));
    if (range == NULL) return simulated_unlocked(CUDA_ERROR_INVALID_VALUE);
    end(range);
    return simulated_unlocked(CUDA_SUCCESS);
}

// Whether all pages of a range are mapped.
static bool is_mapped(uintptr_t start, size_t byte_count) {
    uintptr_t page_byte_count = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = start & ~(page_byte_count - 1);
    return msync((void *)first, byte_count + (start - first), MS_ASYNC) == 0;
}

EXPORT CUresult cuMemHostRegister_v2(void *pointer, size_t byte_count, unsigned int flags) {
    ENTER(NEEDS_CONTEXT);
    uintptr_t start = (uintptr_t)pointer;
    // Portable, device map, I/O memory and read only.
    const unsigned int known_flags = 0xf;
    if (pointer == NULL || byte_count == 0 || (flags & ~known_flags) != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (byte_count - 1 > UINTPTR_MAX - start || !is_mapped(start, byte_count)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    struct range *made = make(RANGE_HOST, start, byte_count);
    if (made == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    simulated_locked();
    for (struct range *range = ranges; range != NULL; range = range->next) {
        if (range->kind != RANGE_HOST || !meets(range, start, byte_count)) continue;
        free(made);
        return simulated_unlocked(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    }
    put(made);
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuMemHostUnregister(void *pointer) {
    ENTER(NEEDS_CONTEXT);
    simulated_locked();
    struct range *range = take(find(RANGE_HOST, (uintptr_t)pointer));
    if (range == NULL) return simulated_unlocked(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    end(range);
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *host, unsigned int flags) {
    ENTER(NEEDS_CONTEXT);
    if (device == NULL || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    simulated_locked();
    for (struct range *range = ranges; range != NULL; range = range->next) {
        if (range->kind != RANGE_HOST || !contains(range, (uintptr_t)host, 1)) continue;
        // From now on it is device memory too.
        range->has_device_pointer = true;
        *device = (uintptr_t)host;
        return simulated_unlocked(CUDA_SUCCESS);
    }
    return simulated_unlocked(CUDA_ERROR_INVALID_VALUE);
}

EXPORT CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr pointer) {
    ENTER(NEEDS_CONTEXT);
    if (handle == NULL) return CUDA_ERROR_INVALID_VALUE;
    simulated_locked();
    for (struct range *range = ranges; range != NULL; range = range->next) {
        if (range->kind != RANGE_ALLOCATION || !contains(range, (uintptr_t)pointer, 1)) continue;
        // A pointer into an allocation gives the handle of all of it.
        struct handle content = {.byte_count = range->byte_count};
        memcpy(content.path, range->path, sizeof content.path);
        memcpy(handle, &content, sizeof content);
        return simulated_unlocked(CUDA_SUCCESS);
    }
    return simulated_unlocked(CUDA_ERROR_INVALID_VALUE);
}

EXPORT CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *pointer, CUipcMemHandle handle, unsigned int flags) {
    ENTER(NEEDS_CONTEXT);
    // The only flag enables peer access, which is always there.
    if (pointer == NULL || flags > 1) return CUDA_ERROR_INVALID_VALUE;
    struct handle content;
    memcpy(&content, &handle, sizeof content);
    if (content.path[PATH_BYTE_COUNT - 1] != 0) return CUDA_ERROR_INVALID_VALUE;
    struct range *made = make(RANGE_IMPORT, 0, content.byte_count);
    if (made == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(made->path, content.path, sizeof made->path);
    simulated_locked();
    CUresult result = CUDA_SUCCESS;
    for (struct range *range = ranges; range != NULL; range = range->next) {
        if (range->kind == RANGE_IMPORT && strcmp(range->path, made->path) == 0) {
            result = CUDA_ERROR_ALREADY_MAPPED;
        }
    }
    void *start;
    if (result == CUDA_SUCCESS) result = simulated_file_map(made->path, made->byte_count, &start);
    if (result != CUDA_SUCCESS) {
        free(made);
        return simulated_unlocked(result);
    }
    made->start = (uintptr_t)start;
    *pointer = made->start;
    put(made);
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuIpcCloseMemHandle(CUdeviceptr pointer) {
    ENTER(NEEDS_CONTEXT);
    simulated_locked();
    struct range *range = take(find(RANGE_IMPORT, (uintptr_t)pointer));
    if (range == NULL) return simulated_unlocked(CUDA_ERROR_INVALID_VALUE);
    end(range);
    return simulated_unlocked(CUDA_SUCCESS);
}
