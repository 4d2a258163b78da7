// What a call does in the thread of its stream: agree with the others, then move the bytes.
#define _GNU_SOURCE
#include "SimulatedNCCL.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// What a member waits for, over one member or all.
enum condition { CONDITION_ANNOUNCED, CONDITION_FILLED, CONDITION_DRAINED };

static bool has_reached(struct member *member, enum condition condition, uint64_t count) {
    switch (condition) {
    case CONDITION_ANNOUNCED: return atomic_load(&member->announced) >= count;
    case CONDITION_FILLED: return atomic_load(&member->filled) >= count;
    case CONDITION_DRAINED: return atomic_load(&member->drained) >= count;
    }
    return false;
}

enum { EVERY_RANK = -1 };

// Waits for a rank, or for all; false when the communicator is aborted.
static bool wait_for(
    struct communicator *communicator, int only, enum condition condition, uint64_t count) {
    struct group *group = communicator->group;
    for (;;) {
        unsigned int epoch = atomic_load(&group->epoch);
        if (atomic_load(&communicator->is_aborted)) return false;
        bool is_reached = true;
        for (int rank = 0; rank < group->rank_count; rank++) {
            if (only != EVERY_RANK && rank != only) continue;
            is_reached &= has_reached(&group->members[rank], condition, count);
        }
        if (is_reached) return true;
        simulated_group_pause(group, epoch);
    }
}

// Waits for the calls of this communicator in other streams: they go one after the other.
static bool wait_for_turn(const struct call *call) {
    struct communicator *communicator = call->communicator;
    for (;;) {
        unsigned int epoch = atomic_load(&communicator->group->epoch);
        if (atomic_load(&communicator->is_aborted)) return false;
        if (atomic_load(&communicator->ended) == call->number - 1) return true;
        simulated_group_pause(communicator->group, epoch);
    }
}

// What a real group does whose members differ is not defined; this one never ends.
static void wait_for_abort(struct communicator *communicator) {
    while (!atomic_load(&communicator->is_aborted)) {
        simulated_group_pause(communicator->group, atomic_load(&communicator->group->epoch));
    }
}

static const char *kind_name(int kind) {
    return kind == CALL_BROADCAST ? "ncclBroadcast" : "ncclAllReduce";
}

// Compares the call with those that all others make; false when it cannot go on.
static bool agree(const struct call *call) {
    struct communicator *communicator = call->communicator;
    struct group *group = communicator->group;
    struct member *own = &group->members[communicator->rank];
    own->signatures[call->number % 2] = call->signature;
    atomic_store(&own->announced, call->number);
    atomic_store(&communicator->waiting, call->number);
    simulated_group_change(group);
    if (!wait_for(communicator, EVERY_RANK, CONDITION_ANNOUNCED, call->number)) return false;
    for (int rank = 0; rank < group->rank_count; rank++) {
        const struct signature *mine = &call->signature;
        struct signature other = group->members[rank].signatures[call->number % 2];
        if (other.kind == mine->kind && other.dtype == mine->dtype && other.root == mine->root &&
            other.reduction == mine->reduction && other.count == mine->count) {
            continue;
        }
        simulated_group_fail(
            group, NCCL_INVALID_USAGE,
            "call %llu differs: rank %d has %s of %llu elements of type %d, root %d; rank %d has "
            "%s of %llu of type %d, root %d",
            (unsigned long long)call->number, communicator->rank, kind_name(mine->kind),
            (unsigned long long)mine->count, mine->dtype, mine->root, rank, kind_name(other.kind),
            (unsigned long long)other.count, other.dtype, other.root);
        wait_for_abort(communicator);
        return false;
    }
    return true;
}

