// The part of the CUDA driver API (cuda.h of 12 and later) that the daemon uses, as one table that is filled
// at run time. Contexts, streams and events are opaque handles here: integers as wide as a pointer.
#ifndef CHECKPOINT_ENGINE_CNATIVE_CUDA_H
#define CHECKPOINT_ENGINE_CNATIVE_CUDA_H

#include <stddef.h>
#include <stdint.h>

enum {
    CE_CUDA_SUCCESS = 0,
    CE_CUDA_ERROR_OUT_OF_MEMORY = 2,
    CE_CUDA_ERROR_NO_DEVICE = 100,
    CE_CUDA_ERROR_NOT_READY = 600,
    CE_CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED = 704,

    CE_CUDA_STREAM_NON_BLOCKING = 1,
    CE_CUDA_EVENT_DEFAULT = 0,
    CE_CUDA_HOST_REGISTER_PORTABLE = 1,
    CE_CUDA_HOST_REGISTER_READ_ONLY = 8,
    CE_CUDA_IPC_LAZY_ENABLE_PEER_ACCESS = 1,
    CE_CUDA_ATTRIBUTE_READ_ONLY_HOST_REGISTER = 113,
    CE_CUDA_MEMORY_TYPE_DEVICE = 2,
    CE_CUDA_HANDLE_BYTES = 64,
    CE_CUDA_UUID_BYTES = 16
};

// CUuuid.
typedef struct ce_cuda_uuid {
    uint8_t bytes[CE_CUDA_UUID_BYTES];
} ce_cuda_uuid;

// CUipcMemHandle, passed by value.
typedef struct ce_cuda_ipc_handle {
    uint8_t bytes[CE_CUDA_HANDLE_BYTES];
} ce_cuda_ipc_handle;

// CUDA_MEMCPY2D of version 2.
typedef struct ce_cuda_memcpy2d {
    size_t src_x_bytes;
    size_t src_y;
    unsigned src_memory_type;
    const void *src_host;
    uint64_t src_device;
    void *src_array;
    size_t src_pitch;
    size_t dst_x_bytes;
    size_t dst_y;
    unsigned dst_memory_type;
    void *dst_host;
    uint64_t dst_device;
    void *dst_array;
    size_t dst_pitch;
    size_t width_bytes;
    size_t height;
} ce_cuda_memcpy2d;

_Static_assert(sizeof(ce_cuda_memcpy2d) == 128, "CUDA_MEMCPY2D has 128 bytes");

// Each function with the arguments of its declaration in cuda.h; all return a CUresult.
#define CE_CUDA_FUNCTIONS(X)                                                                    \
    X(cuInit, (unsigned))                                                                       \
    X(cuDriverGetVersion, (int *))                                                              \
    X(cuGetErrorName, (int, const char **))                                                     \
    X(cuGetErrorString, (int, const char **))                                                   \
    X(cuDeviceGetCount, (int *))                                                                \
    X(cuDeviceGet, (int *, int))                                                                \
    X(cuDeviceGetName, (char *, int, int))                                                      \
    X(cuDeviceGetUuid_v2, (ce_cuda_uuid *, int))                                                \
    X(cuDeviceTotalMem_v2, (size_t *, int))                                                     \
    X(cuDeviceGetAttribute, (int *, int, int))                                                  \
    X(cuDeviceCanAccessPeer, (int *, int, int))                                                 \
    X(cuDevicePrimaryCtxRetain, (uintptr_t *, int))                                             \
    X(cuDevicePrimaryCtxRelease_v2, (int))                                                      \
    X(cuCtxSetCurrent, (uintptr_t))                                                             \
    X(cuCtxEnablePeerAccess, (uintptr_t, unsigned))                                             \
    X(cuMemGetInfo_v2, (size_t *, size_t *))                                                    \
    X(cuMemAlloc_v2, (uint64_t *, size_t))                                                      \
    X(cuMemFree_v2, (uint64_t))                                                                 \
    X(cuMemHostRegister_v2, (void *, size_t, unsigned))                                         \
    X(cuMemHostUnregister, (void *))                                                            \
    X(cuIpcGetMemHandle, (ce_cuda_ipc_handle *, uint64_t))                                      \
    X(cuIpcOpenMemHandle_v2, (uint64_t *, ce_cuda_ipc_handle, unsigned))                        \
    X(cuIpcCloseMemHandle, (uint64_t))                                                          \
    X(cuMemcpyHtoDAsync_v2, (uint64_t, const void *, size_t, uintptr_t))                        \
    X(cuMemcpyDtoHAsync_v2, (void *, uint64_t, size_t, uintptr_t))                              \
    X(cuMemcpyDtoDAsync_v2, (uint64_t, uint64_t, size_t, uintptr_t))                            \
    X(cuMemcpy2DAsync_v2, (const ce_cuda_memcpy2d *, uintptr_t))                                \
    X(cuMemsetD8Async, (uint64_t, unsigned char, size_t, uintptr_t))                            \
    X(cuStreamCreate, (uintptr_t *, unsigned))                                                  \
    X(cuStreamDestroy_v2, (uintptr_t))                                                          \
    X(cuStreamSynchronize, (uintptr_t))                                                         \
    X(cuStreamWaitEvent, (uintptr_t, uintptr_t, unsigned))                                      \
    X(cuEventCreate, (uintptr_t *, unsigned))                                                   \
    X(cuEventDestroy_v2, (uintptr_t))                                                           \
    X(cuEventRecord, (uintptr_t, uintptr_t))                                                    \
    X(cuEventSynchronize, (uintptr_t))                                                          \
    X(cuEventQuery, (uintptr_t))                                                                \
    X(cuEventElapsedTime, (float *, uintptr_t, uintptr_t))

typedef struct ce_cuda_table {
#define CE_CUDA_FIELD(name, arguments) int(*name) arguments;
    CE_CUDA_FUNCTIONS(CE_CUDA_FIELD)
#undef CE_CUDA_FIELD
} ce_cuda_table;

// The number of functions in the table.
int ce_cuda_function_count(void);
// The exported name of function `index`, a constant string.
const char *ce_cuda_function_name(int index);
// Sets function `index` of the table; `address` is that of the function of that name.
void ce_cuda_set_function(ce_cuda_table *table, int index, void *address);

#endif
