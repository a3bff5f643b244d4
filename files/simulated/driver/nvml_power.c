/* Power, temperature, what holds the clocks down, utilization. */
#include "internal.h"

#include <stdio.h>
#include <time.h>

#define REASONS_SUPPORTED 0x1ff
#define SAMPLING_PERIOD_US 100000

GET_UINT(nvmlDeviceGetPowerManagementLimit, "power.limit_mw")
GET_UINT(nvmlDeviceGetPowerManagementDefaultLimit, "power.default_mw")
GET_UINT(nvmlDeviceGetEnforcedPowerLimit, "power.enforced_limit_mw")
GET_UINT(nvmlDeviceGetPerformanceState, "performance_state")
GET_ULL(nvmlDeviceGetTotalEnergyConsumption, "power.energy_mj")
GET_ULL(nvmlDeviceGetCurrentClocksEventReasons, "throttle.reasons")
ALIAS(nvmlDeviceGetPowerState, nvmlDeviceGetPerformanceState);
ALIAS(nvmlDeviceGetCurrentClocksThrottleReasons, nvmlDeviceGetCurrentClocksEventReasons);

/* The first of the readings that the device has. */
EXPORT nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, uint *milliwatts)
{
    static const char *const names[] = {"usage", "average", "instant"};
    nvmlReturn_t result = NVML_ERROR_NOT_SUPPORTED;

    for (int i = 0; i < 3 && result == NVML_ERROR_NOT_SUPPORTED; i++)
        result = read_uint(device, milliwatts, "power.%s_mw", names[i]);
    return result;
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementMode(nvmlDevice_t device, uint *mode)
{
    uint limit;

    TRY(read_uint(device, &limit, "power.limit_mw"));
    REQUIRE(mode);
    *mode = 1;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, uint *low, uint *high)
{
    TRY(read_uint(device, low, "power.min_mw"));
    return read_uint(device, high, "power.max_mw");
}

EXPORT nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, uint milliwatts)
{
    uint low, high;

    TRY(may_change(device));
    TRY(nvmlDeviceGetPowerManagementLimitConstraints(device, &low, &high));
    REQUIRE(milliwatts >= low && milliwatts <= high);
    return write_numbers(device, STATE_VOLATILE,
                         (struct pair[]){{"power.limit_mw", milliwatts}, {"power.enforced_limit_mw", milliwatts}}, 2);
}

EXPORT nvmlReturn_t nvmlDeviceSetPowerManagementLimit_v2(nvmlDevice_t device, nvmlPowerValue_v2_t *power)
{
    REQUIRE(power);
    if (power->version != NVML_VERSION(nvmlPowerValue_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (power->powerScope != NVML_POWER_SCOPE_GPU)
        return NVML_ERROR_NOT_SUPPORTED;
    return nvmlDeviceSetPowerManagementLimit(device, power->powerValueMw);
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, uint sensor, uint *degrees)
{
    REQUIRE(sensor == 0);
    return read_uint(device, degrees, "temperature.gpu");
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_v1_t *reading)
{
    REQUIRE(reading);
    if (reading->version != NVML_VERSION(nvmlTemperature_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    REQUIRE(reading->sensorType == 0);
    return read_int(device, &reading->temperature, "temperature.gpu");
}

EXPORT nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_v1_t *reading)
{
    REQUIRE(reading);
    if (reading->version != NVML_VERSION(nvmlMarginTemperature_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return read_int(device, &reading->marginTemperature, "temperature.tlimit");
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, uint threshold, uint *degrees)
{
    static const char *const names[] = {"shutdown",     "slowdown",         "mem_max",      "gpu_max",
                                        "acoustic_min", "acoustic_current", "acoustic_max", "gps_current"};

    REQUIRE(threshold < sizeof names / sizeof *names);
    return read_uint(device, degrees, "temperature.threshold.%s", names[threshold]);
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedClocksEventReasons(nvmlDevice_t device, ull *reasons)
{
    nvmlReturn_t result = read_ull(device, reasons, "throttle.supported");

    if (result != NVML_ERROR_NOT_SUPPORTED)
        return result;
    REQUIRE(reasons);
    *reasons = REASONS_SUPPORTED;
    return NVML_SUCCESS;
}
ALIAS(nvmlDeviceGetSupportedClocksThrottleReasons, nvmlDeviceGetSupportedClocksEventReasons);

nvmlReturn_t throttle_time_ns(nvmlDevice_t device, const char *reason, ull *nanoseconds)
{
    TRY(read_ull(device, nanoseconds, "throttle.%s_us", reason));
    *nanoseconds *= 1000;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, uint policy, nvmlViolationTime_t *times)
{
    struct timespec now;
    ull hardware = 0;

    TRY(check_device(device));
    REQUIRE(times);
    clock_gettime(CLOCK_REALTIME, &now);
    times->referenceTime = (ull)now.tv_sec * 1000000 + (ull)now.tv_nsec / 1000;
    switch (policy) {
    case 0:
        return throttle_time_ns(device, "sw_power_cap", &times->violationTime);
    case 1:
        TRY(throttle_time_ns(device, "sw_thermal", &times->violationTime));
        TRY(throttle_time_ns(device, "hw_thermal", &hardware));
        times->violationTime += hardware;
        return NVML_SUCCESS;
    case 2:
        return throttle_time_ns(device, "sync_boost", &times->violationTime);
    case 3:
    case 4:
    case 5:
    case 10:
    case 11:
        times->violationTime = 0; /* board limit, low utilization, reliability, clock totals: not simulated */
        return NVML_SUCCESS;
    default:
        return NVML_ERROR_INVALID_ARGUMENT;
    }
}

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    REQUIRE(utilization);
    TRY(read_uint(device, &utilization->gpu, "utilization.gpu"));
    return read_uint(device, &utilization->memory, "utilization.memory");
}

static nvmlReturn_t engine(nvmlDevice_t device, const char *name, uint *percent, uint *period_us)
{
    TRY(read_uint(device, percent, "utilization.%s", name));
    REQUIRE(period_us);
    *period_us = SAMPLING_PERIOD_US;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, uint *percent, uint *period_us)
{
    return engine(device, "encoder", percent, period_us);
}

EXPORT nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, uint *percent, uint *period_us)
{
    return engine(device, "decoder", percent, period_us);
}

EXPORT nvmlReturn_t nvmlDeviceGetJpgUtilization(nvmlDevice_t device, uint *percent, uint *period_us)
{
    return engine(device, "jpeg", percent, period_us);
}

EXPORT nvmlReturn_t nvmlDeviceGetOfaUtilization(nvmlDevice_t device, uint *percent, uint *period_us)
{
    return engine(device, "ofa", percent, period_us);
}

/* No video sessions are simulated: always none. */
EXPORT nvmlReturn_t nvmlDeviceGetEncoderStats(nvmlDevice_t device, uint *sessions, uint *fps, uint *latency)
{
    TRY(check_device(device));
    REQUIRE(sessions && fps && latency);
    *sessions = *fps = *latency = 0;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetFBCStats(nvmlDevice_t device, nvmlFBCStats_t *stats)
{
    TRY(check_device(device));
    REQUIRE(stats);
    *stats = (nvmlFBCStats_t){0, 0, 0};
    return NVML_SUCCESS;
}
