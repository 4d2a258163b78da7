#include "CNativeNCCL.h"

#include <limits.h>
#include <string.h>

typedef struct {
    const char *name;
    size_t offset;
} function_place;

static const function_place places[] = {
#define CE_NCCL_PLACE(result, name, arguments) {#name, offsetof(ce_nccl_table, name)},
    CE_NCCL_FUNCTIONS(CE_NCCL_PLACE)
#undef CE_NCCL_PLACE
};

int ce_nccl_function_count(void) { return (int)(sizeof places / sizeof places[0]); }

const char *ce_nccl_function_name(int index) { return places[index].name; }

void ce_nccl_set_function(ce_nccl_table *table, int index, void *address) {
    memcpy((char *)table + places[index].offset, &address, sizeof address);
}

ce_nccl_config ce_nccl_config_nonblocking(void) {
    // NCCL_API_MAGIC, NCCL_VERSION(2, 18, 0) and NCCL_CONFIG_UNDEF_INT.
    ce_nccl_config config = {
        .size = sizeof(ce_nccl_config),
        .magic = 0xcafebeefu,
        .version = 21800u,
        .blocking = 0,
        .cga_cluster_size = INT_MIN,
        .min_ctas = INT_MIN,
        .max_ctas = INT_MIN,
        .net_name = NULL,
        .split_share = INT_MIN,
    };
    return config;
}
