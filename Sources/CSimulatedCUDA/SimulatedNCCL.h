// What the files of the simulated NCCL share: groups of GPUs across the processes of one machine.
//
// The members of a group share a file; each call is an operation of its simulated stream. Members
// compare their calls before anything moves: where they differ, nothing ends before an abort.
#ifndef CHECKPOINT_ENGINE_SIMULATED_NCCL_H
#define CHECKPOINT_ENGINE_SIMULATED_NCCL_H

#include "Simulated.h"

// The ABI, that of nccl.h.

typedef int ncclResult_t;
typedef struct communicator *ncclComm_t;

typedef struct {
    char internal[128];
} ncclUniqueId;

// The start of ncclConfig_t; the fields that follow ask for nothing that is simulated.
typedef struct {
    size_t size;
    unsigned int magic;
    unsigned int version;
    int blocking;
} ncclConfig_t;

enum {
    NCCL_SUCCESS = 0,
    NCCL_UNHANDLED_CUDA_ERROR = 1,
    NCCL_SYSTEM_ERROR = 2,
    NCCL_INTERNAL_ERROR = 3,
    NCCL_INVALID_ARGUMENT = 4,
    NCCL_INVALID_USAGE = 5,
    NCCL_REMOTE_ERROR = 6,
    NCCL_IN_PROGRESS = 7,
};

enum { NCCL_UINT8 = 1, NCCL_FLOAT32 = 7, NCCL_SUM = 0 };

#pragma GCC visibility push(hidden)

// What is shared between processes: it is only changed with atomics, or by who joins under the lock
// of the folder.

enum { RANK_COUNT_MAX = 64, SLOT_COUNT = 4, SLOT_BYTE_COUNT = 256 << 10, TEXT_BYTE_COUNT = 240 };

enum call_kind { CALL_BROADCAST = 1, CALL_ALL_REDUCE };

// What all members have to agree on.
struct signature {
    int kind, dtype, root, reduction;
    uint64_t count;
};

struct member {
    atomic_int pid;  // 0 until it joins
    int physical;
    uint64_t host;
    atomic_bool has_left, has_aborted;
    // A member is at most one call ahead of another, so two places do.
    struct signature signatures[2];
    atomic_ullong announced;  // number of the last call whose signature is there
    atomic_ullong filled, drained;  // steps of all calls: put into the slots, taken out of them
};

struct group {
    atomic_uint epoch;  // counts changes; members sleep on it
    int rank_count;
    atomic_int joined_count;
    atomic_bool is_failing;
    atomic_int failure;  // what every member is told, 0 while all is well
    char failure_text[TEXT_BYTE_COUNT];
    struct member members[RANK_COUNT_MAX];
    unsigned char slots[SLOT_COUNT][SLOT_BYTE_COUNT];
};

// One call that waits for its end.
struct call {
    ncclComm_t communicator;
    struct signature signature;
    uint64_t number;  // from 1, per communicator
    uintptr_t source, target;
    size_t byte_count;
    CUstream stream;
    bool is_default_stream;
    struct call *next;
};

struct communicator {
    struct group *group;
    ncclUniqueId id;
    int rank, rank_count;
    CUcontext context;
    int ordinal;
    bool is_blocking;
    atomic_bool is_aborted;
    atomic_ullong ended;    // calls that have ended
    atomic_ullong waiting;  // the call that waits for others, 0 for none
    atomic_int running;     // calls that use memory
    // The rest with the lock of the simulation held.
    uint64_t issued;
    uint64_t step;  // of the running call alone
    struct call *pending, *pending_last;  // not yet in the stream
    bool was_asked;                       // whether the state was asked for since
    bool is_removed;                      // its handle is no longer valid
    bool is_finalizing;
    int outstanding;  // calls in the stream
    struct timespec next_check;
    bool has_lost_peer;
    struct communicator *next;
};

// Makes an id that no other group has.
void simulated_id_make(ncclUniqueId *id);
// Joins a group, the first one makes it; all members learn of a member that does not fit.
ncclResult_t simulated_group_join(struct communicator *communicator);
// Leaves it; removes its file when no member that lives is left.
void simulated_group_leave(struct communicator *communicator, bool is_abort);
// Tells every member of a failure, and the standard error; the first one counts.
void simulated_group_fail(struct group *group, ncclResult_t result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// Wakes every member that waits.
void simulated_group_change(struct group *group);
// Sleeps until a change after `epoch`, or some milliseconds.
void simulated_group_pause(struct group *group, unsigned int epoch);
bool simulated_group_is_complete(struct group *group);
// Whether the processes of members that have joined are gone, or have aborted.
bool simulated_group_has_lost(struct communicator *communicator);

// Does one call in the thread of its stream; owns it.
void simulated_call_run(void *call);
// Frees a communicator without calls whose handle is no longer valid. With the lock held.
void simulated_communicator_release(struct communicator *communicator);
// The communicator of a valid handle, NULL for another. With the lock held.
struct communicator *simulated_communicator_find(ncclComm_t handle);
// Gives the streams what is pending. With the lock held.
ncclResult_t simulated_pending_submit(struct communicator *communicator);
void simulated_pending_discard(struct communicator *communicator);
// What is wrong with a communicator: a failure of the group, peers that are gone. With the lock.
ncclResult_t simulated_communicator_state(struct communicator *communicator);
// Waits until all have joined.
ncclResult_t simulated_communicator_wait(ncclComm_t handle);
// Lets the end of the group of calls wait until all have joined; false outside such a group.
bool simulated_group_defers(ncclComm_t handle);
// Keeps a text for ncclGetLastError and returns the result.
ncclResult_t simulated_nccl_error(ncclResult_t result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#pragma GCC visibility pop

// clang-format off
ncclResult_t ncclGetVersion(int *version);
const char *ncclGetErrorString(ncclResult_t result);
const char *ncclGetLastError(ncclComm_t communicator);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
ncclResult_t ncclCommInitRank(ncclComm_t *communicator, int rank_count, ncclUniqueId id, int rank);
ncclResult_t ncclCommInitRankConfig(ncclComm_t *communicator, int rank_count, ncclUniqueId id,
                                    int rank, ncclConfig_t *config);
ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t *state);
ncclResult_t ncclCommFinalize(ncclComm_t communicator);
ncclResult_t ncclCommDestroy(ncclComm_t communicator);
ncclResult_t ncclCommAbort(ncclComm_t communicator);
ncclResult_t ncclCommCount(ncclComm_t communicator, int *count);
ncclResult_t ncclCommUserRank(ncclComm_t communicator, int *rank);
ncclResult_t ncclCommCuDevice(ncclComm_t communicator, int *device);
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);
ncclResult_t ncclBroadcast(const void *source, void *target, size_t count, int dtype, int root,
                           ncclComm_t communicator, CUstream stream);
ncclResult_t ncclAllReduce(const void *source, void *target, size_t count, int dtype,
                           int reduction, ncclComm_t communicator, CUstream stream);
// clang-format on

#endif
