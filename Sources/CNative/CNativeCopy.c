#include "CNativeCopy.h"

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>

// Shorter copies gain nothing from it.
static const size_t streaming_byte_count_min = 4096;
static const size_t line_byte_count = 64;

void ce_copy_streaming(void *target, const void *source, size_t byte_count) {
    char *to = target;
    const char *from = source;
    if (byte_count < streaming_byte_count_min) {
        memcpy(to, from, byte_count);
        return;
    }
    // Streaming stores want aligned targets.
    size_t head = (size_t)(-(uintptr_t)to) & (line_byte_count - 1);
    memcpy(to, from, head);
    to += head;
    from += head;
    byte_count -= head;
    for (; byte_count >= line_byte_count; byte_count -= line_byte_count) {
        __m128i a = _mm_loadu_si128((const __m128i *)from);
        __m128i b = _mm_loadu_si128((const __m128i *)(from + 16));
        __m128i c = _mm_loadu_si128((const __m128i *)(from + 32));
        __m128i d = _mm_loadu_si128((const __m128i *)(from + 48));
        _mm_stream_si128((__m128i *)to, a);
        _mm_stream_si128((__m128i *)(to + 16), b);
        _mm_stream_si128((__m128i *)(to + 32), c);
        _mm_stream_si128((__m128i *)(to + 48), d);
        from += line_byte_count;
        to += line_byte_count;
    }
    // Streaming stores are weakly ordered: nobody may see the acknowledgement before them.
    _mm_sfence();
    memcpy(to, from, byte_count);
}
#else
void ce_copy_streaming(void *target, const void *source, size_t byte_count) {
    memcpy(target, source, byte_count);
}
#endif
