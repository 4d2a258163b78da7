// CRC-32C (Castagnoli): reflected, polynomial 0x1EDC6F41, both ends inverted. "123456789" has
// 0xE3069283.
#ifndef CHECKPOINT_ENGINE_CNATIVE_CHECKSUM_H
#define CHECKPOINT_ENGINE_CNATIVE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

// The checksum of `byte_count` bytes after others whose checksum is `before`, 0 when there are
// none. Uses the processor's instruction where it has one.
uint32_t ce_crc32c(uint32_t before, const void *bytes, size_t byte_count);

// The same by tables alone, for processors without the instruction.
uint32_t ce_crc32c_portable(uint32_t before, const void *bytes, size_t byte_count);

// 1 when ce_crc32c uses the processor's instruction, else 0.
int ce_crc32c_is_accelerated(void);

#endif
