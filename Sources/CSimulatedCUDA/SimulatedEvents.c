// Events: each holds the record that was issued last.
#define _GNU_SOURCE
#include "Simulated.h"

#include <stdlib.h>

enum { EVENT_DISABLE_TIMING = 2, EVENT_INTERPROCESS = 4 };

struct event {
    CUcontext context;
    bool has_timing;
    struct record *last;
    struct event *next;
};

static struct event *events;

// The place of an event in the list; it holds NULL for a handle that is not valid.
static struct event **event_find(CUevent handle) {
    struct event **place = &events;
    while (*place != NULL && *place != handle) place = &(*place)->next;
    return place;
}

static void event_end(struct event **place) {
    struct event *event = *place;
    *place = event->next;
    simulated_record_release(event->last);
    free(event);
}

void simulated_events_end(CUcontext context) {
    struct event **place = &events;
    while (*place != NULL) {
        if ((*place)->context == context) {
            event_end(place);
        } else {
            place = &(*place)->next;
        }
    }
}

EXPORT CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned int flags) {
    ENTER(NEEDS_CONTEXT);
    if (flags > 1) return CUDA_ERROR_INVALID_VALUE;
    simulated_locked();
    CUstream stream;
    struct event *found = *event_find(event);
    if (found == NULL) return simulated_unlocked(CUDA_ERROR_INVALID_HANDLE);
    // What was recorded last before this call.
    struct operation wait = {.kind = OPERATION_WAIT, .record = found->last};
    if (wait.record != NULL) wait.record->reference_count++;
    CUresult result = simulated_stream_find(handle, &stream);
    if (result == CUDA_SUCCESS && wait.record != NULL) {
        result = simulated_stream_submit(stream, &wait);
    }
    simulated_record_release(wait.record);
    return simulated_unlocked(result);
}

EXPORT CUresult cuEventCreate(CUevent *out, unsigned int flags) {
    ENTER(NEEDS_CONTEXT);
    if (out == NULL || flags > 7) return CUDA_ERROR_INVALID_VALUE;
    if ((flags & EVENT_INTERPROCESS) != 0) return CUDA_ERROR_NOT_SUPPORTED;
    struct event *event = calloc(1, sizeof *event);
    if (event == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    event->context = simulated_current();
    event->has_timing = (flags & EVENT_DISABLE_TIMING) == 0;
    simulated_locked();
    event->next = events;
    events = event;
    *out = event;
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuEventDestroy_v2(CUevent handle) {
    ENTER(NEEDS_CONTEXT);
    simulated_locked();
    struct event **place = event_find(handle);
    if (*place == NULL) return simulated_unlocked(CUDA_ERROR_INVALID_HANDLE);
    event_end(place);
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
    ENTER(NEEDS_CONTEXT);
    struct record *record = calloc(1, sizeof *record);
    if (record == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    record->reference_count = 1;
    simulated_locked();
    CUstream stream;
    CUresult result = simulated_stream_find(stream_handle, &stream);
    struct event *event = *event_find(handle);
    if (result == CUDA_SUCCESS &&
        (event == NULL || event->context != simulated_stream_context(stream))) {
        result = CUDA_ERROR_INVALID_HANDLE;
    }
    if (result == CUDA_SUCCESS) {
        // First, as the stream of NULL releases the lock until the record is done.
        simulated_record_release(event->last);
        event->last = record;
        record->reference_count++;
        struct operation operation = {.kind = OPERATION_RECORD, .record = record};
        result = simulated_stream_submit(stream, &operation);
        // Nothing may wait for a record that never comes.
        if (result != CUDA_SUCCESS) record->is_done = true;
    }
    simulated_record_release(record);
    return simulated_unlocked(result);
}

EXPORT CUresult cuEventSynchronize(CUevent handle) {
    ENTER(NEEDS_CONTEXT);
    simulated_locked();
    struct event *event = *event_find(handle);
    if (event == NULL) return simulated_unlocked(CUDA_ERROR_INVALID_HANDLE);
    struct record *record = event->last;
    if (record == NULL) return simulated_unlocked(CUDA_SUCCESS);
    record->reference_count++;
    while (!record->is_done) pthread_cond_wait(&simulated_changed, &simulated_lock);
    simulated_record_release(record);
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuEventQuery(CUevent handle) {
    ENTER(NEEDS_CONTEXT);
    simulated_locked();
    struct event *event = *event_find(handle);
    if (event == NULL) return simulated_unlocked(CUDA_ERROR_INVALID_HANDLE);
    bool is_done = event->last == NULL || event->last->is_done;
    return simulated_unlocked(is_done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY);
}

EXPORT CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end) {
    ENTER(NEEDS_CONTEXT);
    if (milliseconds == NULL) return CUDA_ERROR_INVALID_VALUE;
    simulated_locked();
    const struct event *first = *event_find(start), *second = *event_find(end);
    if (first == NULL || second == NULL || first->context != second->context ||
        !first->has_timing || !second->has_timing || first->last == NULL || second->last == NULL) {
        return simulated_unlocked(CUDA_ERROR_INVALID_HANDLE);
    }
    if (!first->last->is_done || !second->last->is_done) {
        return simulated_unlocked(CUDA_ERROR_NOT_READY);
    }
    const struct timespec *from = &first->last->time, *to = &second->last->time;
    double seconds = (double)(to->tv_sec - from->tv_sec);
    *milliseconds = (float)(seconds * 1e3 + (double)(to->tv_nsec - from->tv_nsec) / 1e6);
    return simulated_unlocked(CUDA_SUCCESS);
}
