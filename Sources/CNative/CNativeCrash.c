// What stands between `on_crash` and the top runs in a signal handler: it makes system calls and touches
// memory of its own, and nothing else. No lock, no heap, no stdio. The unwinder is the one exception; a timer
// ends the process when that does not return.
#define _GNU_SOURCE
#include "CNativeCrash.h"

#include <execinfo.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { STACK_BYTES = 128 << 10, FRAMES_MAX = 48, LINE_BYTES = 4096, TIMER_SECONDS = 3 };

enum { SIGNAL_COUNT = 7 };
static const int SIGNALS[SIGNAL_COUNT] = {SIGILL, SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGTRAP, SIGSYS};
// Who was told of them before.
static struct sigaction previous[SIGNAL_COUNT];

static char program_text[128];
static char stack[STACK_BYTES];
// The thread that is ended, and by which signal; the first one counts.
static atomic_int crashed_thread;
static atomic_int crash_signal;

static struct {
    char bytes[LINE_BYTES];
    size_t count;
} line;

static void add_byte(char byte) {
    if (line.count < sizeof line.bytes - 1) line.bytes[line.count++] = byte;
}

// Control characters of names do not reach a terminal.
static void add(const char *text) {
    for (; *text; text++) add_byte((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
}

static void add_number(uint64_t number, unsigned base) {
    char digits[24];
    int count = 0;
    do {
        digits[count++] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number != 0);
    if (base == 16) add("0x");
    while (count > 0) add_byte(digits[--count]);
}

static void write_line(void) {
    line.bytes[line.count++] = '\n';
    for (size_t done = 0; done < line.count;) {
        ssize_t count = write(STDERR_FILENO, line.bytes + done, line.count - done);
        if (count <= 0) break;
        done += (size_t)count;
    }
    line.count = 0;
}

// MARK: - Which file an address belongs to

// A line of /proc/self/maps: "START-END PERMISSIONS OFFSET DEVICE INODE PATH".
typedef struct {
    uint64_t start, end, offset;
    // Where the first part of the same file lies.
    uint64_t base;
    char path[512];
} Mapping;

static Mapping mapping;
static char maps_bytes[4096];

static const char *read_hex(const char *text, uint64_t *value) {
    *value = 0;
    for (;; text++) {
        if (*text >= '0' && *text <= '9') *value = *value * 16 + (uint64_t)(*text - '0');
        else if (*text >= 'a' && *text <= 'f') *value = *value * 16 + (uint64_t)(*text - 'a' + 10);
        else return text;
    }
}

static void parse_mapping(const char *text) {
    text = read_hex(text, &mapping.start);
    text = read_hex(*text ? text + 1 : text, &mapping.end);
    while (*text == ' ') text++;
    while (*text && *text != ' ') text++;
    while (*text == ' ') text++;
    text = read_hex(text, &mapping.offset);
    const char *path = strchr(text, '/');
    if (!path) path = "";
    if (strncmp(path, mapping.path, sizeof mapping.path - 1) != 0) {
        mapping.base = mapping.start - mapping.offset;
        size_t count = strlen(path);
        if (count > sizeof mapping.path - 1) count = sizeof mapping.path - 1;
        memcpy(mapping.path, path, count);
        mapping.path[count] = 0;
    }
}

// Puts the mapping that holds the address into `mapping`; 0 when there is none.
static int find_mapping(uint64_t address) {
    int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    mapping = (Mapping){0};
    static char text[1024];
    size_t length = 0;
    int found = 0;
    ssize_t count;
    while (!found && (count = read(file, maps_bytes, sizeof maps_bytes)) > 0) {
        for (ssize_t place = 0; place < count && !found; place++) {
            if (maps_bytes[place] != '\n') {
                if (length < sizeof text - 1) text[length++] = maps_bytes[place];
                continue;
            }
            text[length] = 0;
            length = 0;
            parse_mapping(text);
            found = mapping.start <= address && address < mapping.end;
        }
    }
    close(file);
    return found;
}

// "libzmq.so.5+0x1234": what addr2line and llvm-symbolizer take, for that file.
static void add_code_place(uint64_t address) {
    if (!find_mapping(address) || !mapping.path[0]) {
        add_number(address, 16);
        return;
    }
    const char *name = strrchr(mapping.path, '/');
    add(name ? name + 1 : mapping.path);
    add("+");
    add_number(address - mapping.base, 16);
}

// MARK: - The two lines

static const char *name_of(int number) {
    switch (number) {
    case SIGILL: return "SIGILL";
    case SIGSEGV: return "SIGSEGV";
    case SIGBUS: return "SIGBUS";
    case SIGABRT: return "SIGABRT";
    case SIGFPE: return "SIGFPE";
    case SIGTRAP: return "SIGTRAP";
    case SIGSYS: return "SIGSYS";
    default: return "a signal";
    }
}

static void write_cause(int number, const siginfo_t *info) {
    add("crash: ");
    add(program_text);
    add(" is ended by ");
    add(name_of(number));
    if (info->si_code > 0 && (number == SIGSEGV || number == SIGBUS)) {
        uint64_t address = (uint64_t)info->si_addr;
        add(" at ");
        add_number(address, 16);
        if (find_mapping(address) && mapping.path[0]) {
            add(" in ");
            add(mapping.path);
            add("+");
            add_number(address - mapping.start + mapping.offset, 16);
        }
    } else if (info->si_code <= 0 && info->si_pid != getpid()) {
        add(" from process ");
        add_number((uint64_t)info->si_pid, 10);
    }
    char name[17] = {0};
    prctl(PR_GET_NAME, name);
    add(", in thread ");
    add_number((uint64_t)syscall(SYS_gettid), 10);
    add(" (");
    add(name);
    add(")");
    write_line();
}

static uint64_t program_counter(const ucontext_t *context) {
#if defined(__x86_64__)
    return (uint64_t)context->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
    return (uint64_t)context->uc_mcontext.pc;
#else
    return 0;
#endif
}

static void write_calls(const ucontext_t *context) {
    void *frames[FRAMES_MAX];
    uint64_t counter = program_counter(context);
    int count = backtrace(frames, FRAMES_MAX);
    // The first ones are those of this handler.
    int first = 0;
    while (first < count && (uint64_t)frames[first] != counter) first++;
    add("crash: in ");
    add_code_place(counter);
    if (first == count) first = -1;
    for (int place = first + 1; place < count; place++) {
        add(place == first + 1 ? ", called from " : " ");
        add_code_place((uint64_t)frames[place]);
    }
    write_line();
}

// MARK: - The handlers

static void send_to_crashed_thread(void) {
    int number = atomic_load(&crash_signal);
    signal(number, SIG_DFL);
    syscall(SYS_tgkill, getpid(), atomic_load(&crashed_thread), number);
}

// The report does not come to its end.
static void on_alarm(int number) {
    (void)number;
    send_to_crashed_thread();
}

// The report of Swift's own runtime, where that is there, comes after this one.
static void call_previous(int number, siginfo_t *info, void *context) {
    for (int place = 0; place < SIGNAL_COUNT; place++) {
        const struct sigaction *action = &previous[place];
        if (SIGNALS[place] != number) continue;
        if (action->sa_flags & SA_SIGINFO)
            action->sa_sigaction(number, info, context);
        else if (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN)
            action->sa_handler(number);
    }
}

static void on_crash(int number, siginfo_t *info, void *context) {
    int own = (int)syscall(SYS_gettid);
    int other = 0;
    if (!atomic_compare_exchange_strong(&crashed_thread, &other, own)) {
        if (other == own) {
            // The report itself has crashed: what it has written has to do.
            signal(number, SIG_DFL);
            return;
        }
        for (;;) poll(NULL, 0, TIMER_SECONDS * 1000);
    }
    atomic_store(&crash_signal, number);
    signal(SIGALRM, on_alarm);
    alarm(TIMER_SECONDS);
    write_cause(number, info);
    write_calls(context);
    alarm(0);
    call_previous(number, info, context);
    // The instruction is carried out once more, so that a core file shows the place; a signal that was sent,
    // or that comes after its instruction, would not come again by itself.
    if (info->si_code > 0 && number != SIGTRAP && number != SIGSYS) {
        signal(number, SIG_DFL);
        return;
    }
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    send_to_crashed_thread();
}

void ce_crash_report(const char *program) {
    strncpy(program_text, program, sizeof program_text - 1);
    // Loads the unwinder, which a handler may not.
    void *frame[1];
    backtrace(frame, 1);
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternative, NULL);
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    action.sa_sigaction = on_crash;
    sigemptyset(&action.sa_mask);
    for (int place = 0; place < SIGNAL_COUNT; place++)
        sigaction(SIGNALS[place], &action, &previous[place]);
}
