/* Events: lines of the volatile layer's file `events`, waited for by looking again and again. */
#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define EVENTS_FILE "/run/rackserve-simulated/events"
#define LOOK_EVERY_MS 20

struct nvmlEventSet_st {
    int registered[MAX_GPUS];
    ull last; /* sequence number of the last event that was there or was given */
};

struct event {
    ull sequence, xid;
    int number;
};

/* The first event after `last` that the set waits for; -1 to find the last of all. */
static int find_event(const nvmlEventSet_t set, ull last, struct event *found)
{
    char path[STATE_PATH_MAX];
    struct event event;
    int hit = 0;
    FILE *file;

    state_path(path, sizeof path, EVENTS_FILE);
    file = fopen(path, "re");
    if (!file)
        return 0;
    while (!hit && fscanf(file, "%llu %d %llu", &event.sequence, &event.number, &event.xid) == 3) {
        int known = event.number >= 0 && event.number < MAX_GPUS;

        hit = event.sequence > last && known && set->registered[event.number];
        if (hit)
            *found = event;
    }
    fclose(file);
    return hit;
}

static ull last_sequence(void)
{
    char path[STATE_PATH_MAX];
    ull sequence, xid, last = 0;
    int number;
    FILE *file;

    state_path(path, sizeof path, EVENTS_FILE);
    file = fopen(path, "re");
    if (!file)
        return 0;
    while (fscanf(file, "%llu %d %llu", &sequence, &number, &xid) == 3)
        last = sequence;
    fclose(file);
    return last;
}

EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    TRY(initialized());
    REQUIRE(set);
    *set = calloc(1, sizeof **set);
    if (!*set)
        return NVML_ERROR_MEMORY;
    (*set)->last = last_sequence();
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    TRY(initialized());
    REQUIRE(set);
    free(set);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, ull *types)
{
    TRY(check_device(device));
    REQUIRE(types);
    *types = NVML_EVENTS_OF_H100;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, ull types, nvmlEventSet_t set)
{
    TRY(check_device(device));
    REQUIRE(set);
    if (types & NVML_EVENT_XID_CRITICAL)
        set->registered[device->number] = 1;
    return NVML_SUCCESS;
}

static ull now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (ull)now.tv_sec * 1000 + (ull)now.tv_nsec / 1000000;
}

EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, uint timeout_ms)
{
    const struct timespec pause = {0, LOOK_EVERY_MS * 1000000};
    const ull until = now_ms() + timeout_ms;
    struct event event;

    TRY(initialized());
    REQUIRE(set && data);
    while (!find_event(set, set->last, &event)) {
        if (now_ms() >= until)
            return NVML_ERROR_TIMEOUT;
        nanosleep(&pause, NULL);
    }
    set->last = event.sequence;
    *data = (nvmlEventData_t){device_at(event.number), NVML_EVENT_XID_CRITICAL, event.xid, NVML_ID_NONE, NVML_ID_NONE};
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_v1_t *data, uint timeout_ms)
{
    nvmlEventData_t newer;

    REQUIRE(data);
    TRY(nvmlEventSetWait_v2(set, &newer, timeout_ms));
    *data = (nvmlEventData_v1_t){newer.device, newer.eventType, newer.eventData};
    return NVML_SUCCESS;
}
