// What a process says when a signal ends it that nobody expected: SIGILL (a trap), SIGSEGV, SIGBUS, SIGABRT,
// SIGFPE, SIGTRAP, SIGSYS.
#ifndef CHECKPOINT_ENGINE_CNATIVE_CRASH_H
#define CHECKPOINT_ENGINE_CNATIVE_CRASH_H

// From now on such a signal writes two lines to standard error, and then does what it would have done:
//
//   crash: NAME 1.2.3 is ended by SIGBUS at 0x7f0012345000 in /dev/shm/file+0x5000, in thread 12 (reader-0)
//   crash: in program+0x1234, called from program+0x5678 libc.so.6+0x29d90
//
// `program` is the name and version, a text that is copied. A handler that was there before is called after
// that. An overflow of the stack is told for the calling thread only. To be called once.
void ce_crash_report(const char *program);

#endif
