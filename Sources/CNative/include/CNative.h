// ABI of the native calls that the project resolves or makes at run time. Nothing here links: every
// library is loaded by name.
#ifndef CHECKPOINT_ENGINE_CNATIVE_H
#define CHECKPOINT_ENGINE_CNATIVE_H

#include "CNativeCUDA.h"
#include "CNativeChecksum.h"
#include "CNativeCopy.h"
#include "CNativeCrash.h"
#include "CNativeNCCL.h"
#include "CNativeSystem.h"
#include "CNativeZeroMQ.h"

#endif
