// System calls and texts that Swift cannot import as they are: variadic functions and extensions.
// The header includes no system header, so that those stay in one module.
#ifndef CHECKPOINT_ENGINE_CNATIVE_SYSTEM_H
#define CHECKPOINT_ENGINE_CNATIVE_SYSTEM_H

// open(2) with a mode.
int ce_open(const char *path, int flags, unsigned int mode);

// A pipe whose two ends are closed by exec and never block.
int ce_pipe(int ends[2]);

// The type of the file system that holds an open file, as statfs(2) numbers it; -1 when it is unknown.
long ce_file_system_type(int descriptor);

// Gives freed memory of the heap back to the system.
void ce_trim_heap(void);

// Takes blocks of at least this many bytes from the system and gives them back when freed, for good:
// without it the C library raises its threshold as it goes, and keeps what it has.
void ce_heap_threshold(int byte_count);

// Names the calling thread; the kernel keeps 15 bytes.
void ce_thread_name(const char *name);

// The text of an error number, a constant string; NULL for a number without one. (glibc 2.32)
const char *ce_error_text(int number);

#endif
