// Communicators from their joining to their end.
#define _GNU_SOURCE
#include "SimulatedNCCL.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 22809, CHECK_MILLISECONDS = 5 };

static const unsigned int config_magic = 0xcafebeef;

static struct communicator *communicators;
static _Thread_local char last_error[TEXT_BYTE_COUNT + 32];

ncclResult_t simulated_nccl_error(ncclResult_t result, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return result;
}

struct communicator *simulated_communicator_find(ncclComm_t handle) {
    struct communicator *found = communicators;
    while (found != NULL && found != handle) found = found->next;
    if (found == NULL) {
        simulated_nccl_error(NCCL_INVALID_ARGUMENT, "the handle of the communicator is not valid");
    }
    return found;
}

// Its handle is not valid from now on.
static void remove_handle(struct communicator *communicator) {
    struct communicator **place = &communicators;
    while (*place != communicator) place = &(*place)->next;
    *place = communicator->next;
    communicator->is_removed = true;
}

EXPORT ncclResult_t ncclGetVersion(int *version) {
    ncclResult_t fault = simulated_fault(__func__);
    if (fault != NCCL_SUCCESS) return fault;
    if (version == NULL) return simulated_nccl_error(NCCL_INVALID_ARGUMENT, "version is NULL");
    *version = VERSION;
    return NCCL_SUCCESS;
}

EXPORT const char *ncclGetErrorString(ncclResult_t result) {
    switch (result) {
    case NCCL_SUCCESS: return "no error";
    case NCCL_UNHANDLED_CUDA_ERROR: return "unhandled cuda error";
    case NCCL_SYSTEM_ERROR: return "unhandled system error";
    case NCCL_INTERNAL_ERROR: return "internal error";
    case NCCL_INVALID_ARGUMENT: return "invalid argument";
    case NCCL_INVALID_USAGE: return "invalid usage";
    case NCCL_REMOTE_ERROR: return "a remote process has ended or the network failed";
    case NCCL_IN_PROGRESS: return "in progress";
    }
    return "unknown result code";
}

EXPORT const char *ncclGetLastError(ncclComm_t handle) {
    simulated_locked();
    struct communicator *found = communicators;
    while (found != NULL && found != handle) found = found->next;
    if (found != NULL && atomic_load(&found->group->failure) != NCCL_SUCCESS) {
        snprintf(last_error, sizeof last_error, "%s", found->group->failure_text);
    }
    simulated_unlocked(CUDA_SUCCESS);
    return last_error;
}

EXPORT ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    ncclResult_t fault = simulated_fault(__func__);
    if (fault != NCCL_SUCCESS) return fault;
    if (id == NULL) return simulated_nccl_error(NCCL_INVALID_ARGUMENT, "id is NULL");
    simulated_groups_sweep();
    simulated_id_make(id);
    return NCCL_SUCCESS;
}

static ncclResult_t config_read(const ncclConfig_t *config, bool *is_blocking) {
    *is_blocking = true;
    if (config == NULL) return NCCL_SUCCESS;
    if (config->size < sizeof *config || config->magic != config_magic) {
        return simulated_nccl_error(NCCL_INVALID_ARGUMENT, "the config was not initialised");
    }
    *is_blocking = config->blocking != 0;
    return NCCL_SUCCESS;
}

static ncclResult_t join(
    ncclComm_t *out, int rank_count, const ncclUniqueId *id, int rank, bool is_blocking) {
    if (out == NULL) return simulated_nccl_error(NCCL_INVALID_ARGUMENT, "communicator is NULL");
    *out = NULL;
    if (rank_count < 1 || rank_count > RANK_COUNT_MAX || rank < 0 || rank >= rank_count) {
        return simulated_nccl_error(NCCL_INVALID_ARGUMENT, "rank %d of %d", rank, rank_count);
    }
    if (simulated_enter("ncclCommInitRank", NEEDS_CONTEXT) != CUDA_SUCCESS) {
        return simulated_nccl_error(NCCL_UNHANDLED_CUDA_ERROR, "the thread has no context");
    }
    struct communicator *made = calloc(1, sizeof *made);
    if (made == NULL) return simulated_nccl_error(NCCL_SYSTEM_ERROR, "no memory");
    made->id = *id;
    made->rank = rank;
    made->rank_count = rank_count;
    made->context = simulated_current();
    made->ordinal = simulated_context_ordinal(made->context);
    made->is_blocking = is_blocking;
    ncclResult_t result = simulated_group_join(made);
    if (result != NCCL_SUCCESS) {
        free(made);
        return result;
    }
    simulated_locked();
    made->next = communicators;
    communicators = made;
    simulated_unlocked(CUDA_SUCCESS);
    *out = made;
    if (!is_blocking) return NCCL_IN_PROGRESS;
    if (simulated_group_defers(made)) return NCCL_SUCCESS;
    result = simulated_communicator_wait(made);
    if (result == NCCL_SUCCESS) return result;
    // Another thread may have aborted it already.
    char text[sizeof last_error];
    memcpy(text, last_error, sizeof text);
    ncclCommAbort(made);
    *out = NULL;
    return simulated_nccl_error(result, "%s", text);
}

