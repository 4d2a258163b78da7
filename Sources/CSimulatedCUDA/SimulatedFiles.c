// Device memory as files that other processes can map.
#define _GNU_SOURCE
#include "Simulated.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "/dev/shm"

struct name {
    int physical;
    int pid;
    unsigned int number;
};

static atomic_uint next_number = 1;

static bool name_parse(const char *text, struct name *name) {
    int length = 0;
    int count = sscanf(
        text, "simulated-cuda-%d-%d-%u%n", &name->physical, &name->pid, &name->number, &length);
    return count == 3 && text[length] == 0 && name->pid > 0;
}

// A killed process has no memory any more, even while its parent has not waited for it.
bool simulated_is_alive(int pid) {
    if (kill(pid, 0) != 0 && errno == ESRCH) return false;
    char path[32], text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) return true;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    const char *end = strrchr(text, ')');
    return end == NULL || end[1] == 0 || (end[2] != 'Z' && end[2] != 'X');
}

// Calls the visitor with each file of device memory in the folder.
static void files_visit(void (*visit)(int folder, const char *, struct name, void *), void *data) {
    DIR *folder = opendir(FOLDER);
    if (folder == NULL) return;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        struct name name;
        if (name_parse(entry->d_name, &name)) visit(dirfd(folder), entry->d_name, name, data);
    }
    closedir(folder);
}

static void sweep_one(int folder, const char *text, struct name name, void *data) {
    (void)data;
    if (!simulated_is_alive(name.pid)) unlinkat(folder, text, 0);
}

void simulated_files_sweep(void) { files_visit(sweep_one, NULL); }

struct use {
    int physical;
    unsigned long long byte_count;
};

static void use_one(int folder, const char *text, struct name name, void *data) {
    struct use *use = data;
    struct stat status;
    if (name.physical != use->physical || !simulated_is_alive(name.pid)) return;
    if (fstatat(folder, text, &status, AT_SYMLINK_NOFOLLOW) != 0) return;
    use->byte_count += (unsigned long long)status.st_size;
}

unsigned long long simulated_files_used(int physical) {
    struct use use = {.physical = physical};
    files_visit(use_one, &use);
    return use.byte_count;
}

static void unlink_one(int folder, const char *text, struct name name, void *data) {
    (void)data;
    if (name.pid == getpid()) unlinkat(folder, text, 0);
}

void simulated_files_unlink_own(void) { files_visit(unlink_one, NULL); }

// Makes an empty file and gives it its size if the device has the memory.
static CUresult file_size(int physical, size_t byte_count, char path[PATH_BYTE_COUNT], int *file) {
    unsigned long long used = simulated_files_used(physical);
    unsigned long long total = simulated_settings.memory_byte_count;
    if (used > total || byte_count > total - used) return CUDA_ERROR_OUT_OF_MEMORY;
    do {
        unsigned int number = atomic_fetch_add(&next_number, 1);
        snprintf(path, PATH_BYTE_COUNT, FOLDER "/simulated-cuda-%d-%d-%u", physical, (int)getpid(),
                 number);
        *file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    } while (*file < 0 && errno == EEXIST);
    if (*file < 0) return CUDA_ERROR_OUT_OF_MEMORY;
    if (ftruncate(*file, (off_t)byte_count) == 0) return CUDA_SUCCESS;
    unlink(path);
    close(*file);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult simulated_file_make(
    int physical, size_t byte_count, char path[PATH_BYTE_COUNT], void **start) {
    // Of processes and threads that allocate at once, one after the other looks and takes.
    int folder = open(FOLDER, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return CUDA_ERROR_OUT_OF_MEMORY;
    while (flock(folder, LOCK_EX) != 0 && errno == EINTR) {}
    int file;
    CUresult result = file_size(physical, byte_count, path, &file);
    close(folder);
    if (result != CUDA_SUCCESS) return result;
    // Takes the memory now: a full folder is an error here and not a signal later.
    int error;
    do error = posix_fallocate(file, 0, (off_t)byte_count);
    while (error == EINTR);
    *start = MAP_FAILED;
    if (error == 0) {
        *start = mmap(NULL, byte_count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    close(file);
    if (*start != MAP_FAILED) return CUDA_SUCCESS;
    unlink(path);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult simulated_file_map(const char *path, size_t byte_count, void **start) {
    const size_t folder_length = strlen(FOLDER "/");
    struct name name;
    if (strncmp(path, FOLDER "/", folder_length) != 0) return CUDA_ERROR_INVALID_VALUE;
    if (!name_parse(path + folder_length, &name)) return CUDA_ERROR_INVALID_VALUE;
    // The maker has a pointer already.
    if (name.pid == getpid()) return CUDA_ERROR_INVALID_VALUE;
    int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (file < 0) return CUDA_ERROR_MAP_FAILED;
    struct stat status;
    bool has_size = fstat(file, &status) == 0 && (unsigned long long)status.st_size == byte_count;
    *start = MAP_FAILED;
    if (has_size && byte_count > 0) {
        *start = mmap(NULL, byte_count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    }
    close(file);
    if (!has_size) return CUDA_ERROR_INVALID_VALUE;
    return *start == MAP_FAILED ? CUDA_ERROR_MAP_FAILED : CUDA_SUCCESS;
}
