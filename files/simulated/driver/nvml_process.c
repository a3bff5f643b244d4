/* Processes that hold a GPU. */
#include "internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_PROCESSES 1024

struct processes {
    nvmlProcessInfo_t list[MAX_PROCESSES];
    uint count;
};

static int add_process(const char *key, const char *value, void *context)
{
    struct processes *processes = context;
    unsigned long pid;
    ull bytes;

    (void)key;
    if (sscanf(value, "%lu %llu", &pid, &bytes) == 2 && process_alive((long)pid) && processes->count < MAX_PROCESSES)
        processes->list[processes->count++] = (nvmlProcessInfo_t){(uint)pid, bytes, NVML_ID_NONE, NVML_ID_NONE};
    return 0;
}

static nvmlReturn_t living(nvmlDevice_t device, struct processes *processes)
{
    char prefix[STATE_KEY_MAX];

    TRY(check_device(device));
    processes->count = 0;
    snprintf(prefix, sizeof prefix, "gpu.%d.process.", device->number);
    state_each(prefix, add_process, processes);
    return NVML_SUCCESS;
}

ull process_memory(nvmlDevice_t device)
{
    struct processes *processes = malloc(sizeof *processes);
    ull bytes = 0;

    if (processes && living(device, processes) == NVML_SUCCESS)
        for (uint i = 0; i < processes->count; i++)
            bytes += processes->list[i].usedGpuMemory;
    free(processes);
    return bytes;
}

/* Fills either structure; the first number of both is the pid, the second the memory. */
static nvmlReturn_t give_processes(nvmlDevice_t device, uint *count, void *out, size_t each)
{
    struct processes *processes = malloc(sizeof *processes);
    nvmlReturn_t result = processes ? living(device, processes) : NVML_ERROR_MEMORY;
    uint room;

    if (result == NVML_SUCCESS && !count)
        result = NVML_ERROR_INVALID_ARGUMENT;
    if (result == NVML_SUCCESS) {
        room = *count;
        *count = processes->count;
        if (room < processes->count)
            result = NVML_ERROR_INSUFFICIENT_SIZE;
        else
            for (uint i = 0; out && i < processes->count; i++)
                memcpy((char *)out + i * each, &processes->list[i], each);
    }
    free(processes);
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, uint *count, nvmlProcessInfo_t *list)
{
    return give_processes(device, count, list, sizeof *list);
}
ALIAS(nvmlDeviceGetComputeRunningProcesses_v2, nvmlDeviceGetComputeRunningProcesses_v3);

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, uint *count, nvmlProcessInfo_v1_t *list)
{
    return give_processes(device, count, list, sizeof *list);
}

/* All simulated processes compute. */
EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, uint *count, nvmlProcessInfo_t *list)
{
    (void)list;
    TRY(check_device(device));
    REQUIRE(count);
    *count = 0;
    return NVML_SUCCESS;
}
ALIAS(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlDeviceGetGraphicsRunningProcesses_v3);
ALIAS(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlDeviceGetGraphicsRunningProcesses_v3);
ALIAS(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlDeviceGetGraphicsRunningProcesses_v3);

EXPORT nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t device, uint *count, nvmlProcessInfo_v1_t *list)
{
    (void)list;
    return nvmlDeviceGetGraphicsRunningProcesses_v3(device, count, NULL);
}
ALIAS(nvmlDeviceGetMPSComputeRunningProcesses, nvmlDeviceGetGraphicsRunningProcesses);

EXPORT nvmlReturn_t nvmlDeviceGetAccountingPids(nvmlDevice_t device, uint *count, uint *pids)
{
    (void)pids;
    return nvmlDeviceGetGraphicsRunningProcesses_v3(device, count, NULL);
}

/* First word of the command line, as the driver gives it; a thread of the kernel has none. */
EXPORT nvmlReturn_t nvmlSystemGetProcessName(uint pid, char *name, uint length)
{
    char path[64];
    ssize_t got;
    int file;

    TRY(initialized());
    REQUIRE(name && length > 0);
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    file = process_alive((long)pid) ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return NVML_ERROR_NOT_FOUND;
    got = read(file, name, length - 1);
    close(file);
    if (got <= 0)
        return NVML_ERROR_NOT_FOUND;
    name[got] = '\0';
    return NVML_SUCCESS;
}
