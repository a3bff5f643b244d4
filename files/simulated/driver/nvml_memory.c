/* Memory, ECC, row remapping. */
#include "internal.h"

#include <stdio.h>
#include <string.h>

GET_UINT(nvmlDeviceGetMemoryBusWidth, "memory.bus_width_bits")

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    ull processes;

    REQUIRE(memory);
    if (memory->version != NVML_VERSION(nvmlMemory_v2_t, 2))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    TRY(read_ull(device, &memory->total, "memory.total_bytes"));
    TRY(read_ull(device, &memory->reserved, "memory.reserved_bytes"));
    TRY(read_ull(device, &memory->used, "memory.used_bytes"));
    processes = process_memory(device);
    if (memory->used < processes)
        memory->used = processes;
    if (memory->used > memory->total - memory->reserved)
        memory->used = memory->total - memory->reserved;
    memory->free = memory->total - memory->reserved - memory->used;
    return NVML_SUCCESS;
}

/* The older structure counts what is reserved as used. */
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    nvmlMemory_v2_t newer = {.version = NVML_VERSION(nvmlMemory_v2_t, 2)};

    REQUIRE(memory);
    TRY(nvmlDeviceGetMemoryInfo_v2(device, &newer));
    memory->total = newer.total;
    memory->free = newer.free;
    memory->used = newer.total - newer.free;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *memory)
{
    REQUIRE(memory);
    TRY(read_ull(device, &memory->bar1Total, "bar1.total_bytes"));
    TRY(read_ull(device, &memory->bar1Used, "bar1.used_bytes"));
    memory->bar1Free = memory->bar1Total - memory->bar1Used;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetConfComputeProtectedMemoryUsage(nvmlDevice_t device, nvmlMemory_t *memory)
{
    REQUIRE(memory);
    TRY(read_ull(device, &memory->total, "cc_protected.total_bytes"));
    TRY(read_ull(device, &memory->used, "cc_protected.used_bytes"));
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, uint *current, uint *pending)
{
    TRY(read_uint(device, current, "ecc.current"));
    return read_uint(device, pending, "ecc.pending");
}

EXPORT nvmlReturn_t nvmlDeviceGetDefaultEccMode(nvmlDevice_t device, uint *mode)
{
    TRY(read_uint(device, mode, "ecc.current"));
    *mode = 1;
    return NVML_SUCCESS;
}

/* Takes effect at the next boot, so it is kept where a reboot does not reach. */
EXPORT nvmlReturn_t nvmlDeviceSetEccMode(nvmlDevice_t device, uint mode)
{
    uint current;

    TRY(may_change(device));
    REQUIRE(mode <= 1);
    TRY(read_uint(device, &current, "ecc.current"));
    if (!state_writable(STATE_PERSISTENT))
        return NVML_ERROR_NO_PERMISSION;
    return write_numbers(device, STATE_PERSISTENT, &(struct pair){"ecc.pending", mode}, 1);
}

static const char *counter_name(uint counter)
{
    return counter == NVML_VOLATILE_ECC ? "volatile" : "aggregate";
}

static nvmlReturn_t ecc_count(nvmlDevice_t device, uint counter, const char *name, ull *count)
{
    return read_ull(device, count, "ecc.%s.%s", counter_name(counter), name);
}

static nvmlReturn_t sram_count(nvmlDevice_t device, uint type, uint counter, ull *count)
{
    ull parity, secded;

    if (type == NVML_MEMORY_ERROR_TYPE_CORRECTED)
        return ecc_count(device, counter, "sram_correctable", count);
    TRY(ecc_count(device, counter, "sram_uncorrectable_parity", &parity));
    TRY(ecc_count(device, counter, "sram_uncorrectable_secded", &secded));
    *count = parity + secded;
    return NVML_SUCCESS;
}

static nvmlReturn_t dram_count(nvmlDevice_t device, uint type, uint counter, ull *count)
{
    const char *name = type == NVML_MEMORY_ERROR_TYPE_CORRECTED ? "dram_correctable" : "dram_uncorrectable";

    return ecc_count(device, counter, name, count);
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, uint type, uint counter, uint location, ull *count)
{
    TRY(check_device(device));
    REQUIRE(type <= 1 && counter <= 1 && location < NVML_MEMORY_LOCATION_COUNT && count);
    if (location == NVML_MEMORY_LOCATION_DRAM)
        return dram_count(device, type, counter, count);
    return location == NVML_MEMORY_LOCATION_SRAM ? sram_count(device, type, counter, count) : NVML_ERROR_NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, uint type, uint counter, ull *count)
{
    ull sram, dram;

    REQUIRE(type <= 1 && counter <= 1 && count);
    TRY(sram_count(device, type, counter, &sram));
    TRY(dram_count(device, type, counter, &dram));
    *count = sram + dram;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetDetailedEccErrors(nvmlDevice_t device, uint type, uint counter, nvmlEccErrorCounts_t *counts)
{
    REQUIRE(type <= 1 && counter <= 1 && counts);
    memset(counts, 0, sizeof *counts);
    TRY(sram_count(device, type, counter, &counts->l2Cache));
    return dram_count(device, type, counter, &counts->deviceMemory);
}

EXPORT nvmlReturn_t nvmlDeviceGetSramEccErrorStatus(nvmlDevice_t device, nvmlEccSramErrorStatus_v1_t *status)
{
    ull sources[5];

    REQUIRE(status);
    if (status->version != NVML_VERSION(nvmlEccSramErrorStatus_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    TRY(ecc_count(device, NVML_AGGREGATE_ECC, "sram_uncorrectable_parity", &status->aggregateUncParity));
    TRY(ecc_count(device, NVML_AGGREGATE_ECC, "sram_uncorrectable_secded", &status->aggregateUncSecDed));
    TRY(ecc_count(device, NVML_AGGREGATE_ECC, "sram_correctable", &status->aggregateCor));
    TRY(ecc_count(device, NVML_VOLATILE_ECC, "sram_uncorrectable_parity", &status->volatileUncParity));
    TRY(ecc_count(device, NVML_VOLATILE_ECC, "sram_uncorrectable_secded", &status->volatileUncSecDed));
    TRY(ecc_count(device, NVML_VOLATILE_ECC, "sram_correctable", &status->volatileCor));
    TRY(read_list(device, sources, 5, "ecc.sram_sources"));
    status->aggregateUncBucketL2 = sources[0];
    status->aggregateUncBucketSm = sources[1];
    status->aggregateUncBucketMcu = sources[2];
    status->aggregateUncBucketPcie = sources[3];
    status->aggregateUncBucketOther = sources[4];
    return read_uint(device, &status->bThresholdExceeded, "ecc.sram_threshold_exceeded");
}

/* Aggregate counters survive a boot: 0 goes to the persistent layer, and nothing above it may hide that. */
EXPORT nvmlReturn_t nvmlDeviceClearEccErrorCounts(nvmlDevice_t device, uint counter)
{
    static const char *const names[] = {"sram_correctable", "sram_uncorrectable_parity", "sram_uncorrectable_secded",
                                        "dram_correctable", "dram_uncorrectable"};
    char keys[5][64];
    struct pair pairs[5];

    TRY(may_change(device));
    REQUIRE(counter <= 1);
    for (int i = 0; i < 5; i++) {
        snprintf(keys[i], sizeof keys[i], "ecc.%s.%s", counter_name(counter), names[i]);
        pairs[i] = (struct pair){keys[i], 0};
        if (counter == NVML_AGGREGATE_ECC)
            TRY(write_value(device, keys[i], NULL));
    }
    return write_numbers(device, counter == NVML_AGGREGATE_ECC ? STATE_PERSISTENT : STATE_VOLATILE, pairs, 5);
}

EXPORT nvmlReturn_t nvmlDeviceGetRepairStatus(nvmlDevice_t device, nvmlRepairStatus_v1_t *status)
{
    REQUIRE(status);
    if (status->version != NVML_VERSION(nvmlRepairStatus_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    TRY(read_uint(device, &status->bChannelRepairPending, "ecc.channel_repair_pending"));
    return read_uint(device, &status->bTpcRepairPending, "ecc.tpc_repair_pending");
}

EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, uint *correctable, uint *uncorrectable, uint *pending,
                                              uint *failure)
{
    TRY(read_uint(device, correctable, "remap.correctable"));
    TRY(read_uint(device, uncorrectable, "remap.uncorrectable"));
    TRY(read_uint(device, pending, "remap.pending"));
    return read_uint(device, failure, "remap.failure");
}

EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows_v2(nvmlDevice_t device, nvmlRemappedRowsInfo_v2_t *rows)
{
    REQUIRE(rows);
    TRY(nvmlDeviceGetRemappedRows(device, &rows->corrActive, &rows->uncActive, &rows->bPending, &rows->bFailure));
    TRY(read_uint(device, &rows->corrInactive, "remap.correctable_inactive"));
    return read_uint(device, &rows->uncInactive, "remap.uncorrectable_inactive");
}

EXPORT nvmlReturn_t nvmlDeviceGetRowRemapperHistogram(nvmlDevice_t device, nvmlRowRemapperHistogramValues_t *histogram)
{
    ull banks[5];

    TRY(read_list(device, banks, 5, "remap.histogram"));
    REQUIRE(histogram);
    *histogram = (nvmlRowRemapperHistogramValues_t){(uint)banks[0], (uint)banks[1], (uint)banks[2], (uint)banks[3],
                                                    (uint)banks[4]};
    return NVML_SUCCESS;
}

/* GPUs that remap rows retire no pages; older ones are not simulated. */
EXPORT nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, uint cause, uint *count, ull *pages)
{
    (void)cause, (void)count, (void)pages;
    TRY(check_device(device));
    return NVML_ERROR_NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetRetiredPages_v2(nvmlDevice_t device, uint cause, uint *count, ull *pages, ull *times)
{
    (void)times;
    return nvmlDeviceGetRetiredPages(device, cause, count, pages);
}

EXPORT nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, uint *pending)
{
    return nvmlDeviceGetRetiredPages(device, 0, pending, NULL);
}