EXPORT ncclResult_t ncclCommInitRank(
    ncclComm_t *communicator, int rank_count, ncclUniqueId id, int rank) {
    return join(communicator, rank_count, &id, rank, true);
}

EXPORT ncclResult_t ncclCommInitRankConfig(
    ncclComm_t *communicator, int rank_count, ncclUniqueId id, int rank, ncclConfig_t *config) {
    ncclResult_t fault = simulated_fault(__func__);
    if (fault != NCCL_SUCCESS) return simulated_nccl_error(fault, "an injected fault");
    bool is_blocking;
    ncclResult_t result = config_read(config, &is_blocking);
    if (result != NCCL_SUCCESS) return result;
    return join(communicator, rank_count, &id, rank, is_blocking);
}

// Looks for lost peers now and then: it reads files of the system.
static bool has_lost(struct communicator *communicator) {
    struct timespec now, *next = &communicator->next_check;
    clock_gettime(CLOCK_MONOTONIC, &now);
    bool is_due = now.tv_sec > next->tv_sec ||
                  (now.tv_sec == next->tv_sec && now.tv_nsec >= next->tv_nsec);
    if (!communicator->has_lost_peer && is_due) {
        communicator->has_lost_peer = simulated_group_has_lost(communicator);
        now.tv_nsec += CHECK_MILLISECONDS * 1000000;
        if (now.tv_nsec >= 1000000000) {
            now.tv_sec++;
            now.tv_nsec -= 1000000000;
        }
        *next = now;
    }
    return communicator->has_lost_peer;
}

ncclResult_t simulated_communicator_state(struct communicator *communicator) {
    int failure = atomic_load(&communicator->group->failure);
    if (failure != NCCL_SUCCESS) {
        return simulated_nccl_error(failure, "%s", communicator->group->failure_text);
    }
    if (!has_lost(communicator)) return NCCL_SUCCESS;
    return simulated_nccl_error(NCCL_REMOTE_ERROR, "rank %d has lost a rank of its group of %d",
                                communicator->rank, communicator->rank_count);
}

// Sleeps a little with the lock released; the communicator may be gone afterwards.
static void rest(void) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_nsec += 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&simulated_changed, &simulated_lock, &end);
}

ncclResult_t simulated_communicator_wait(ncclComm_t handle) {
    simulated_locked();
    for (;;) {
        struct communicator *communicator = simulated_communicator_find(handle);
        if (communicator == NULL) return simulated_unlocked(NCCL_INVALID_USAGE);
        ncclResult_t state = simulated_communicator_state(communicator);
        if (state != NCCL_SUCCESS) return simulated_unlocked(state);
        if (simulated_group_is_complete(communicator->group)) {
            return simulated_unlocked(NCCL_SUCCESS);
        }
        rest();
    }
}

// The state with the lock held. What is pending goes to the streams when it is asked for the second
// time: who does not ask until nothing is in progress finds its work not done.
static ncclResult_t state_ask(struct communicator *communicator) {
    ncclResult_t state = simulated_communicator_state(communicator);
    if (state != NCCL_SUCCESS) return state;
    if (!simulated_group_is_complete(communicator->group)) return NCCL_IN_PROGRESS;
    if (communicator->pending != NULL) {
        if (!communicator->was_asked) {
            communicator->was_asked = true;
            return NCCL_IN_PROGRESS;
        }
        state = simulated_pending_submit(communicator);
    }
    bool is_busy = communicator->is_finalizing && communicator->outstanding > 0;
    return state == NCCL_SUCCESS && is_busy ? NCCL_IN_PROGRESS : state;
}

