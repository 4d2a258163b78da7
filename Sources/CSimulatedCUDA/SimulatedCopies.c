// Copies: checked when they are issued, done by the thread of the stream.
#define _GNU_SOURCE
#include "Simulated.h"

enum { MEMORY_HOST = 1, MEMORY_DEVICE = 2, MEMORY_UNIFIED = 4 };

// One end of a copy.
struct side {
    unsigned int memory_type;
    uintptr_t start;
    size_t pitch;
};

static CUresult side_check(const struct side *side, size_t width, size_t height) {
    size_t byte_count = (height - 1) * side->pitch + width;
    if (byte_count > UINTPTR_MAX - side->start) return CUDA_ERROR_INVALID_VALUE;
    bool is_device = simulated_is_device_range(side->start, byte_count);
    // Of unified memory, what is no device memory is host memory.
    if (side->memory_type == MEMORY_DEVICE || (side->memory_type == MEMORY_UNIFIED && is_device)) {
        return is_device ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_ADDRESS;
    }
    bool is_host = side->start != 0 && simulated_is_host_range(side->start, byte_count);
    return is_host ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult submit(CUstream handle, struct side target, struct side source, size_t width, size_t height) {
    simulated_locked();
    CUstream stream;
    CUresult result = simulated_stream_find(handle, &stream);
    if (result != CUDA_SUCCESS || width == 0 || height == 0) return simulated_unlocked(result);
    result = side_check(&target, width, height);
    if (result == CUDA_SUCCESS) result = side_check(&source, width, height);
    if (result == CUDA_SUCCESS) {
        struct operation operation = {
            .kind = OPERATION_COPY,
            .target = target.start,
            .source = source.start,
            .target_pitch = target.pitch,
            .source_pitch = source.pitch,
            .width = width,
            .height = height,
        };
        result = simulated_stream_submit(stream, &operation);
    }
    return simulated_unlocked(result);
}

static struct side device(CUdeviceptr pointer) {
    return (struct side){.memory_type = MEMORY_DEVICE, .start = (uintptr_t)pointer};
}

static struct side host(const void *pointer) {
    return (struct side){.memory_type = MEMORY_HOST, .start = (uintptr_t)pointer};
}

EXPORT CUresult cuMemcpyHtoDAsync_v2(
    CUdeviceptr target, const void *source, size_t byte_count, CUstream stream) {
    ENTER(NEEDS_CONTEXT);
    return submit(stream, device(target), host(source), byte_count, 1);
}

EXPORT CUresult cuMemcpyDtoHAsync_v2(
    void *target, CUdeviceptr source, size_t byte_count, CUstream stream) {
    ENTER(NEEDS_CONTEXT);
    return submit(stream, host(target), device(source), byte_count, 1);
}

EXPORT CUresult cuMemcpyDtoDAsync_v2(
    CUdeviceptr target, CUdeviceptr source, size_t byte_count, CUstream stream) {
    ENTER(NEEDS_CONTEXT);
    return submit(stream, device(target), device(source), byte_count, 1);
}

EXPORT CUresult cuMemcpyPeerAsync(CUdeviceptr target, CUcontext target_context, CUdeviceptr source,
                                  CUcontext source_context, size_t byte_count, CUstream stream) {
    ENTER(NEEDS_CONTEXT);
    if (!simulated_context_is_active(target_context) ||
        !simulated_context_is_active(source_context)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    return submit(stream, device(target), device(source), byte_count, 1);
}

// One end of a copy of rows.
static CUresult side_make(struct side *side, unsigned int memory_type, const void *host_start,
                          CUdeviceptr device_start, size_t x, size_t y, size_t pitch, size_t width) {
    const size_t pitch_max = 0x7fffffff;
    if (memory_type != MEMORY_HOST && memory_type != MEMORY_DEVICE && memory_type != MEMORY_UNIFIED) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (pitch > pitch_max || x > pitch || width > pitch - x) return CUDA_ERROR_INVALID_VALUE;
    bool is_host = memory_type == MEMORY_HOST;
    uintptr_t start = is_host ? (uintptr_t)host_start : (uintptr_t)device_start;
    size_t offset, byte_offset;
    if (__builtin_mul_overflow(y, pitch, &offset) || __builtin_add_overflow(offset, x, &byte_offset) ||
        __builtin_add_overflow(start, byte_offset, &start)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *side = (struct side){.memory_type = memory_type, .start = start, .pitch = pitch};
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D_v2 *copy, CUstream stream) {
    ENTER(NEEDS_CONTEXT);
    if (copy == NULL) return CUDA_ERROR_INVALID_VALUE;
    // Keeps the size of a side below that of the address space.
    if (copy->Height > 0xffffffff) return CUDA_ERROR_INVALID_VALUE;
    struct side target, source;
    CUresult result =
        side_make(&target, copy->dstMemoryType, copy->dstHost, copy->dstDevice, copy->dstXInBytes,
                  copy->dstY, copy->dstPitch, copy->WidthInBytes);
    if (result != CUDA_SUCCESS) return result;
    result = side_make(&source, copy->srcMemoryType, copy->srcHost, copy->srcDevice,
                       copy->srcXInBytes, copy->srcY, copy->srcPitch, copy->WidthInBytes);
    if (result != CUDA_SUCCESS) return result;
    return submit(stream, target, source, copy->WidthInBytes, copy->Height);
}

EXPORT CUresult cuMemsetD8Async(
    CUdeviceptr target, unsigned char value, size_t byte_count, CUstream handle) {
    ENTER(NEEDS_CONTEXT);
    simulated_locked();
    CUstream stream;
    CUresult result = simulated_stream_find(handle, &stream);
    if (result != CUDA_SUCCESS || byte_count == 0) return simulated_unlocked(result);
    struct side side = device(target);
    result = side_check(&side, byte_count, 1);
    if (result == CUDA_SUCCESS) {
        struct operation operation = {
            .kind = OPERATION_SET,
            .target = side.start,
            .width = byte_count,
            .value = value,
        };
        result = simulated_stream_submit(stream, &operation);
    }
    return simulated_unlocked(result);
}
