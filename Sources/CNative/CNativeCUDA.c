#include "CNativeCUDA.h"

#include <string.h>

typedef struct {
    const char *name;
    size_t offset;
} function_place;

static const function_place places[] = {
#define CE_CUDA_PLACE(name, arguments) {#name, offsetof(ce_cuda_table, name)},
    CE_CUDA_FUNCTIONS(CE_CUDA_PLACE)
#undef CE_CUDA_PLACE
};

int ce_cuda_function_count(void) { return (int)(sizeof places / sizeof places[0]); }

const char *ce_cuda_function_name(int index) { return places[index].name; }

void ce_cuda_set_function(ce_cuda_table *table, int index, void *address) {
    memcpy((char *)table + places[index].offset, &address, sizeof address);
}
