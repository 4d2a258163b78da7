// Streams, each with a thread and a queue.
#define _GNU_SOURCE
#include "Simulated.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_NON_BLOCKING = 1 };

struct stream {
    CUcontext context;
    bool is_blocking;
    bool is_default;
    bool is_closing;  // its handle is no longer valid
    struct operation *head, *tail;
    pthread_cond_t work;
    struct stream *next;
};

pthread_mutex_t simulated_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t simulated_changed = PTHREAD_COND_INITIALIZER;

static struct stream *streams;
static uint64_t next_sequence = 1;

void simulated_record_release(struct record *record) {
    if (record != NULL && --record->reference_count == 0) free(record);
}

void simulated_copy_sleep(size_t byte_count) {
    unsigned long long rate = simulated_settings.copy_bytes_per_second;
    if (rate == 0) return;
    double seconds = (double)byte_count / (double)rate;
    struct timespec rest = {.tv_sec = (time_t)seconds};
    rest.tv_nsec = (long)((seconds - (double)rest.tv_sec) * 1e9);
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, &rest) == EINTR) {}
}

static void move(const struct operation *operation) {
    size_t width = operation->width;
    if (operation->kind == OPERATION_SET) {
        memset((void *)operation->target, operation->value, width);
        return;
    }
    // Late, so that who reads the target or changes the source too early is found.
    simulated_copy_sleep(width * operation->height);
    for (size_t row = 0; row < operation->height; row++) {
        memmove((void *)(operation->target + row * operation->target_pitch),
                (const void *)(operation->source + row * operation->source_pitch), width);
    }
}

// With the lock held, which it releases while it copies or calls.
static void run(const struct operation *operation) {
    struct record *record = operation->record;
    switch (operation->kind) {
    case OPERATION_COPY:
    case OPERATION_SET:
        pthread_mutex_unlock(&simulated_lock);
        move(operation);
        pthread_mutex_lock(&simulated_lock);
        break;
    case OPERATION_CALL:
        pthread_mutex_unlock(&simulated_lock);
        operation->call(operation->argument);
        pthread_mutex_lock(&simulated_lock);
        break;
    case OPERATION_RECORD:
        clock_gettime(CLOCK_MONOTONIC, &record->time);
        record->is_done = true;
        break;
    case OPERATION_WAIT:
        while (!record->is_done) pthread_cond_wait(&simulated_changed, &simulated_lock);
        break;
    }
}

static void *stream_main(void *argument) {
    struct stream *stream = argument;
    pthread_mutex_lock(&simulated_lock);
    for (;;) {
        while (stream->head == NULL && !stream->is_closing) {
            pthread_cond_wait(&stream->work, &simulated_lock);
        }
        struct operation *operation = stream->head;
        if (operation == NULL) break;
        run(operation);
        stream->head = operation->next;
        simulated_record_release(operation->record);
        free(operation);
        pthread_cond_broadcast(&simulated_changed);
    }
    struct stream **place = &streams;
    while (*place != stream) place = &(*place)->next;
    *place = stream->next;
    pthread_cond_destroy(&stream->work);
    free(stream);
    pthread_cond_broadcast(&simulated_changed);
    pthread_mutex_unlock(&simulated_lock);
    return NULL;
}

static CUresult stream_make(CUcontext context, bool is_blocking, bool is_default, CUstream *out) {
    struct stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    stream->context = context;
    stream->is_blocking = is_blocking;
    stream->is_default = is_default;
    pthread_cond_init(&stream->work, NULL);
    // Signals go to the threads of the program.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int error = pthread_create(&thread, NULL, stream_main, stream);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        pthread_cond_destroy(&stream->work);
        free(stream);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_setname_np(thread, "simulated-cuda");
    pthread_detach(thread);
    stream->next = streams;
    streams = stream;
    *out = stream;
    return CUDA_SUCCESS;
}

// Whether a stream still has one of the operations before this one.
static bool is_busy(const struct stream *stream, uint64_t sequence) {
    return stream->head != NULL && stream->head->sequence < sequence;
}

// Whether a stream is among those that wait for NULL, and NULL for them, in a context.
static bool is_in_order(const struct stream *stream, CUcontext context) {
    return stream->context == context && stream->is_blocking;
}

