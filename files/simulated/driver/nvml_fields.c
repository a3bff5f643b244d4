/* nvmlDeviceGetFieldValues. */
#include "internal.h"

#include <string.h>
#include <time.h>

enum { UINT = NVML_VALUE_TYPE_UNSIGNED_INT, ULL = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, INT = NVML_VALUE_TYPE_SIGNED_INT };

/* Fields that are one key. */
static const struct {
    uint id, type;
    const char *key;
} simple[] = {
    {1, ULL, "ecc.current"},
    {2, ULL, "ecc.pending"},
    {11, ULL, "ecc.volatile.dram_correctable"},
    {12, ULL, "ecc.volatile.dram_uncorrectable"},
    {22, ULL, "ecc.aggregate.dram_correctable"},
    {23, ULL, "ecc.aggregate.dram_uncorrectable"},
    {82, UINT, "temperature.memory"},
    {83, ULL, "power.energy_mj"},
    {90, UINT, "nvlink.speed_mbytes_s"},
    {91, UINT, "nvlink.count"},
    {94, UINT, "pcie.replay"},
    {95, UINT, "pcie.replay_rollover"},
    {142, ULL, "remap.correctable"},
    {143, ULL, "remap.uncorrectable"},
    {144, ULL, "remap.pending"},
    {145, ULL, "remap.failure"},
    {187, UINT, "power.min_mw"},
    {188, UINT, "power.max_mw"},
    {189, UINT, "power.default_mw"},
    {190, UINT, "power.enforced_limit_mw"},
    {191, ULL, "power.energy_mj"},
    {192, UINT, "power.limit_mw"},
    {193, INT, "temperature.tlimit_threshold.shutdown"},
    {194, INT, "temperature.tlimit_threshold.slowdown"},
    {195, INT, "temperature.tlimit_threshold.mem_max"},
    {196, INT, "temperature.tlimit_threshold.gpu_max"},
    {228, UINT, "pcie.atomics_outbound"},
    {229, UINT, "pcie.atomics_inbound"},
    {230, UINT, "recovery_action"},
    {301, ULL, "remap.correctable_inactive"},
    {302, ULL, "remap.uncorrectable_inactive"},
};

/* Times that something held the clocks down. */
static const struct {
    uint id;
    const char *reason;
} throttles[] = {{74, "sw_power_cap"}, {76, "sync_boost"}, {269, "sw_thermal"}, {270, "hw_thermal"}, {271, "hw_power_brake"}};

/* Counters of NVLinks: links 0-5 and 6-11 have fields of their own, `total` sums all. */
static const struct {
    uint low, high, total;
    const char *name;
} counters[] = {
    {32, 96, 38, "errors.crc_flit"},
    {39, 102, 45, "errors.crc_data"},
    {46, 108, 52, "errors.replay"},
    {53, 114, 59, "errors.recovery"},
    {84, 132, 0, "speed_mbytes_s"},
};

/* Fields that take the link from the scope. */
static const struct {
    uint id, type;
    const char *name;
} scoped[] = {
    {161, ULL, "errors.replay"}, {162, ULL, "errors.recovery"}, {163, ULL, "errors.crc_flit"},
    {164, UINT, "speed_mbytes_s"}, {165, UINT, "state"},        {166, UINT, "version"},
};

static nvmlReturn_t total_of(nvmlDevice_t device, const char *name, ull *value)
{
    uint count;
    ull one;

    TRY(read_uint(device, &count, "nvlink.count"));
    *value = 0;
    for (uint link = 0; link < count; link++) {
        TRY(nvlink_value(device, link, name, &one));
        *value += one;
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t switch_links(nvmlDevice_t device, ull *value)
{
    uint count;
    ull type;

    TRY(read_uint(device, &count, "nvlink.count"));
    *value = 0;
    for (uint link = 0; link < count; link++)
        *value += nvlink_value(device, link, "remote_type", &type) == NVML_SUCCESS && type == 2;
    return NVML_SUCCESS;
}

/* 185 and 186: average and instant power of the GPU, the module or the memory. */
static nvmlReturn_t power_of(nvmlDevice_t device, uint id, uint scope, ull *value)
{
    static const char *const scopes[] = {"", "module_", "memory_"};

    REQUIRE(scope < sizeof scopes / sizeof *scopes);
    return read_ull(device, value, "power.%s%s_mw", scopes[scope], id == 185 ? "average" : "instant");
}

static nvmlReturn_t link_field(nvmlDevice_t device, nvmlFieldValue_t *field, ull *value)
{
    for (size_t i = 0; i < sizeof scoped / sizeof *scoped; i++) {
        if (scoped[i].id != field->fieldId)
            continue;
        field->valueType = scoped[i].type;
        return nvlink_value(device, field->scopeId, scoped[i].name, value);
    }
    field->valueType = ULL;
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) {
        uint id = field->fieldId, low = counters[i].low, high = counters[i].high;

        if (!counters[i].total && ((id >= low && id < low + 6) || (id >= high && id < high + 6)))
            field->valueType = UINT;
        if (id >= low && id < low + 6)
            return nvlink_value(device, id - low, counters[i].name, value);
        if (id >= high && id < high + 6)
            return nvlink_value(device, id - high + 6, counters[i].name, value);
        if (counters[i].total && id == counters[i].total)
            return total_of(device, counters[i].name, value);
    }
    return NVML_ERROR_NOT_SUPPORTED;
}

static nvmlReturn_t value_of(nvmlDevice_t device, nvmlFieldValue_t *field, ull *value)
{
    const uint id = field->fieldId;

    if (id >= 187 && id <= 192 && id != 191 && field->scopeId != NVML_POWER_SCOPE_GPU)
        return field->scopeId == NVML_POWER_SCOPE_MODULE ? NVML_ERROR_NOT_SUPPORTED : NVML_ERROR_INVALID_ARGUMENT;
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++) {
        if (simple[i].id == id) {
            field->valueType = simple[i].type;
            return read_ull(device, value, "%s", simple[i].key);
        }
    }
    for (size_t i = 0; i < sizeof throttles / sizeof *throttles; i++) {
        if (throttles[i].id == id) {
            field->valueType = ULL;
            return throttle_time_ns(device, throttles[i].reason, value);
        }
    }
    field->valueType = UINT;
    if (id == 147)
        return switch_links(device, value);
    if (id == 185 || id == 186)
        return power_of(device, id, field->scopeId, value);
    return link_field(device, field, value);
}

EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *fields)
{
    struct timespec now;

    TRY(check_device(device));
    REQUIRE(count > 0 && fields);
    clock_gettime(CLOCK_REALTIME, &now);
    for (int i = 0; i < count; i++) {
        ull value = 0;

        fields[i].timestamp = (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000;
        fields[i].latencyUsec = 0;
        memset(&fields[i].value, 0, sizeof fields[i].value);
        fields[i].nvmlReturn = value_of(device, &fields[i], &value);
        if (fields[i].valueType == ULL)
            fields[i].value.ullVal = value;
        else if (fields[i].valueType == INT)
            fields[i].value.siVal = (int)value;
        else
            fields[i].value.uiVal = (uint)value;
    }
    return NVML_SUCCESS;
}
