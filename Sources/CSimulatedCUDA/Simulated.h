// What the files of the simulated driver share.
#ifndef CHECKPOINT_ENGINE_SIMULATED_H
#define CHECKPOINT_ENGINE_SIMULATED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

// The ABI.

typedef int CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct context *CUcontext;
typedef struct stream *CUstream;
typedef struct event *CUevent;

typedef struct {
    char bytes[16];
} CUuuid;

typedef struct {
    char reserved[64];
} CUipcMemHandle;

typedef struct {
    size_t srcXInBytes;
    size_t srcY;
    unsigned int srcMemoryType;
    const void *srcHost;
    CUdeviceptr srcDevice;
    void *srcArray;
    size_t srcPitch;
    size_t dstXInBytes;
    size_t dstY;
    unsigned int dstMemoryType;
    void *dstHost;
    CUdeviceptr dstDevice;
    void *dstArray;
    size_t dstPitch;
    size_t WidthInBytes;
    size_t Height;
} CUDA_MEMCPY2D_v2;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_DEINITIALIZED = 4,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_MAP_FAILED = 205,
    CUDA_ERROR_ALREADY_MAPPED = 208,
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700,
    CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED = 704,
    CUDA_ERROR_CONTEXT_IS_DESTROYED = 709,
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED = 712,
    CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED = 713,
    CUDA_ERROR_NOT_SUPPORTED = 801,
};

#define EXPORT __attribute__((visibility("default")))

#pragma GCC visibility push(hidden)

// Settings, read by cuInit.

enum { DEVICE_COUNT_MAX = 64 };

struct simulated_settings {
    int physical_count;
    unsigned long long memory_byte_count;
    unsigned long long copy_bytes_per_second;  // 0: as fast as the host copies
};
extern struct simulated_settings simulated_settings;

// Entry of each call: injected faults, then what the call needs.

enum needs { NEEDS_NOTHING, NEEDS_INIT, NEEDS_CONTEXT };

CUresult simulated_enter(const char *function, enum needs needs);
CUresult simulated_fault(const char *function);

#define ENTER(needs)                                             \
    do {                                                         \
        CUresult entered_ = simulated_enter(__func__, needs);    \
        if (entered_ != CUDA_SUCCESS) return entered_;           \
    } while (0)

// One lock for everything; no copy and no sleep happens while it is held.
extern pthread_mutex_t simulated_lock;
// Signalled whenever an operation is done or a stream has gone.
extern pthread_cond_t simulated_changed;

static inline void simulated_locked(void) { pthread_mutex_lock(&simulated_lock); }

static inline CUresult simulated_unlocked(CUresult result) {
    pthread_mutex_unlock(&simulated_lock);
    return result;
}

// Contexts: one per visible device, for the life of the process.

struct context {
    int physical;
    int retain_count;
    bool is_ending;  // what it held is being given back; who retains it waits
    atomic_bool active;
    bool peers[DEVICE_COUNT_MAX];
};

bool simulated_context_is_active(CUcontext context);
// Its place among the visible devices.
int simulated_context_ordinal(CUcontext context);
CUcontext simulated_current(void);
// Whether the process is past its cleanup at exit.
bool simulated_is_exiting(void);

// Files of device memory: /dev/shm/simulated-cuda-<device>-<pid>-<n>.

enum { PATH_BYTE_COUNT = 56 };

void simulated_files_sweep(void);
unsigned long long simulated_files_used(int physical);
// Makes, sizes and maps a file.
CUresult simulated_file_make(int physical, size_t byte_count, char path[PATH_BYTE_COUNT], void **start);
// Maps the file of another process; CUDA_ERROR_INVALID_VALUE for what is no such file.
CUresult simulated_file_map(const char *path, size_t byte_count, void **start);
void simulated_files_unlink_own(void);
// Whether a process runs, one that was killed and not waited for does not.
bool simulated_is_alive(int pid);
// Removes what groups of processes that are gone have left.
void simulated_groups_sweep(void);

// Memory. All with the lock held.