// Waits for what the streams have been given: all streams, or those in order in a context.
static void wait_for(CUcontext context) {
    uint64_t sequence = next_sequence;
    struct stream *stream = streams;
    while (stream != NULL) {
        if (is_busy(stream, sequence) && (context == NULL || is_in_order(stream, context))) {
            pthread_cond_wait(&simulated_changed, &simulated_lock);
            stream = streams;
        } else {
            stream = stream->next;
        }
    }
}

void simulated_streams_wait(void) { wait_for(NULL); }

// NULL and the two handles that name default streams.
static bool is_default(CUstream handle) { return (uintptr_t)handle <= 2; }

// The stream of a valid handle, NULL for another.
static struct stream *lookup(CUstream handle) {
    struct stream *stream = streams;
    while (stream != NULL && (stream != handle || stream->is_default)) stream = stream->next;
    return stream != NULL && !stream->is_closing ? stream : NULL;
}

CUcontext simulated_stream_context(CUstream stream) { return stream->context; }

CUresult simulated_stream_find(CUstream handle, CUstream *out) {
    CUcontext context = simulated_current();
    if (!is_default(handle)) {
        *out = lookup(handle);
        return *out != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
    }
    wait_for(context);
    for (struct stream *stream = streams; stream != NULL; stream = stream->next) {
        if (!stream->is_default || stream->is_closing || stream->context != context) continue;
        *out = stream;
        return CUDA_SUCCESS;
    }
    return stream_make(context, true, true, out);
}

CUresult simulated_stream_submit(CUstream stream, const struct operation *given) {
    struct operation *operation = malloc(sizeof *operation);
    if (operation == NULL) return CUDA_ERROR_OUT_OF_MEMORY;
    *operation = *given;
    operation->next = NULL;
    operation->sequence = next_sequence++;
    if (operation->record != NULL) operation->record->reference_count++;
    if (stream->head == NULL) {
        stream->head = operation;
    } else {
        stream->tail->next = operation;
    }
    stream->tail = operation;
    pthread_cond_signal(&stream->work);
    if (stream->is_default) wait_for(stream->context);
    return CUDA_SUCCESS;
}

static void stream_close(struct stream *stream) {
    stream->is_closing = true;
    pthread_cond_signal(&stream->work);
}

void simulated_streams_end(CUcontext context) {
    for (struct stream *stream = streams; stream != NULL; stream = stream->next) {
        if (stream->context == context) stream_close(stream);
    }
    simulated_streams_wait();
}

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
    ENTER(NEEDS_CONTEXT);
    if (stream == NULL || flags > STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    simulated_locked();
    bool is_blocking = flags != STREAM_NON_BLOCKING;
    return simulated_unlocked(stream_make(simulated_current(), is_blocking, false, stream));
}

EXPORT CUresult cuStreamDestroy_v2(CUstream handle) {
    ENTER(NEEDS_CONTEXT);
    simulated_locked();
    struct stream *stream = lookup(handle);
    if (stream == NULL) return simulated_unlocked(CUDA_ERROR_INVALID_HANDLE);
    // Its thread ends once the queue is empty.
    stream_close(stream);
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuStreamSynchronize(CUstream handle) {
    ENTER(NEEDS_CONTEXT);
    simulated_locked();
    if (is_default(handle)) {
        wait_for(simulated_current());
        return simulated_unlocked(CUDA_SUCCESS);
    }
    struct stream *stream = lookup(handle);
    if (stream == NULL) return simulated_unlocked(CUDA_ERROR_INVALID_HANDLE);
    uint64_t sequence = next_sequence;
    // Another thread may destroy the stream meanwhile.
    while ((stream = lookup(handle)) != NULL && is_busy(stream, sequence)) {
        pthread_cond_wait(&simulated_changed, &simulated_lock);
    }
    return simulated_unlocked(CUDA_SUCCESS);
}

EXPORT CUresult cuStreamQuery(CUstream handle) {
    ENTER(NEEDS_CONTEXT);
    simulated_locked();
    CUcontext context = simulated_current();
    if (!is_default(handle) && lookup(handle) == NULL) {
        return simulated_unlocked(CUDA_ERROR_INVALID_HANDLE);
    }
    for (struct stream *stream = streams; stream != NULL; stream = stream->next) {
        if (stream->head == NULL) continue;
        if (is_default(handle) ? is_in_order(stream, context) : stream == handle) {
            return simulated_unlocked(CUDA_ERROR_NOT_READY);
        }
    }
    return simulated_unlocked(CUDA_SUCCESS);
}
