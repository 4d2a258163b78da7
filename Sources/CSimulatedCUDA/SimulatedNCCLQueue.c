// Calls from where they are made to their streams, alone or in groups.
#define _GNU_SOURCE
#include "SimulatedNCCL.h"

#include <stdlib.h>
#include <string.h>

enum { DTYPE_COUNT = 12, JOIN_COUNT_MAX = 64 };

// Bytes of the elements of each ncclDataType_t.
static const size_t dtype_byte_counts[DTYPE_COUNT] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};

// What a thread has called between ncclGroupStart and ncclGroupEnd.
static _Thread_local struct {
    int depth;
    ncclResult_t failure;
    struct call *first, *last;
    ncclComm_t joins[JOIN_COUNT_MAX];
    int join_count;
} calls;

static void append(struct call **first, struct call **last, struct call *call) {
    call->next = NULL;
    if (*first == NULL) {
        *first = call;
    } else {
        (*last)->next = call;
    }
    *last = call;
}

static void discard(struct call **first) {
    while (*first != NULL) {
        struct call *call = *first;
        *first = call->next;
        free(call);
    }
}

void simulated_pending_discard(struct communicator *communicator) {
    discard(&communicator->pending);
}

// Where the stream takes no call that the other members wait for, all learn of it.
static ncclResult_t submit(struct communicator *communicator, struct call *call) {
    struct operation operation = {
        .kind = OPERATION_CALL,
        .call = simulated_call_run,
        .argument = call,
    };
    CUstream stream = call->stream;
    CUresult result = CUDA_SUCCESS;
    if (!call->is_default_stream) result = simulated_stream_find(call->stream, &stream);
    call->number = ++communicator->issued;
    communicator->outstanding++;
    if (result == CUDA_SUCCESS) result = simulated_stream_submit(stream, &operation);
    if (result == CUDA_SUCCESS) return NCCL_SUCCESS;
    communicator->outstanding--;
    free(call);
    simulated_group_fail(communicator->group, NCCL_UNHANDLED_CUDA_ERROR,
                         "rank %d has no stream for call %llu", communicator->rank,
                         (unsigned long long)communicator->issued);
    return NCCL_UNHANDLED_CUDA_ERROR;
}

ncclResult_t simulated_pending_submit(struct communicator *communicator) {
    ncclResult_t result = NCCL_SUCCESS;
    struct call *call;
    while (result == NCCL_SUCCESS && (call = communicator->pending) != NULL) {
        communicator->pending = call->next;
        result = submit(communicator, call);
    }
    return result;
}

bool simulated_group_defers(ncclComm_t handle) {
    if (calls.depth == 0 || calls.join_count == JOIN_COUNT_MAX) return false;
    calls.joins[calls.join_count++] = handle;
    return true;
}

EXPORT ncclResult_t ncclGroupStart(void) {
    ncclResult_t fault = simulated_fault(__func__);
    if (fault != NCCL_SUCCESS) return simulated_nccl_error(fault, "an injected fault");
    calls.depth++;
    return NCCL_SUCCESS;
}

// Hands one call over: to its stream, or to those that wait until the state is asked for.
static ncclResult_t hand_over(struct call *call) {
    simulated_locked();
    struct communicator *communicator = simulated_communicator_find(call->communicator);
    if (communicator == NULL) {
        free(call);
        return simulated_unlocked(NCCL_INVALID_ARGUMENT);
    }
    if (communicator->is_blocking) return simulated_unlocked(submit(communicator, call));
    append(&communicator->pending, &communicator->pending_last, call);
    communicator->was_asked = false;
    return simulated_unlocked(NCCL_IN_PROGRESS);
}

// Ends a group; the outermost one hands its calls over, all or none where one was wrong.
static ncclResult_t end(void) {
    if (--calls.depth > 0) return calls.failure;
    ncclResult_t result = calls.failure;
    bool is_in_progress = false;
    while (result == NCCL_SUCCESS && calls.first != NULL) {
        struct call *call = calls.first;
        calls.first = call->next;
        result = hand_over(call);
        if (result != NCCL_IN_PROGRESS) continue;
        is_in_progress = true;
        result = NCCL_SUCCESS;
    }
    discard(&calls.first);
    for (int place = 0; place < calls.join_count && result == NCCL_SUCCESS; place++) {
        result = simulated_communicator_wait(calls.joins[place]);
    }
    calls.join_count = 0;
    calls.failure = NCCL_SUCCESS;
    return result == NCCL_SUCCESS && is_in_progress ? NCCL_IN_PROGRESS : result;
}

EXPORT ncclResult_t ncclGroupEnd(void) {
    ncclResult_t fault = simulated_fault(__func__);
    if (calls.depth == 0) {
        return simulated_nccl_error(NCCL_INVALID_USAGE, "ncclGroupEnd without ncclGroupStart");
    }
    if (calls.failure == NCCL_SUCCESS) calls.failure = fault;
    return end();
}