// Root and others go through the slots, at most as many steps apart as there are slots.
static void broadcast(const struct call *call) {
    struct communicator *communicator = call->communicator;
    struct group *group = communicator->group;
    struct member *own = &group->members[communicator->rank];
    bool is_root = communicator->rank == call->signature.root;
    for (size_t done = 0; done < call->byte_count; communicator->step++) {
        uint64_t step = communicator->step;
        unsigned char *slot = group->slots[step % SLOT_COUNT];
        size_t rest = call->byte_count - done;
        size_t count = rest < SLOT_BYTE_COUNT ? rest : SLOT_BYTE_COUNT;
        if (is_root) {
            uint64_t drained = step < SLOT_COUNT ? 0 : step - SLOT_COUNT + 1;
            // What it drains itself is of no account.
            atomic_store(&own->drained, step);
            if (!wait_for(communicator, EVERY_RANK, CONDITION_DRAINED, drained)) return;
            simulated_copy_sleep(count);
            memcpy(slot, (const void *)(call->source + done), count);
            if (call->target != call->source) {
                memcpy((void *)(call->target + done), slot, count);
            }
            atomic_store(&own->filled, step + 1);
        } else {
            if (!wait_for(communicator, call->signature.root, CONDITION_FILLED, step + 1)) return;
            memcpy((void *)(call->target + done), slot, count);
            atomic_store(&own->drained, step + 1);
        }
        simulated_group_change(group);
        done += count;
    }
    atomic_store(&own->filled, communicator->step);
    atomic_store(&own->drained, communicator->step);
    simulated_group_change(group);
}

enum { SHARE_BYTE_COUNT = SLOT_COUNT * SLOT_BYTE_COUNT / RANK_COUNT_MAX };

// The sum over the shares of all ranks, in their order: the same bits for every member.
static void sum(const struct call *call, unsigned char *target, size_t byte_count) {
    struct group *group = call->communicator->group;
    for (int rank = 0; rank < group->rank_count; rank++) {
        const unsigned char *share = &group->slots[0][0] + (size_t)rank * SHARE_BYTE_COUNT;
        if (rank == 0) {
            memcpy(target, share, byte_count);
        } else if (call->signature.dtype == NCCL_UINT8) {
            for (size_t place = 0; place < byte_count; place++) target[place] += share[place];
        } else {
            for (size_t place = 0; place < byte_count; place += sizeof(float)) {
                float one, other;
                memcpy(&one, target + place, sizeof one);
                memcpy(&other, share + place, sizeof other);
                one += other;
                memcpy(target + place, &one, sizeof one);
            }
        }
    }
}

// Each member puts its share beside those of the others, a part at a time. The next call, whose
// slots lie in the same place, begins when all have ended this one: they agree first.
static void all_reduce(const struct call *call) {
    struct communicator *communicator = call->communicator;
    struct group *group = communicator->group;
    struct member *own = &group->members[communicator->rank];
    unsigned char *share = &group->slots[0][0] + (size_t)communicator->rank * SHARE_BYTE_COUNT;
    for (size_t done = 0; done < call->byte_count; communicator->step++) {
        uint64_t step = communicator->step;
        size_t rest = call->byte_count - done;
        size_t count = rest < SHARE_BYTE_COUNT ? rest : SHARE_BYTE_COUNT;
        if (!wait_for(communicator, EVERY_RANK, CONDITION_DRAINED, step)) return;
        memcpy(share, (const void *)(call->source + done), count);
        atomic_store(&own->filled, step + 1);
        simulated_group_change(group);
        if (!wait_for(communicator, EVERY_RANK, CONDITION_FILLED, step + 1)) return;
        sum(call, (unsigned char *)(call->target + done), count);
        atomic_store(&own->drained, step + 1);
        simulated_group_change(group);
        done += count;
    }
}

void simulated_communicator_release(struct communicator *communicator) {
    if (!communicator->is_removed || communicator->outstanding > 0) return;
    munmap(communicator->group, sizeof(struct group));
    free(communicator);
}

void simulated_call_run(void *argument) {
    struct call *call = argument;
    struct communicator *communicator = call->communicator;
    atomic_fetch_add(&communicator->running, 1);
    if (wait_for_turn(call) && agree(call)) {
        if (call->signature.kind == CALL_BROADCAST) {
            broadcast(call);
        } else {
            all_reduce(call);
        }
    }
    atomic_store(&communicator->waiting, 0);
    atomic_store(&communicator->ended, call->number);
    simulated_group_change(communicator->group);
    free(call);
    simulated_locked();
    atomic_fetch_sub(&communicator->running, 1);
    communicator->outstanding--;
    pthread_cond_broadcast(&simulated_changed);
    simulated_communicator_release(communicator);
    simulated_unlocked(CUDA_SUCCESS);
}
