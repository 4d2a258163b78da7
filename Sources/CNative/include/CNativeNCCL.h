// The part of NCCL's API (nccl.h of 2.18 and later) that joins GPUs of several hosts, as one table that is
// filled at run time. Communicators and streams are opaque handles: integers as wide as a pointer.
#ifndef CHECKPOINT_ENGINE_CNATIVE_NCCL_H
#define CHECKPOINT_ENGINE_CNATIVE_NCCL_H

#include <stddef.h>
#include <stdint.h>

enum {
    CE_NCCL_SUCCESS = 0,
    CE_NCCL_REMOTE_ERROR = 6,
    CE_NCCL_IN_PROGRESS = 7,
    CE_NCCL_UINT8 = 1,
    CE_NCCL_FLOAT32 = 7,
    CE_NCCL_SUM = 0,
    CE_NCCL_UNIQUE_ID_BYTES = 128
};

// ncclUniqueId, passed by value.
typedef struct ce_nccl_unique_id {
    uint8_t bytes[CE_NCCL_UNIQUE_ID_BYTES];
} ce_nccl_unique_id;

// ncclConfig_t as of 2.18; later versions read only the fields that `size` and `version` announce.
typedef struct ce_nccl_config {
    size_t size;
    unsigned magic;
    unsigned version;
    int blocking;
    int cga_cluster_size;
    int min_ctas;
    int max_ctas;
    const char *net_name;
    int split_share;
} ce_nccl_config;

// A configuration whose calls do not block; everything else is left to NCCL.
ce_nccl_config ce_nccl_config_nonblocking(void);

// Each function with the arguments of its declaration in nccl.h.
#define CE_NCCL_FUNCTIONS(X)                                                                       \
    X(int, ncclGetVersion, (int *))                                                                \
    X(const char *, ncclGetErrorString, (int))                                                     \
    X(const char *, ncclGetLastError, (uintptr_t))                                                 \
    X(int, ncclGetUniqueId, (ce_nccl_unique_id *))                                                 \
    X(int, ncclCommInitRankConfig,                                                                 \
      (uintptr_t *, int, ce_nccl_unique_id, int, const ce_nccl_config *))                          \
    X(int, ncclCommGetAsyncError, (uintptr_t, int *))                                              \
    X(int, ncclCommAbort, (uintptr_t))                                                             \
    X(int, ncclGroupStart, (void))                                                                 \
    X(int, ncclGroupEnd, (void))                                                                   \
    X(int, ncclBroadcast, (uint64_t, uint64_t, size_t, int, int, uintptr_t, uintptr_t))            \
    X(int, ncclAllReduce, (uint64_t, uint64_t, size_t, int, int, uintptr_t, uintptr_t))

typedef struct ce_nccl_table {
#define CE_NCCL_FIELD(result, name, arguments) result(*name) arguments;
    CE_NCCL_FUNCTIONS(CE_NCCL_FIELD)
#undef CE_NCCL_FIELD
} ce_nccl_table;

// The number of functions in the table.
int ce_nccl_function_count(void);
// The exported name of function `index`, a constant string.
const char *ce_nccl_function_name(int index);
// Sets function `index` of the table; `address` is that of the function of that name.
void ce_nccl_set_function(ce_nccl_table *table, int index, void *address);

#endif
