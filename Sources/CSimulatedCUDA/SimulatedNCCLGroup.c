// The file that the members of a group share: /dev/shm/simulated-nccl-<pid>-<n>-<time>.
#define _GNU_SOURCE
#include "SimulatedNCCL.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FOLDER "/dev/shm"

enum { GROUP_PATH_BYTE_COUNT = 96, PAUSE_NANOSECONDS = 5000000 };

static atomic_uint next_number = 1;

void simulated_id_make(ncclUniqueId *id) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "simulated-nccl-%d-%u-%llx", (int)getpid(),
             atomic_fetch_add(&next_number, 1),
             (unsigned long long)now.tv_sec * 1000000000ull + (unsigned long long)now.tv_nsec);
}

// The maker of a group by the name of its file, 0 for another name.
static int name_parse(const char *text) {
    int pid, length = 0;
    unsigned int number;
    unsigned long long time;
    if (sscanf(text, "simulated-nccl-%d-%u-%llx%n", &pid, &number, &time, &length) != 3) return 0;
    return text[length] == 0 && pid > 0 ? pid : 0;
}

static bool path_make(const ncclUniqueId *id, char path[GROUP_PATH_BYTE_COUNT]) {
    size_t length = strnlen(id->internal, sizeof id->internal);
    bool is_short = length < GROUP_PATH_BYTE_COUNT - sizeof FOLDER;
    if (!is_short || name_parse(id->internal) == 0) return false;
    memcpy(path, FOLDER "/", sizeof FOLDER);
    memcpy(path + sizeof FOLDER, id->internal, length + 1);
    return true;
}