EXPORT ncclResult_t ncclCommGetAsyncError(ncclComm_t handle, ncclResult_t *state) {
    ncclResult_t fault = simulated_fault(__func__);
    if (fault != NCCL_SUCCESS) return simulated_nccl_error(fault, "an injected fault");
    if (state == NULL) return simulated_nccl_error(NCCL_INVALID_ARGUMENT, "state is NULL");
    simulated_locked();
    struct communicator *communicator = simulated_communicator_find(handle);
    if (communicator == NULL) return simulated_unlocked(NCCL_INVALID_ARGUMENT);
    *state = state_ask(communicator);
    return simulated_unlocked(NCCL_SUCCESS);
}

EXPORT ncclResult_t ncclCommFinalize(ncclComm_t handle) {
    ncclResult_t fault = simulated_fault(__func__);
    if (fault != NCCL_SUCCESS) return simulated_nccl_error(fault, "an injected fault");
    simulated_locked();
    for (;;) {
        struct communicator *communicator = simulated_communicator_find(handle);
        if (communicator == NULL) return simulated_unlocked(NCCL_INVALID_ARGUMENT);
        communicator->is_finalizing = true;
        ncclResult_t state = simulated_communicator_state(communicator);
        if (state == NCCL_SUCCESS) state = simulated_pending_submit(communicator);
        if (state != NCCL_SUCCESS) return simulated_unlocked(state);
        if (communicator->outstanding == 0) return simulated_unlocked(NCCL_SUCCESS);
        if (!communicator->is_blocking) return simulated_unlocked(NCCL_IN_PROGRESS);
        rest();
    }
}

// Ends a communicator whose handle was just taken; an abort ends the calls that wait. Locked.
static void leave(struct communicator *communicator, bool is_abort) {
    communicator->outstanding++;
    if (is_abort) {
        atomic_store(&communicator->is_aborted, true);
        simulated_group_change(communicator->group);
    }
    simulated_pending_discard(communicator);
    // Those that have not begun will find it ended.
    while (atomic_load(&communicator->running) > 0) rest();
    atomic_store(&communicator->is_aborted, true);
    simulated_unlocked(CUDA_SUCCESS);
    simulated_group_leave(communicator, is_abort);
    simulated_locked();
    communicator->outstanding--;
    simulated_communicator_release(communicator);
}

EXPORT ncclResult_t ncclCommDestroy(ncclComm_t handle) {
    ncclResult_t fault = simulated_fault(__func__);
    if (fault != NCCL_SUCCESS) return simulated_nccl_error(fault, "an injected fault");
    simulated_locked();
    for (;;) {
        struct communicator *communicator = simulated_communicator_find(handle);
        if (communicator == NULL) return simulated_unlocked(NCCL_INVALID_ARGUMENT);
        ncclResult_t state = simulated_communicator_state(communicator);
        if (state == NCCL_SUCCESS) state = simulated_pending_submit(communicator);
        bool is_broken = state != NCCL_SUCCESS;
        if (is_broken || communicator->outstanding == 0) {
            remove_handle(communicator);
            leave(communicator, is_broken);
            return simulated_unlocked(NCCL_SUCCESS);
        }
        rest();
    }
}

EXPORT ncclResult_t ncclCommAbort(ncclComm_t handle) {
    ncclResult_t fault = simulated_fault(__func__);
    if (fault != NCCL_SUCCESS) return simulated_nccl_error(fault, "an injected fault");
    simulated_locked();
    struct communicator *communicator = simulated_communicator_find(handle);
    if (communicator == NULL) return simulated_unlocked(NCCL_INVALID_ARGUMENT);
    remove_handle(communicator);
    leave(communicator, true);
    return simulated_unlocked(NCCL_SUCCESS);
}

static ncclResult_t number_get(ncclComm_t handle, int *out, size_t offset) {
    if (out == NULL) return simulated_nccl_error(NCCL_INVALID_ARGUMENT, "the result is NULL");
    simulated_locked();
    struct communicator *communicator = simulated_communicator_find(handle);
    if (communicator == NULL) return simulated_unlocked(NCCL_INVALID_ARGUMENT);
    memcpy(out, (const char *)communicator + offset, sizeof *out);
    return simulated_unlocked(NCCL_SUCCESS);
}

EXPORT ncclResult_t ncclCommCount(ncclComm_t communicator, int *count) {
    return number_get(communicator, count, offsetof(struct communicator, rank_count));
}

EXPORT ncclResult_t ncclCommUserRank(ncclComm_t communicator, int *rank) {
    return number_get(communicator, rank, offsetof(struct communicator, rank));
}

EXPORT ncclResult_t ncclCommCuDevice(ncclComm_t communicator, int *device) {
    return number_get(communicator, device, offsetof(struct communicator, ordinal));
}