static ncclResult_t buffers_check(const struct call *call, bool reads_source) {
    uintptr_t low = call->source < call->target ? call->source : call->target;
    uintptr_t high = call->source < call->target ? call->target : call->source;
    if (call->byte_count == 0) return NCCL_SUCCESS;
    if (!simulated_is_device_range(call->target, call->byte_count) ||
        (reads_source && !simulated_is_device_range(call->source, call->byte_count))) {
        return simulated_nccl_error(NCCL_INVALID_ARGUMENT,
                                    "%zu bytes are not in the memory of a GPU", call->byte_count);
    }
    if (reads_source && low != high && high - low < call->byte_count) {
        return simulated_nccl_error(NCCL_INVALID_ARGUMENT, "source and target overlap");
    }
    return NCCL_SUCCESS;
}

// Checks a call as far as one member can. With the lock held, which it may release meanwhile.
static ncclResult_t check(struct call *call, ncclComm_t handle, CUstream stream) {
    struct communicator *communicator = simulated_communicator_find(handle);
    if (communicator == NULL) return NCCL_INVALID_ARGUMENT;
    ncclResult_t state = simulated_communicator_state(communicator);
    if (state != NCCL_SUCCESS) return state;
    bool is_ready = simulated_group_is_complete(communicator->group);
    if (!is_ready || communicator->is_finalizing || communicator->pending != NULL) {
        return simulated_nccl_error(NCCL_INVALID_ARGUMENT,
                                    "the communicator has not ended what it was told before");
    }
    int root = call->signature.root;
    if (root < 0 || root >= communicator->rank_count) {
        return simulated_nccl_error(NCCL_INVALID_ARGUMENT, "root %d of %d", root,
                                    communicator->rank_count);
    }
    call->communicator = communicator;
    call->is_default_stream = (uintptr_t)stream <= 2;
    if (simulated_stream_find(stream, &call->stream) != CUDA_SUCCESS ||
        simulated_stream_context(call->stream) != communicator->context) {
        return simulated_nccl_error(NCCL_INVALID_USAGE, "the stream is not one of the GPU");
    }
    bool reads_source =
        call->signature.kind == CALL_ALL_REDUCE || root == communicator->rank;
    return buffers_check(call, reads_source);
}

static ncclResult_t add(const struct call *given, ncclComm_t handle, CUstream stream) {
    int dtype = given->signature.dtype;
    struct call *call = malloc(sizeof *call);
    if (call == NULL) return simulated_nccl_error(NCCL_SYSTEM_ERROR, "no memory");
    *call = *given;
    ncclResult_t result = NCCL_SUCCESS;
    if (dtype < 0 || dtype >= DTYPE_COUNT) {
        result = simulated_nccl_error(NCCL_INVALID_ARGUMENT, "there is no type %d", dtype);
    } else if (__builtin_mul_overflow(given->signature.count, dtype_byte_counts[dtype],
                                      &call->byte_count)) {
        result = simulated_nccl_error(NCCL_INVALID_ARGUMENT, "the count is too large");
    }
    simulated_locked();
    if (result == NCCL_SUCCESS) result = check(call, handle, stream);
    simulated_unlocked(CUDA_SUCCESS);
    if (result != NCCL_SUCCESS) {
        free(call);
        return result;
    }
    // As the real one does, forgets a call of nothing, whatever the other members call.
    if (call->byte_count == 0) {
        free(call);
    } else {
        append(&calls.first, &calls.last, call);
    }
    return NCCL_SUCCESS;
}

// Makes a call, as a group of its own where there is none.
static ncclResult_t make(
    const char *function, const struct call *call, ncclComm_t handle, CUstream stream) {
    ncclResult_t fault = simulated_fault(function);
    if (fault != NCCL_SUCCESS) simulated_nccl_error(fault, "an injected fault");
    bool is_alone = calls.depth == 0;
    if (is_alone) calls.depth = 1;
    ncclResult_t result = fault != NCCL_SUCCESS ? fault : add(call, handle, stream);
    if (calls.failure == NCCL_SUCCESS) calls.failure = result;
    return is_alone ? end() : result;
}

EXPORT ncclResult_t ncclBroadcast(const void *source, void *target, size_t count, int dtype,
                                  int root, ncclComm_t communicator, CUstream stream) {
    struct call call = {
        .signature = {.kind = CALL_BROADCAST, .dtype = dtype, .root = root, .count = count},
        .source = (uintptr_t)source,
        .target = (uintptr_t)target,
    };
    return make(__func__, &call, communicator, stream);
}

EXPORT ncclResult_t ncclAllReduce(const void *source, void *target, size_t count, int dtype,
                                  int reduction, ncclComm_t communicator, CUstream stream) {
    struct call call = {
        .signature = {
            .kind = CALL_ALL_REDUCE, .dtype = dtype, .reduction = reduction, .count = count},
        .source = (uintptr_t)source,
        .target = (uintptr_t)target,
    };
    if (reduction != NCCL_SUM || (dtype != NCCL_FLOAT32 && dtype != NCCL_UINT8)) {
        if (calls.depth > 0) calls.failure = NCCL_INVALID_ARGUMENT;
        return simulated_nccl_error(NCCL_INVALID_ARGUMENT,
                                    "only sums of 32-bit floats and bytes are simulated");
    }
    return make(__func__, &call, communicator, stream);
}