// Members join, leave and sweep one after the other; -1 when there is no folder.
static int folder_lock(void) {
    int folder = open(FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return -1;
    while (flock(folder, LOCK_EX) != 0 && errno == EINTR) {}
    return folder;
}

void simulated_group_change(struct group *group) {
    atomic_fetch_add(&group->epoch, 1);
    syscall(SYS_futex, &group->epoch, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void simulated_group_pause(struct group *group, unsigned int epoch) {
    const struct timespec most = {.tv_nsec = PAUSE_NANOSECONDS};
    syscall(SYS_futex, &group->epoch, FUTEX_WAIT, epoch, &most, NULL, 0);
}

bool simulated_group_is_complete(struct group *group) {
    return atomic_load(&group->joined_count) == group->rank_count;
}

void simulated_group_fail(struct group *group, ncclResult_t result, const char *format, ...) {
    if (atomic_exchange(&group->is_failing, true)) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(group->failure_text, sizeof group->failure_text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "simulated NCCL: %s\n", group->failure_text);
    atomic_store(&group->failure, result);
    simulated_group_change(group);
}

static bool is_gone(struct member *member) {
    int pid = atomic_load(&member->pid);
    if (pid == 0) return false;
    return atomic_load(&member->has_aborted) || (pid != getpid() && !simulated_is_alive(pid));
}

bool simulated_group_has_lost(struct communicator *communicator) {
    struct group *group = communicator->group;
    unsigned long long waiting = atomic_load(&communicator->waiting);
    for (int rank = 0; rank < group->rank_count; rank++) {
        struct member *member = &group->members[rank];
        if (rank == communicator->rank) continue;
        if (atomic_load(&member->has_left)) {
            // Who has left in peace is missed only by who waits for it.
            if (atomic_load(&member->announced) < waiting) return true;
        } else if (is_gone(member)) {
            return true;
        }
    }
    return false;
}

// Whether a member is there that may still need the file.
static bool is_in_use(struct group *group) {
    for (int rank = 0; rank < RANK_COUNT_MAX; rank++) {
        struct member *member = &group->members[rank];
        if (atomic_load(&member->pid) == 0 || atomic_load(&member->has_left)) continue;
        if (!is_gone(member)) return true;
    }
    return false;
}

static struct group *file_map(int file) {
    void *start = mmap(NULL, sizeof(struct group), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return start == MAP_FAILED ? NULL : start;
}

// Maps the file of an id, and gives it its size if it is new.
static ncclResult_t file_open(const char *path, struct group **group) {
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file < 0) return simulated_nccl_error(NCCL_SYSTEM_ERROR, "cannot open %s", path);
    struct stat status;
    bool has_size = fstat(file, &status) == 0;
    if (has_size && status.st_size == 0) {
        has_size = posix_fallocate(file, 0, sizeof(struct group)) == 0;
        if (!has_size) unlink(path);
    } else {
        has_size = has_size && status.st_size == sizeof(struct group);
    }
    *group = has_size ? file_map(file) : NULL;
    close(file);
    if (*group != NULL) return NCCL_SUCCESS;
    return simulated_nccl_error(NCCL_SYSTEM_ERROR, "%s cannot be mapped", path);
}

static uint64_t host_hash(void) {
    const char *text = getenv("NCCL_HOSTID");
    uint64_t hash = 14695981039346656037ull;
    for (; text != NULL && *text != 0; text++) {
        hash = (hash ^ (unsigned char)*text) * 1099511628211ull;
    }
    return hash;
}

// Takes the place of a rank. Fails for all when the newcomer does not fit.
static ncclResult_t place_take(struct communicator *communicator) {
    struct group *group = communicator->group;
    int rank = communicator->rank;
    if (group->rank_count == 0) group->rank_count = communicator->rank_count;
    bool has_count = group->rank_count == communicator->rank_count;
    if (!has_count || atomic_load(&group->members[rank].pid) != 0) {
        simulated_group_fail(
            group, NCCL_INVALID_USAGE, "rank %d of %d cannot join a group of %d: %s", rank,
            communicator->rank_count, group->rank_count,
            has_count ? "the rank is taken" : "the members expect different numbers of ranks");
        return simulated_nccl_error(NCCL_INVALID_USAGE, "%s", group->failure_text);
    }
    struct member *own = &group->members[rank];
    own->physical = communicator->context->physical;
    own->host = host_hash();
    atomic_store(&own->pid, getpid());
    for (int other = 0; other < group->rank_count; other++) {
        struct member *member = &group->members[other];
        if (other == rank || atomic_load(&member->pid) == 0) continue;
        if (member->physical != own->physical || member->host != own->host) continue;
        simulated_group_fail(group, NCCL_INVALID_USAGE,
                             "rank %d and rank %d are both on GPU %d", rank, other, own->physical);
    }
    atomic_fetch_add(&group->joined_count, 1);
    return NCCL_SUCCESS;
}

ncclResult_t simulated_group_join(struct communicator *communicator) {
    char path[GROUP_PATH_BYTE_COUNT];
    if (!path_make(&communicator->id, path)) {
        return simulated_nccl_error(NCCL_INVALID_ARGUMENT, "the id is not one of ncclGetUniqueId");
    }
    int folder = folder_lock();
    if (folder < 0) return simulated_nccl_error(NCCL_SYSTEM_ERROR, "there is no " FOLDER);
    ncclResult_t result = file_open(path, &communicator->group);
    if (result == NCCL_SUCCESS) {
        result = place_take(communicator);
        // Nobody else may come, and nothing is left behind.
        if (simulated_group_is_complete(communicator->group)) unlink(path);
        simulated_group_change(communicator->group);
        if (result != NCCL_SUCCESS) munmap(communicator->group, sizeof(struct group));
    }
    close(folder);
    return result;
}

void simulated_group_leave(struct communicator *communicator, bool is_abort) {
    struct group *group = communicator->group;
    struct member *own = &group->members[communicator->rank];
    int folder = folder_lock();
    if (is_abort) {
        atomic_store(&own->has_aborted, true);
    } else {
        atomic_store(&own->has_left, true);
    }
    char path[GROUP_PATH_BYTE_COUNT];
    bool is_unused = !simulated_group_is_complete(group) && !is_in_use(group);
    if (is_unused && path_make(&communicator->id, path)) unlink(path);
    if (folder >= 0) close(folder);
    simulated_group_change(group);
}

static bool file_is_in_use(const char *path) {
    int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0) return true;
    struct stat status;
    struct group *group = NULL;
    if (fstat(file, &status) == 0 && status.st_size == sizeof(struct group)) group = file_map(file);
    close(file);
    bool result = group != NULL && is_in_use(group);
    if (group != NULL) munmap(group, sizeof(struct group));
    return result;
}

void simulated_groups_sweep(void) {
    int lock = folder_lock();
    DIR *folder = lock < 0 ? NULL : opendir(FOLDER);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        int maker = name_parse(entry->d_name);
        if (maker == 0 || simulated_is_alive(maker)) continue;
        char path[GROUP_PATH_BYTE_COUNT + 256];
        snprintf(path, sizeof path, FOLDER "/%s", entry->d_name);
        if (!file_is_in_use(path)) unlink(path);
    }
    if (folder != NULL) closedir(folder);
    if (lock >= 0) close(lock);
}
