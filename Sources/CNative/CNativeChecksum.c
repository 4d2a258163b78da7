#include "CNativeChecksum.h"

#include <string.h>

// The polynomial with the coefficient of x^31 in bit 0, as the reflected checksum has it.
static const uint32_t polynomial = 0x82F63B78;

// Shorter pieces are not worth tables of eight bytes a step, or three streams.
static const size_t sliced_byte_count_min = 512;

static uint32_t portable_bytes(
    uint32_t state, const uint8_t *bytes, size_t byte_count, const uint32_t *table) {
    for (size_t index = 0; index < byte_count; index += 1) {
        state = (state >> 8) ^ table[(state ^ bytes[index]) & 0xFF];
    }
    return state;
}

static uint64_t little_endian(const uint8_t *bytes) {
    uint64_t word = 0;
    for (int index = 7; index >= 0; index -= 1) {
        word = word << 8 | bytes[index];
    }
    return word;
}

// The tables are made by each call, on its stack: that takes microseconds, and a chunk hundreds of
// them.
uint32_t ce_crc32c_portable(uint32_t before, const void *bytes, size_t byte_count) {
    // tables[k][b] is the state that byte b leaves after k more zero bytes.
    uint32_t tables[8][256];
    for (uint32_t byte = 0; byte < 256; byte += 1) {
        uint32_t state = byte;
        for (int bit = 0; bit < 8; bit += 1) {
            state = (state >> 1) ^ (polynomial & (0 - (state & 1)));
        }
        tables[0][byte] = state;
    }
    const uint8_t *from = bytes;
    uint32_t state = ~before;
    if (byte_count >= sliced_byte_count_min) {
        for (int zeros = 1; zeros < 8; zeros += 1) {
            for (int byte = 0; byte < 256; byte += 1) {
                uint32_t shorter = tables[zeros - 1][byte];
                tables[zeros][byte] = (shorter >> 8) ^ tables[0][shorter & 0xFF];
            }
        }
        for (; byte_count >= 8; byte_count -= 8, from += 8) {
            uint64_t word = little_endian(from) ^ state;
            state = 0;
            for (int place = 0; place < 8; place += 1) {
                state ^= tables[7 - place][word >> (8 * place) & 0xFF];
            }
        }
    }
    return ~portable_bytes(state, from, byte_count, tables[0]);
}

#if defined(__x86_64__)
#include <nmmintrin.h>

static const size_t interleaved_byte_count_min = 8192;

// The product of two polynomials modulo the checksum's; bit 31 is the coefficient of x^0.
static uint32_t product(uint32_t left, uint32_t right) {
    uint32_t sum = 0;
    for (int bit = 0; bit < 32; bit += 1) {
        sum ^= right & (0 - (left >> 31));
        left <<= 1;
        right = (right >> 1) ^ (polynomial & (0 - (right & 1)));
    }
    return sum;
}

// What a state is multiplied by when `byte_count` zero bytes follow: x to the power of 8 *
// byte_count.
static uint32_t zeros_factor(size_t byte_count) {
    uint32_t factor = UINT32_C(1) << 31;
    uint32_t square = UINT32_C(1) << 23;
    for (; byte_count > 0; byte_count >>= 1) {
        if (byte_count & 1) {
            factor = product(factor, square);
        }
        square = product(square, square);
    }
    return factor;
}

static uint64_t loaded(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

// The instruction takes three cycles and one can start in each, so three thirds are summed side by
// side.
__attribute__((target("sse4.2"))) static uint32_t accelerated(
    uint32_t before, const uint8_t *from, size_t byte_count) {
    uint64_t state = (uint32_t)~before;
    if (byte_count >= interleaved_byte_count_min) {
        size_t third = byte_count / 24 * 8;
        const uint8_t *second = from + third;
        const uint8_t *last = second + third;
        uint64_t second_state = 0;
        uint64_t last_state = 0;
        for (size_t offset = 0; offset < third; offset += 8) {
            state = _mm_crc32_u64(state, loaded(from + offset));
            second_state = _mm_crc32_u64(second_state, loaded(second + offset));
            last_state = _mm_crc32_u64(last_state, loaded(last + offset));
        }
        uint32_t factor = zeros_factor(third);
        state = product((uint32_t)state, factor) ^ second_state;
        state = product((uint32_t)state, factor) ^ last_state;
        from += 3 * third;
        byte_count -= 3 * third;
    }
    for (; byte_count >= 8; byte_count -= 8, from += 8) {
        state = _mm_crc32_u64(state, loaded(from));
    }
    uint32_t rest = (uint32_t)state;
    for (; byte_count > 0; byte_count -= 1, from += 1) {
        rest = _mm_crc32_u8(rest, *from);
    }
    return ~rest;
}

int ce_crc32c_is_accelerated(void) {
    return __builtin_cpu_supports("sse4.2") ? 1 : 0;
}

uint32_t ce_crc32c(uint32_t before, const void *bytes, size_t byte_count) {
    if (ce_crc32c_is_accelerated()) {
        return accelerated(before, bytes, byte_count);
    }
    return ce_crc32c_portable(before, bytes, byte_count);
}
#else
int ce_crc32c_is_accelerated(void) { return 0; }

uint32_t ce_crc32c(uint32_t before, const void *bytes, size_t byte_count) {
    return ce_crc32c_portable(before, bytes, byte_count);
}
#endif
