/* Handles and what a device says about itself. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(uint *count)
{
    TRY(initialized());
    REQUIRE(count);
    *count = 0;
    for (int number = next_device(-1); number >= 0; number = next_device(number))
        ++*count;
    return NVML_SUCCESS;
}
ALIAS(nvmlDeviceGetCount, nvmlDeviceGetCount_v2);

static nvmlReturn_t give_device(int number, nvmlDevice_t *device)
{
    REQUIRE(device);
    *device = device_at(number);
    return *device ? check_device(*device) : NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(uint index, nvmlDevice_t *device)
{
    int number = next_device(-1);

    TRY(initialized());
    while (number >= 0 && index-- > 0)
        number = next_device(number);
    REQUIRE(number >= 0);
    return give_device(number, device);
}
ALIAS(nvmlDeviceGetHandleByIndex, nvmlDeviceGetHandleByIndex_v2);

/* Compares with the state itself: a lost device is still found, and then reported as lost. */
static nvmlReturn_t device_by(const char *name, const char *wanted, nvmlDevice_t *device)
{
    char key[STATE_KEY_MAX], value[STATE_VALUE_MAX];

    TRY(initialized());
    REQUIRE(wanted);
    for (int number = next_device(-1); number >= 0; number = next_device(number)) {
        snprintf(key, sizeof key, "gpu.%d.%s", number, name);
        if (state_get(key, value, sizeof value) == 0 && strcmp(value, wanted) == 0)
            return give_device(number, device);
    }
    return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    return device_by("uuid", uuid, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device)
{
    return device_by("serial", serial, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUIDV(const nvmlUUID_v1_t *uuid, nvmlDevice_t *device)
{
    char text[48] = "GPU-";

    REQUIRE(uuid);
    if (uuid->version != NVML_VERSION(nvmlUUID_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    REQUIRE(uuid->type == 1 || uuid->type == 2);
    if (uuid->type == 1) {
        snprintf(text, sizeof text, "%.*s", (int)sizeof uuid->value.text, uuid->value.text);
    } else {
        for (int i = 0; i < 16; i++)
            sprintf(text + strlen(text), "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid->value.bytes[i]);
    }
    return device_by("uuid", text, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
    uint wanted[3], domain, bus, slot;

    TRY(initialized());
    REQUIRE(bus_id && parse_bus_id(bus_id, &wanted[0], &wanted[1], &wanted[2]) == 0);
    for (int number = next_device(-1); number >= 0; number = next_device(number)) {
        char key[STATE_KEY_MAX], value[STATE_VALUE_MAX];

        snprintf(key, sizeof key, "gpu.%d.pci.bus_id", number);
        if (state_get(key, value, sizeof value) == 0 && parse_bus_id(value, &domain, &bus, &slot) == 0 &&
            domain == wanted[0] && bus == wanted[1] && slot == wanted[2])
            return give_device(number, device);
    }
    return NVML_ERROR_NOT_FOUND;
}
ALIAS(nvmlDeviceGetHandleByPciBusId, nvmlDeviceGetHandleByPciBusId_v2);

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, uint *index)
{
    TRY(check_device(device));
    REQUIRE(index);
    *index = 0;
    for (int number = next_device(-1); number >= 0 && number != device->number; number = next_device(number))
        ++*index;
    return NVML_SUCCESS;
}

GET_TEXT(nvmlDeviceGetName, "name")
GET_TEXT(nvmlDeviceGetUUID, "uuid")
GET_TEXT(nvmlDeviceGetSerial, "serial")
GET_TEXT(nvmlDeviceGetBoardPartNumber, "board_part_number")
GET_TEXT(nvmlDeviceGetVbiosVersion, "vbios_version")
GET_TEXT(nvmlDeviceGetInforomImageVersion, "inforom.image")
GET_UINT(nvmlDeviceGetMinorNumber, "minor_number")
GET_UINT(nvmlDeviceGetModuleId, "module_id")
GET_UINT(nvmlDeviceGetBoardId, "board_id")
GET_UINT(nvmlDeviceGetMultiGpuBoard, "multi_gpu_board")
GET_UINT(nvmlDeviceGetBrand, "brand")
GET_UINT(nvmlDeviceGetArchitecture, "architecture")
GET_UINT(nvmlDeviceGetNumGpuCores, "cores")
GET_UINT(nvmlDeviceGetFanSpeed, "fan_speed_percent")
GET_UINT(nvmlDeviceGetDisplayMode, "display_mode")
GET_UINT(nvmlDeviceGetDisplayActive, "display_active")
GET_UINT(nvmlDeviceGetPersistenceMode, "persistence_mode")
GET_UINT(nvmlDeviceGetComputeMode, "compute_mode")
GET_UINT(nvmlDeviceGetVirtualizationMode, "virtualization_mode")
GET_UINT(nvmlDeviceGetHostVgpuMode, "host_vgpu_mode")
GET_UINT(nvmlDeviceGetAccountingMode, "accounting.mode")
GET_UINT(nvmlDeviceGetAccountingBufferSize, "accounting.buffer_size")

EXPORT nvmlReturn_t nvmlDeviceGetInforomVersion(nvmlDevice_t device, uint object, char *version, uint length)
{
    static const char *const names[] = {"oem", "ecc", "power"};

    REQUIRE(object < sizeof names / sizeof *names);
    return read_text(device, version, length, "inforom.%s", names[object]);
}

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    char value[STATE_VALUE_MAX];

    TRY(read_value(device, value, sizeof value, "compute_capability"));
    REQUIRE(major && minor);
    return sscanf(value, "%d.%d", major, minor) == 2 ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

EXPORT nvmlReturn_t nvmlDeviceGetPdi(nvmlDevice_t device, nvmlPdi_v1_t *pdi)
{
    REQUIRE(pdi);
    if (pdi->version != NVML_VERSION(nvmlPdi_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return read_ull(device, &pdi->value, "pdi");
}

static nvmlReturn_t read_versioned(nvmlDevice_t device, nvmlVersionedValue_v1_t *out, const char *key)
{
    REQUIRE(out);
    if (out->version != NVML_VERSION(nvmlVersionedValue_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return read_uint(device, &out->value, "%s", key);
}

EXPORT nvmlReturn_t nvmlDeviceGetAddressingMode(nvmlDevice_t device, nvmlVersionedValue_v1_t *mode)
{
    return read_versioned(device, mode, "addressing_mode");
}

EXPORT nvmlReturn_t nvmlDeviceGetCapabilities(nvmlDevice_t device, nvmlVersionedValue_v1_t *capabilities)
{
    return read_versioned(device, capabilities, "egm");
}

EXPORT nvmlReturn_t nvmlDeviceGetUnrepairableMemoryFlag_v1(nvmlDevice_t device, nvmlVersionedValue_v1_t *flag)
{
    return read_versioned(device, flag, "ecc.unrepairable_memory");
}

EXPORT nvmlReturn_t nvmlDeviceGetDramEncryptionMode(nvmlDevice_t device, nvmlVersionedValue_v1_t *current,
                                                    nvmlVersionedValue_v1_t *pending)
{
    TRY(read_versioned(device, current, "dram_encryption.current"));
    return read_versioned(device, pending, "dram_encryption.pending");
}

EXPORT nvmlReturn_t nvmlDeviceGetC2cModeInfoV(nvmlDevice_t device, nvmlC2cModeInfo_v1_t *info)
{
    REQUIRE(info);
    return read_uint(device, &info->isC2cEnabled, "c2c_mode");
}

EXPORT nvmlReturn_t nvmlDeviceGetGspFirmwareVersion(nvmlDevice_t device, char *version)
{
    char value[STATE_VALUE_MAX];

    TRY(read_value(device, value, sizeof value, "gsp_firmware"));
    REQUIRE(version);
    snprintf(version, 64, "%.63s", strcmp(value, "1") == 0 ? DRIVER_VERSION : value);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetGspFirmwareMode(nvmlDevice_t device, uint *enabled, uint *by_default)
{
    char value[STATE_VALUE_MAX];

    TRY(read_value(device, value, sizeof value, "gsp_firmware"));
    REQUIRE(enabled && by_default);
    *enabled = *by_default = strcmp(value, "0") != 0;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, uint *current, uint *pending)
{
    TRY(read_uint(device, current, "mig.current"));
    return read_uint(device, pending, "mig.pending");
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, uint *is_mig)
{
    TRY(check_device(device));
    REQUIRE(is_mig);
    *is_mig = 0;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t device, uint mode)
{
    TRY(may_change(device));
    REQUIRE(mode <= 1);
    return write_numbers(device, STATE_VOLATILE, &(struct pair){"persistence_mode", mode}, 1);
}

EXPORT nvmlReturn_t nvmlDeviceSetComputeMode(nvmlDevice_t device, uint mode)
{
    TRY(may_change(device));
    REQUIRE(mode <= 3 && mode != 1);
    return write_numbers(device, STATE_VOLATILE, &(struct pair){"compute_mode", mode}, 1);
}

EXPORT nvmlReturn_t nvmlDeviceSetAccountingMode(nvmlDevice_t device, uint mode)
{
    TRY(may_change(device));
    REQUIRE(mode <= 1);
    return write_numbers(device, STATE_VOLATILE, &(struct pair){"accounting.mode", mode}, 1);
}