// Whether the range lies in one allocation or open mapping.
bool simulated_is_device_range(uintptr_t start, size_t byte_count);
// Whether the range lies in one registered range or meets none.
bool simulated_is_host_range(uintptr_t start, size_t byte_count);
// Ends all memory of a context.
void simulated_memory_end(CUcontext context);

// Streams. All with the lock held.

enum operation_kind { OPERATION_COPY, OPERATION_SET, OPERATION_RECORD, OPERATION_WAIT, OPERATION_CALL };

struct record {
    int reference_count;
    bool is_done;
    struct timespec time;
};

struct operation {
    enum operation_kind kind;
    uintptr_t target, source;
    size_t target_pitch, source_pitch, width, height;
    unsigned char value;
    struct record *record;
    void (*call)(void *argument);  // without the lock; it owns the argument
    void *argument;
    uint64_t sequence;
    struct operation *next;
};

// The stream behind a handle. For NULL, which is in order with all blocking streams of the current
// context, waits for those. The lock may be released meanwhile: check memory afterwards.
CUresult simulated_stream_find(CUstream handle, CUstream *stream);
// Queues a copy of the operation; the stream of NULL also waits until it is done.
CUresult simulated_stream_submit(CUstream stream, const struct operation *operation);
// Waits for all operations that all streams have been given.
void simulated_streams_wait(void);
// Ends all streams of a context.
void simulated_streams_end(CUcontext context);
CUcontext simulated_stream_context(CUstream stream);
void simulated_record_release(struct record *record);
// Takes the time that the copy of this many bytes shall last. Without the lock.
void simulated_copy_sleep(size_t byte_count);
// Ends all events of a context. With the lock held.
void simulated_events_end(CUcontext context);

#pragma GCC visibility pop

// Exported functions, by name.

// clang-format off
CUresult cuInit(unsigned int flags);
CUresult cuDriverGetVersion(int *version);
CUresult cuGetErrorName(CUresult error, const char **name);
CUresult cuGetErrorString(CUresult error, const char **text);
CUresult cuDeviceGetCount(int *count);
CUresult cuDeviceGet(CUdevice *device, int ordinal);
CUresult cuDeviceGetName(char *name, int byte_count, CUdevice device);
CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device);
CUresult cuDeviceGetPCIBusId(char *text, int byte_count, CUdevice device);
CUresult cuDeviceTotalMem_v2(size_t *byte_count, CUdevice device);
CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device);
CUresult cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer);
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device);
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device);
CUresult cuCtxSetCurrent(CUcontext context);
CUresult cuCtxGetCurrent(CUcontext *context);
CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags);
CUresult cuMemGetInfo_v2(size_t *free_byte_count, size_t *total_byte_count);
CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t byte_count);
CUresult cuMemFree_v2(CUdeviceptr pointer);
CUresult cuMemHostRegister_v2(void *pointer, size_t byte_count, unsigned int flags);
CUresult cuMemHostUnregister(void *pointer);
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *host, unsigned int flags);
CUresult cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr pointer);
CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *pointer, CUipcMemHandle handle, unsigned int flags);
CUresult cuIpcCloseMemHandle(CUdeviceptr pointer);
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void *source, size_t byte_count, CUstream stream);
CUresult cuMemcpyDtoHAsync_v2(void *target, CUdeviceptr source, size_t byte_count, CUstream stream);
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t byte_count, CUstream stream);
CUresult cuMemcpyPeerAsync(CUdeviceptr target, CUcontext target_context, CUdeviceptr source,
                           CUcontext source_context, size_t byte_count, CUstream stream);
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D_v2 *copy, CUstream stream);
CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t byte_count, CUstream stream);
CUresult cuStreamCreate(CUstream *stream, unsigned int flags);
CUresult cuStreamDestroy_v2(CUstream stream);
CUresult cuStreamSynchronize(CUstream stream);
CUresult cuStreamQuery(CUstream stream);
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags);
CUresult cuEventCreate(CUevent *event, unsigned int flags);
CUresult cuEventDestroy_v2(CUevent event);
CUresult cuEventRecord(CUevent event, CUstream stream);
CUresult cuEventSynchronize(CUevent event);
CUresult cuEventQuery(CUevent event);
CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end);
// clang-format on

#endif
