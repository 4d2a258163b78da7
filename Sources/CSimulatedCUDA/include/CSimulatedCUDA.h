// A CUDA driver without a GPU: device memory is shared host memory, so that code for GPUs can be
// tested anywhere, across processes. The header includes no system header.
#ifndef CHECKPOINT_ENGINE_CSIMULATED_CUDA_H
#define CHECKPOINT_ENGINE_CSIMULATED_CUDA_H

// The address of a function of the simulated driver by its exported name, NULL when it has none.
void *simulated_cuda_symbol(const char *name);

#endif
