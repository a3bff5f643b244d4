/* Clocks: current, supported, and the settings that hold them. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CLOCKS 512

static const char *const clock_names[] = {"graphics", "sm", "memory", "video"};

/* "1980,1965,1950" or "1980:345:15" (highest:lowest:step), highest first. */
static nvmlReturn_t parse_clocks(const char *text, uint *clocks, uint *count)
{
    uint high, low, step;
    char *end;

    *count = 0;
    if (sscanf(text, "%u:%u:%u", &high, &low, &step) == 3) {
        for (; step > 0 && high >= low && *count < MAX_CLOCKS; high -= step) {
            clocks[(*count)++] = high;
            if (high < step)
                break;
        }
        return *count ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
    }
    while (*text && *count < MAX_CLOCKS) {
        clocks[(*count)++] = (uint)strtoul(text, &end, 10);
        if (end == text || (*end && *end != ','))
            return NVML_ERROR_UNKNOWN;
        text = *end ? end + 1 : end;
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t memory_clocks(nvmlDevice_t device, uint *clocks, uint *count)
{
    char value[STATE_VALUE_MAX];

    TRY(read_value(device, value, sizeof value, "clocks.supported_memory_mhz"));
    return parse_clocks(value, clocks, count);
}

/* NOT_FOUND for a memory clock the device does not have. */
static nvmlReturn_t graphics_clocks(nvmlDevice_t device, uint memory_mhz, uint *clocks, uint *count)
{
    char value[STATE_VALUE_MAX];
    nvmlReturn_t result;

    TRY(memory_clocks(device, clocks, count));
    result = read_value(device, value, sizeof value, "clocks.supported_graphics_mhz.%u", memory_mhz);
    if (result == NVML_ERROR_NOT_SUPPORTED)
        return NVML_ERROR_NOT_FOUND;
    TRY(result);
    return parse_clocks(value, clocks, count);
}

static nvmlReturn_t give_clocks(const uint *clocks, uint have, uint *count, uint *out)
{
    uint room;

    REQUIRE(count);
    room = *count;
    *count = have;
    if (room < have)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    REQUIRE(out);
    memcpy(out, clocks, have * sizeof *out);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, uint *count, uint *mhz)
{
    uint clocks[MAX_CLOCKS], have;

    TRY(memory_clocks(device, clocks, &have));
    return give_clocks(clocks, have, count, mhz);
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, uint memory_mhz, uint *count, uint *mhz)
{
    uint clocks[MAX_CLOCKS], have;

    TRY(graphics_clocks(device, memory_mhz, clocks, &have));
    return give_clocks(clocks, have, count, mhz);
}

/* Reasons that take a clock below a locked range: power cap and slowdowns (nvml.h, nvmlClocksEventReason). */
#define SLOWED 0xecULL

/* A locked range holds the clock the hardware would take; heat and power are stronger than its lower end. */
static nvmlReturn_t hold(nvmlDevice_t device, const char *key, uint *mhz)
{
    ull range[2], reasons = 0;
    nvmlReturn_t result = read_list(device, range, 2, "%s", key);

    if (result == NVML_ERROR_NOT_SUPPORTED)
        return NVML_SUCCESS;
    TRY(result);
    (void)read_ull(device, &reasons, "throttle.reasons");
    if (*mhz < range[0] && !(reasons & SLOWED))
        *mhz = (uint)range[0];
    if (*mhz > range[1])
        *mhz = (uint)range[1];
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, uint type, uint *mhz)
{
    REQUIRE(type < NVML_CLOCK_COUNT && mhz);
    TRY(read_uint(device, mhz, "clocks.current.%s_mhz", clock_names[type]));
    if (type == NVML_CLOCK_GRAPHICS || type == NVML_CLOCK_SM)
        return hold(device, "clocks.locked_graphics_mhz", mhz);
    return type == NVML_CLOCK_MEM ? hold(device, "clocks.locked_memory_mhz", mhz) : NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, uint type, uint *mhz)
{
    REQUIRE(type < NVML_CLOCK_COUNT);
    return read_uint(device, mhz, "clocks.max.%s_mhz", clock_names[type]);
}

static nvmlReturn_t application_clock(nvmlDevice_t device, uint type, const char *group, uint *mhz)
{
    REQUIRE(type < NVML_CLOCK_COUNT);
    return read_uint(device, mhz, "clocks.%s.%s_mhz", group, clock_names[type == NVML_CLOCK_SM ? NVML_CLOCK_GRAPHICS : type]);
}

EXPORT nvmlReturn_t nvmlDeviceGetApplicationsClock(nvmlDevice_t device, uint type, uint *mhz)
{
    return application_clock(device, type, "app", mhz);
}

EXPORT nvmlReturn_t nvmlDeviceGetDefaultApplicationsClock(nvmlDevice_t device, uint type, uint *mhz)
{
    return application_clock(device, type, "app_default", mhz);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxCustomerBoostClock(nvmlDevice_t device, uint type, uint *mhz)
{
    REQUIRE(type < NVML_CLOCK_COUNT);
    if (type == NVML_CLOCK_GRAPHICS || type == NVML_CLOCK_SM)
        return read_uint(device, mhz, "clocks.max_customer_boost_mhz");
    return read_uint(device, mhz, "clocks.max_customer_boost_%s_mhz", clock_names[type]);
}

EXPORT nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, uint type, uint id, uint *mhz)
{
    switch (id) {
    case NVML_CLOCK_ID_CURRENT:
        return nvmlDeviceGetClockInfo(device, type, mhz);
    case NVML_CLOCK_ID_APP_CLOCK_TARGET:
        return nvmlDeviceGetApplicationsClock(device, type, mhz);
    case NVML_CLOCK_ID_APP_CLOCK_DEFAULT:
        return nvmlDeviceGetDefaultApplicationsClock(device, type, mhz);
    case NVML_CLOCK_ID_CUSTOMER_BOOST_MAX:
        return nvmlDeviceGetMaxCustomerBoostClock(device, type, mhz);
    default:
        return NVML_ERROR_INVALID_ARGUMENT;
    }
}

static int among(uint wanted, const uint *clocks, uint count)
{
    for (uint i = 0; i < count; i++)
        if (clocks[i] == wanted)
            return 1;
    return 0;
}

EXPORT nvmlReturn_t nvmlDeviceSetApplicationsClocks(nvmlDevice_t device, uint memory_mhz, uint graphics_mhz)
{
    uint clocks[MAX_CLOCKS], count;
    nvmlReturn_t result;

    TRY(may_change(device));
    result = graphics_clocks(device, memory_mhz, clocks, &count);
    REQUIRE(result != NVML_ERROR_NOT_FOUND);
    TRY(result);
    REQUIRE(among(graphics_mhz, clocks, count));
    return write_numbers(device, STATE_VOLATILE,
                         (struct pair[]){{"clocks.app.graphics_mhz", graphics_mhz}, {"clocks.app.memory_mhz", memory_mhz}}, 2);
}

EXPORT nvmlReturn_t nvmlDeviceResetApplicationsClocks(nvmlDevice_t device)
{
    uint graphics, memory;

    TRY(may_change(device));
    TRY(nvmlDeviceGetDefaultApplicationsClock(device, NVML_CLOCK_GRAPHICS, &graphics));
    TRY(nvmlDeviceGetDefaultApplicationsClock(device, NVML_CLOCK_MEM, &memory));
    return write_numbers(device, STATE_VOLATILE,
                         (struct pair[]){{"clocks.app.graphics_mhz", graphics}, {"clocks.app.memory_mhz", memory}}, 2);
}

/* Like the hardware: any value within the supported range is taken and held at the next supported clock below. */
static nvmlReturn_t settle(uint *mhz, const uint *clocks, uint count)
{
    if (*mhz == NVML_CLOCK_LIMIT_ID_TDP || *mhz == NVML_CLOCK_LIMIT_ID_UNLIMITED)
        *mhz = clocks[0];
    REQUIRE(*mhz <= clocks[0] && *mhz >= clocks[count - 1]);
    for (uint i = 0; i < count; i++) {
        if (clocks[i] <= *mhz) {
            *mhz = clocks[i];
            break;
        }
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t lock_clocks(nvmlDevice_t device, const char *key, uint low, uint high, const uint *clocks, uint count)
{
    char range[32];

    REQUIRE(count > 0);
    TRY(settle(&low, clocks, count));
    TRY(settle(&high, clocks, count));
    REQUIRE(low <= high);
    snprintf(range, sizeof range, "%u,%u", low, high);
    return write_value(device, key, range);
}

EXPORT nvmlReturn_t nvmlDeviceSetGpuLockedClocks(nvmlDevice_t device, uint low, uint high)
{
    uint memory[MAX_CLOCKS], clocks[MAX_CLOCKS], count;

    TRY(may_change(device));
    TRY(memory_clocks(device, memory, &count));
    TRY(graphics_clocks(device, memory[0], clocks, &count));
    return lock_clocks(device, "clocks.locked_graphics_mhz", low, high, clocks, count);
}

EXPORT nvmlReturn_t nvmlDeviceResetGpuLockedClocks(nvmlDevice_t device)
{
    TRY(may_change(device));
    return write_value(device, "clocks.locked_graphics_mhz", NULL);
}

EXPORT nvmlReturn_t nvmlDeviceSetMemoryLockedClocks(nvmlDevice_t device, uint low, uint high)
{
    uint clocks[MAX_CLOCKS], count;

    TRY(may_change(device));
    TRY(memory_clocks(device, clocks, &count));
    return lock_clocks(device, "clocks.locked_memory_mhz", low, high, clocks, count);
}

EXPORT nvmlReturn_t nvmlDeviceResetMemoryLockedClocks(nvmlDevice_t device)
{
    TRY(may_change(device));
    return write_value(device, "clocks.locked_memory_mhz", NULL);
}

EXPORT nvmlReturn_t nvmlDeviceGetMinMaxClockOfPState(nvmlDevice_t device, uint type, uint pstate, uint *low, uint *high)
{
    uint clocks[MAX_CLOCKS], count;

    TRY(memory_clocks(device, clocks, &count));
    REQUIRE(pstate == 0 && low && high && type <= NVML_CLOCK_MEM && count > 0);
    if (type == NVML_CLOCK_MEM)
        count = 1; /* the fastest state has one memory clock */
    else
        TRY(graphics_clocks(device, clocks[0], clocks, &count));
    *high = clocks[0];
    *low = clocks[count - 1];
    return NVML_SUCCESS;
}
