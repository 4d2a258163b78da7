// Start, visible devices and contexts.
#define _GNU_SOURCE
#include "Simulated.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct simulated_settings simulated_settings;

enum { STATE_NEW, STATE_READY, STATE_EXITING };

static atomic_int state = STATE_NEW;
static pid_t own_pid;
static struct context contexts[DEVICE_COUNT_MAX];
static int visible_count;
static _Thread_local CUcontext current;

CUcontext simulated_current(void) { return current; }

bool simulated_is_exiting(void) { return atomic_load(&state) == STATE_EXITING; }

int simulated_context_ordinal(CUcontext context) { return (int)(context - contexts); }

bool simulated_context_is_active(CUcontext context) {
    for (int place = 0; place < visible_count; place++) {
        if (context == &contexts[place]) return atomic_load(&context->active);
    }
    return false;
}

CUresult simulated_enter(const char *function, enum needs needs) {
    CUresult fault = simulated_fault(function);
    if (fault != CUDA_SUCCESS || needs == NEEDS_NOTHING) return fault;
    int now = atomic_load(&state);
    if (now == STATE_EXITING) return CUDA_ERROR_DEINITIALIZED;
    // A forked child has no driver, as with the real one.
    if (now == STATE_NEW || getpid() != own_pid) return CUDA_ERROR_NOT_INITIALIZED;
    if (needs == NEEDS_INIT) return CUDA_SUCCESS;
    if (current == NULL) return CUDA_ERROR_INVALID_CONTEXT;
    return atomic_load(&current->active) ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

static void uuid_make(int physical, char bytes[16]) {
    memcpy(bytes, "QM*SIMULATED-GPU", 16);
    // Early too, so that a prefix of the text tells devices apart.
    bytes[2] = (char)physical;
    bytes[15] = (char)physical;
}

static void uuid_text(int physical, char text[48]) {
    char bytes[16];
    uuid_make(physical, bytes);
    char *to = text + sprintf(text, "GPU-");
    for (int place = 0; place < 16; place++) {
        bool is_start_of_group = place == 4 || place == 6 || place == 8 || place == 10;
        to += sprintf(to, is_start_of_group ? "-%02x" : "%02x", (unsigned char)bytes[place]);
    }
}

// The physical device that an entry of CUDA_VISIBLE_DEVICES names, -1 for none.
static int visible_parse(const char *entry, int physical_count) {
    if (strncmp(entry, "GPU-", 4) == 0) {
        int found = -1;
        for (int physical = 0; physical < physical_count; physical++) {
            char text[48];
            uuid_text(physical, text);
            if (strncmp(text, entry, strlen(entry)) != 0) continue;
            if (found >= 0) return -1;
            found = physical;
        }
        return found;
    }
    // As the real driver, takes the number that the entry starts with.
    char *end;
    long index = strtol(entry, &end, 10);
    return end != entry && index >= 0 && index < physical_count ? (int)index : -1;
}

static int visible_read(int physical_count, int visible[DEVICE_COUNT_MAX]) {
    int count = 0;
    const char *value = getenv("CUDA_VISIBLE_DEVICES");
    if (value == NULL) {
        for (; count < physical_count; count++) visible[count] = count;
        return count;
    }
    char *text = strdup(value);
    char *rest = text;
    for (char *entry; (entry = strsep(&rest, ",")) != NULL;) {
        int physical = visible_parse(entry, physical_count);
        if (physical < 0) break;
        bool is_repeated = false;
        for (int place = 0; place < count; place++) is_repeated |= visible[place] == physical;
        if (is_repeated) {
            // A device named twice leaves none, as with the real driver.
            count = 0;
            break;
        }
        visible[count++] = physical;
    }
    free(text);
    return count;
}

static unsigned long long number_read(const char *name, unsigned long long otherwise) {
    const char *value = getenv(name);
    if (value == NULL || *value == 0) return otherwise;
    char *end;
    unsigned long long number = strtoull(value, &end, 10);
    if (*end == 0 && *value != '-') return number;
    fprintf(stderr, "simulated CUDA: %s: ignoring \"%s\"\n", name, value);
    return otherwise;
}

static void at_exit(void) {
    if (getpid() != own_pid) return;
    simulated_locked();
    atomic_store(&state, STATE_EXITING);
    simulated_files_unlink_own();
    simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuInit(unsigned int flags) {
    ENTER(NEEDS_NOTHING);
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    simulated_locked();
    int now = atomic_load(&state);
    if (now == STATE_EXITING) return simulated_unlocked(CUDA_ERROR_DEINITIALIZED);
    if (now == STATE_READY) {
        bool is_forked = getpid() != own_pid;
        return simulated_unlocked(is_forked ? CUDA_ERROR_NOT_INITIALIZED : CUDA_SUCCESS);
    }
    unsigned long long count = number_read("SIMULATED_CUDA_DEVICES", 2);
    simulated_settings.physical_count = count < DEVICE_COUNT_MAX ? (int)count : DEVICE_COUNT_MAX;
    simulated_settings.memory_byte_count = number_read("SIMULATED_CUDA_MEMORY", 1ull << 30);
    simulated_settings.copy_bytes_per_second =
        number_read("SIMULATED_CUDA_COPY_BYTES_PER_SECOND", 0);
    int visible[DEVICE_COUNT_MAX];
    visible_count = visible_read(simulated_settings.physical_count, visible);
    if (visible_count == 0) return simulated_unlocked(CUDA_ERROR_NO_DEVICE);
    for (int place = 0; place < visible_count; place++) contexts[place].physical = visible[place];
    simulated_files_sweep();
    simulated_groups_sweep();
    own_pid = getpid();
    atexit(at_exit);
    atomic_store(&state, STATE_READY);
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuDriverGetVersion(int *version) {
    ENTER(NEEDS_NOTHING);
    if (version == NULL) return CUDA_ERROR_INVALID_VALUE;
    *version = 13000;
    return CUDA_SUCCESS;
}

static bool is_device(CUdevice device) { return device >= 0 && device < visible_count; }

#define CHECK_DEVICE(out, device)                                \
    do {                                                         \
        if ((out) == NULL) return CUDA_ERROR_INVALID_VALUE;      \
        if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE; \
    } while (0)

EXPORT CUresult cuDeviceGetCount(int *count) {
    ENTER(NEEDS_INIT);
    if (count == NULL) return CUDA_ERROR_INVALID_VALUE;
    *count = visible_count;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    ENTER(NEEDS_INIT);
    CHECK_DEVICE(device, ordinal);
    *device = ordinal;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetName(char *name, int byte_count, CUdevice device) {
    ENTER(NEEDS_INIT);
    CHECK_DEVICE(name, device);
    if (byte_count <= 0) return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, (size_t)byte_count, "Simulated GPU");
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    ENTER(NEEDS_INIT);
    CHECK_DEVICE(uuid, device);
    uuid_make(contexts[device].physical, uuid->bytes);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetPCIBusId(char *text, int byte_count, CUdevice device) {
    ENTER(NEEDS_INIT);
    CHECK_DEVICE(text, device);
    if (byte_count < 13) return CUDA_ERROR_INVALID_VALUE;
    snprintf(text, (size_t)byte_count, "0000:%02X:00.0", contexts[device].physical + 1);
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *byte_count, CUdevice device) {
    ENTER(NEEDS_INIT);
    CHECK_DEVICE(byte_count, device);
    *byte_count = simulated_settings.memory_byte_count;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    ENTER(NEEDS_INIT);
    (void)attribute;
    CHECK_DEVICE(value, device);
    *value = 1;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer) {
    ENTER(NEEDS_INIT);
    CHECK_DEVICE(can, device);
    CHECK_DEVICE(can, peer);
    *can = device != peer;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    ENTER(NEEDS_INIT);
    CHECK_DEVICE(context, device);
    simulated_locked();
    while (contexts[device].is_ending) pthread_cond_wait(&simulated_changed, &simulated_lock);
    contexts[device].retain_count++;
    atomic_store(&contexts[device].active, true);
    *context = &contexts[device];
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    ENTER(NEEDS_INIT);
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    struct context *context = &contexts[device];
    simulated_locked();
    if (context->retain_count == 0) return simulated_unlocked(CUDA_ERROR_INVALID_CONTEXT);
    if (--context->retain_count == 0) {
        atomic_store(&context->active, false);
        context->is_ending = true;
        simulated_events_end(context);
        simulated_streams_end(context);
        simulated_memory_end(context);
        memset(context->peers, 0, sizeof context->peers);
        context->is_ending = false;
        pthread_cond_broadcast(&simulated_changed);
    }
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    ENTER(NEEDS_INIT);
    if (context != NULL && !simulated_context_is_active(context)) return CUDA_ERROR_INVALID_CONTEXT;
    current = context;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context) {
    ENTER(NEEDS_INIT);
    if (context == NULL) return CUDA_ERROR_INVALID_VALUE;
    *context = current;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags) {
    ENTER(NEEDS_CONTEXT);
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (!simulated_context_is_active(peer)) return CUDA_ERROR_INVALID_CONTEXT;
    if (peer == current) return CUDA_ERROR_INVALID_DEVICE;
    simulated_locked();
    bool *is_enabled = &current->peers[peer - contexts];
    CUresult result = *is_enabled ? CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED : CUDA_SUCCESS;
    *is_enabled = true;
    return simulated_unlocked(result);
}
