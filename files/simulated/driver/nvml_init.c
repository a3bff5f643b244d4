/* Init, shutdown, errors, versions. */
#include "internal.h"

#include <stdio.h>
#include <string.h>

#define NVML_INIT_FLAG_NO_GPUS 1

static int users;

static const struct {
    nvmlReturn_t code;
    const char *text;
} errors[] = {
    {NVML_SUCCESS, "Success (simulated)"},
    {NVML_ERROR_UNINITIALIZED, "Uninitialized (simulated)"},
    {NVML_ERROR_INVALID_ARGUMENT, "Invalid Argument (simulated)"},
    {NVML_ERROR_NOT_SUPPORTED, "Not Supported (simulated)"},
    {NVML_ERROR_NO_PERMISSION, "Insufficient Permissions (simulated)"},
    {NVML_ERROR_NOT_FOUND, "Not Found (simulated)"},
    {NVML_ERROR_INSUFFICIENT_SIZE, "Insufficient Size (simulated)"},
    {NVML_ERROR_DRIVER_NOT_LOADED, "Driver Not Loaded (simulated)"},
    {NVML_ERROR_TIMEOUT, "Timeout (simulated)"},
    {NVML_ERROR_CORRUPTED_INFOROM, "infoROM is corrupted (simulated)"},
    {NVML_ERROR_GPU_IS_LOST, "GPU is lost (simulated)"},
    {NVML_ERROR_RESET_REQUIRED, "GPU requires reset (simulated)"},
    {NVML_ERROR_OPERATING_SYSTEM, "GPU access blocked by the operating system (simulated)"},
    {NVML_ERROR_LIB_RM_VERSION_MISMATCH, "Driver/library version mismatch (simulated)"},
    {NVML_ERROR_MEMORY, "Insufficient Memory (simulated)"},
    {NVML_ERROR_ARGUMENT_VERSION_MISMATCH, "Argument version mismatch (simulated)"},
    {NVML_ERROR_DEPRECATED, "Requested functionality has been deprecated (simulated)"},
};

EXPORT const char *nvmlErrorString(nvmlReturn_t code)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code)
            return errors[i].text;
    return "Unknown Error (simulated)";
}

nvmlReturn_t initialized(void)
{
    return users > 0 ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
}

static nvmlReturn_t loaded_module(char *version, size_t size)
{
    if (state_get("module.version", version, size) != 0)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    return strcmp(version, DRIVER_VERSION) == 0 ? NVML_SUCCESS : NVML_ERROR_LIB_RM_VERSION_MISMATCH;
}

EXPORT nvmlReturn_t nvmlInitWithFlags(uint flags)
{
    char version[STATE_VALUE_MAX];

    TRY(loaded_module(version, sizeof version));
    if (!(flags & NVML_INIT_FLAG_NO_GPUS) && next_device(-1) < 0)
        return NVML_ERROR_NOT_FOUND;
    users++;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}
ALIAS(nvmlInit, nvmlInit_v2);

EXPORT nvmlReturn_t nvmlShutdown(void)
{
    TRY(initialized());
    users--;
    return NVML_SUCCESS;
}

static nvmlReturn_t give_text(char *out, uint length, const char *text)
{
    REQUIRE(out);
    if (strlen(text) >= length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(out, text);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, uint length)
{
    char loaded[STATE_VALUE_MAX];

    TRY(initialized());
    TRY(loaded_module(loaded, sizeof loaded));
    return give_text(version, length, loaded);
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, uint length)
{
    char text[80];

    snprintf(text, sizeof text, "%d.%s", CUDA_VERSION / 1000, DRIVER_VERSION);
    return give_text(version, length, text);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    REQUIRE(version);
    *version = CUDA_VERSION;
    return NVML_SUCCESS;
}
ALIAS(nvmlSystemGetCudaDriverVersion, nvmlSystemGetCudaDriverVersion_v2);

EXPORT nvmlReturn_t nvmlSystemGetDriverBranch(nvmlSystemDriverBranchInfo_v1_t *info, uint length)
{
    TRY(initialized());
    REQUIRE(info);
    if (info->version != NVML_VERSION(nvmlSystemDriverBranchInfo_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    return give_text(info->branch, length < sizeof info->branch ? length : (uint)sizeof info->branch, "simulated");
}
