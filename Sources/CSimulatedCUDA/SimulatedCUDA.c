// Symbols, texts of errors and injected faults.
#define _GNU_SOURCE
#include "CSimulatedCUDA.h"

#include "Simulated.h"
#include "SimulatedNCCL.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SYMBOL(name) {#name, (void *)name}

static const struct {
    const char *name;
    void *address;
} symbols[] = {
    SYMBOL(cuInit),
    SYMBOL(cuDriverGetVersion),
    SYMBOL(cuGetErrorName),
    SYMBOL(cuGetErrorString),
    SYMBOL(cuDeviceGetCount),
    SYMBOL(cuDeviceGet),
    SYMBOL(cuDeviceGetName),
    SYMBOL(cuDeviceGetUuid_v2),
    SYMBOL(cuDeviceGetPCIBusId),
    SYMBOL(cuDeviceTotalMem_v2),
    SYMBOL(cuDeviceGetAttribute),
    SYMBOL(cuDeviceCanAccessPeer),
    SYMBOL(cuDevicePrimaryCtxRetain),
    SYMBOL(cuDevicePrimaryCtxRelease_v2),
    SYMBOL(cuCtxSetCurrent),
    SYMBOL(cuCtxGetCurrent),
    SYMBOL(cuCtxEnablePeerAccess),
    SYMBOL(cuMemGetInfo_v2),
    SYMBOL(cuMemAlloc_v2),
    SYMBOL(cuMemFree_v2),
    SYMBOL(cuMemHostRegister_v2),
    SYMBOL(cuMemHostUnregister),
    SYMBOL(cuMemHostGetDevicePointer_v2),
    SYMBOL(cuIpcGetMemHandle),
    SYMBOL(cuIpcOpenMemHandle_v2),
    SYMBOL(cuIpcCloseMemHandle),
    SYMBOL(cuMemcpyHtoDAsync_v2),
    SYMBOL(cuMemcpyDtoHAsync_v2),
    SYMBOL(cuMemcpyDtoDAsync_v2),
    SYMBOL(cuMemcpyPeerAsync),
    SYMBOL(cuMemcpy2DAsync_v2),
    SYMBOL(cuMemsetD8Async),
    SYMBOL(cuStreamCreate),
    SYMBOL(cuStreamDestroy_v2),
    SYMBOL(cuStreamSynchronize),
    SYMBOL(cuStreamQuery),
    SYMBOL(cuStreamWaitEvent),
    SYMBOL(cuEventCreate),
    SYMBOL(cuEventDestroy_v2),
    SYMBOL(cuEventRecord),
    SYMBOL(cuEventSynchronize),
    SYMBOL(cuEventQuery),
    SYMBOL(cuEventElapsedTime),
    SYMBOL(ncclGetVersion),
    SYMBOL(ncclGetErrorString),
    SYMBOL(ncclGetLastError),
    SYMBOL(ncclGetUniqueId),
    SYMBOL(ncclCommInitRank),
    SYMBOL(ncclCommInitRankConfig),
    SYMBOL(ncclCommGetAsyncError),
    SYMBOL(ncclCommFinalize),
    SYMBOL(ncclCommDestroy),
    SYMBOL(ncclCommAbort),
    SYMBOL(ncclCommCount),
    SYMBOL(ncclCommUserRank),
    SYMBOL(ncclCommCuDevice),
    SYMBOL(ncclGroupStart),
    SYMBOL(ncclGroupEnd),
    SYMBOL(ncclBroadcast),
    SYMBOL(ncclAllReduce),
};

EXPORT void *simulated_cuda_symbol(const char *name) {
    for (size_t place = 0; place < sizeof symbols / sizeof *symbols; place++) {
        if (strcmp(symbols[place].name, name) == 0) return symbols[place].address;
    }
    return NULL;
}

// Errors that a real driver may give are named too, for injected faults.
static const struct {
    CUresult error;
    const char *name, *text;
} errors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"},
    {100, "CUDA_ERROR_NO_DEVICE", "no device with CUDA is there"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {205, "CUDA_ERROR_MAP_FAILED", "mapping failed"},
    {208, "CUDA_ERROR_ALREADY_MAPPED", "memory is already mapped"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error"},
    {217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", "peer access is not supported"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access"},
    {704, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", "peer access is already enabled"},
    {709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "memory is already registered"},
    {713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "memory is not registered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static CUresult error_text(CUresult error, const char **out, bool is_name) {
    if (out == NULL) return CUDA_ERROR_INVALID_VALUE;
    *out = NULL;
    for (size_t place = 0; place < sizeof errors / sizeof *errors; place++) {
        if (errors[place].error != error) continue;
        *out = is_name ? errors[place].name : errors[place].text;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

EXPORT CUresult cuGetErrorName(CUresult error, const char **name) {
    ENTER(NEEDS_NOTHING);
    return error_text(error, name, true);
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **text) {
    ENTER(NEEDS_NOTHING);
    return error_text(error, text, false);
}

// A fault: SIMULATED_CUDA_FAIL="function:call:error,function:*:error".
struct fault {
    char function[48];
    unsigned long call;  // from 1; 0 means every call
    CUresult error;
    unsigned long seen;
};

enum { FAULT_COUNT_MAX = 32 };

static struct fault faults[FAULT_COUNT_MAX];
static size_t fault_count;
static pthread_once_t faults_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t faults_lock = PTHREAD_MUTEX_INITIALIZER;

static bool fault_parse(const char *text, struct fault *fault) {
    char call[24];
    int length = 0;
    if (sscanf(text, "%47[^:]:%23[^:]:%d%n", fault->function, call, &fault->error, &length) != 3) {
        return false;
    }
    if (text[length] != 0 || simulated_cuda_symbol(fault->function) == NULL) return false;
    if (strcmp(call, "*") == 0) return true;
    char *end;
    fault->call = strtoul(call, &end, 10);
    return *end == 0 && fault->call > 0;
}

static void faults_read(void) {
    const char *value = getenv("SIMULATED_CUDA_FAIL");
    char *text = value != NULL ? strdup(value) : NULL;
    char *rest = text;
    for (char *entry; (entry = strsep(&rest, ",")) != NULL;) {
        if (*entry == 0) continue;
        struct fault fault = {0};
        if (fault_count < FAULT_COUNT_MAX && fault_parse(entry, &fault)) {
            faults[fault_count++] = fault;
        } else {
            fprintf(stderr, "simulated CUDA: SIMULATED_CUDA_FAIL: ignoring \"%s\"\n", entry);
        }
    }
    free(text);
}

CUresult simulated_fault(const char *function) {
    pthread_once(&faults_once, faults_read);
    if (fault_count == 0) return CUDA_SUCCESS;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&faults_lock);
    for (size_t place = 0; place < fault_count; place++) {
        struct fault *fault = &faults[place];
        if (strcmp(fault->function, function) != 0) continue;
        fault->seen++;
        if (result == CUDA_SUCCESS && (fault->call == 0 || fault->call == fault->seen)) {
            result = fault->error;
        }
    }
    pthread_mutex_unlock(&faults_lock);
    return result;
}
