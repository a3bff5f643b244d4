/* Devices and their keys: reading, with NVML's errors, and writing. */
#include "internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct nvmlDevice_st devices[MAX_GPUS];

static const struct {
    const char *name;
    nvmlReturn_t code;
} named_errors[] = {
    {"!INVALID_ARGUMENT", NVML_ERROR_INVALID_ARGUMENT},
    {"!NOT_SUPPORTED", NVML_ERROR_NOT_SUPPORTED},
    {"!NO_PERMISSION", NVML_ERROR_NO_PERMISSION},
    {"!NOT_FOUND", NVML_ERROR_NOT_FOUND},
    {"!TIMEOUT", NVML_ERROR_TIMEOUT},
    {"!CORRUPTED_INFOROM", NVML_ERROR_CORRUPTED_INFOROM},
    {"!GPU_IS_LOST", NVML_ERROR_GPU_IS_LOST},
    {"!RESET_REQUIRED", NVML_ERROR_RESET_REQUIRED},
    {"!OPERATING_SYSTEM", NVML_ERROR_OPERATING_SYSTEM},
    {"!MEMORY", NVML_ERROR_MEMORY},
    {"!DEPRECATED", NVML_ERROR_DEPRECATED},
};

static long own_number(int number, const char *name)
{
    char key[STATE_KEY_MAX];

    snprintf(key, sizeof key, "gpu.%d.%s", number, name);
    return state_number(key, 0);
}

int next_device(int after)
{
    long count = state_number("gpu.count", 0);

    for (int number = after + 1; number < count && number < MAX_GPUS; number++)
        if (!own_number(number, "absent"))
            return number;
    return -1;
}

nvmlDevice_t device_at(int number)
{
    if (number < 0 || number >= MAX_GPUS || number >= state_number("gpu.count", 0) || own_number(number, "absent"))
        return NULL;
    devices[number].number = number;
    return &devices[number];
}

nvmlReturn_t check_device(nvmlDevice_t device)
{
    TRY(initialized());
    REQUIRE(device >= devices && device < devices + MAX_GPUS);
    if (!device_at(device->number) || own_number(device->number, "lost"))
        return NVML_ERROR_GPU_IS_LOST;
    return NVML_SUCCESS;
}

static nvmlReturn_t read_with(nvmlDevice_t device, char *value, size_t size, const char *format, va_list arguments)
{
    char name[STATE_KEY_MAX], key[2 * STATE_KEY_MAX];

    TRY(check_device(device));
    vsnprintf(name, sizeof name, format, arguments);
    snprintf(key, sizeof key, "gpu.%d.%s", device->number, name);
    if (state_get(key, value, size) != 0)
        return NVML_ERROR_NOT_SUPPORTED;
    if (*value != '!')
        return NVML_SUCCESS;
    for (size_t i = 0; i < sizeof named_errors / sizeof *named_errors; i++)
        if (strcmp(named_errors[i].name, value) == 0)
            return named_errors[i].code;
    return NVML_ERROR_UNKNOWN;
}

nvmlReturn_t read_value(nvmlDevice_t device, char *value, size_t size, const char *format, ...)
{
    va_list arguments;
    nvmlReturn_t result;

    va_start(arguments, format);
    result = read_with(device, value, size, format, arguments);
    va_end(arguments);
    return result;
}

nvmlReturn_t read_text(nvmlDevice_t device, char *text, uint length, const char *format, ...)
{
    char value[STATE_VALUE_MAX];
    va_list arguments;
    nvmlReturn_t result;

    va_start(arguments, format);
    result = read_with(device, value, sizeof value, format, arguments);
    va_end(arguments);
    TRY(result);
    REQUIRE(text);
    if (strlen(value) >= length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    strcpy(text, value);
    return NVML_SUCCESS;
}

/* All numbers are read as signed 64 bit first; what is no number is an unknown error, never a silent 0. */
static nvmlReturn_t read_number(nvmlDevice_t device, ull *number, const char *format, va_list arguments)
{
    char value[STATE_VALUE_MAX], *end;

    TRY(read_with(device, value, sizeof value, format, arguments));
    errno = 0;
    *number = *value == '-' ? (ull)strtoll(value, &end, 0) : strtoull(value, &end, 0);
    return errno == 0 && *value && !*end ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

nvmlReturn_t read_ull(nvmlDevice_t device, ull *number, const char *format, ...)
{
    va_list arguments;
    nvmlReturn_t result;
    ull wide = 0;

    va_start(arguments, format);
    result = read_number(device, &wide, format, arguments);
    va_end(arguments);
    TRY(result);
    REQUIRE(number);
    *number = wide;
    return NVML_SUCCESS;
}

nvmlReturn_t read_uint(nvmlDevice_t device, uint *number, const char *format, ...)
{
    va_list arguments;
    nvmlReturn_t result;
    ull wide = 0;

    va_start(arguments, format);
    result = read_number(device, &wide, format, arguments);
    va_end(arguments);
    TRY(result);
    REQUIRE(number);
    *number = (uint)wide;
    return NVML_SUCCESS;
}

nvmlReturn_t read_int(nvmlDevice_t device, int *number, const char *format, ...)
{
    va_list arguments;
    nvmlReturn_t result;
    ull wide = 0;

    va_start(arguments, format);
    result = read_number(device, &wide, format, arguments);
    va_end(arguments);
    TRY(result);
    REQUIRE(number);
    *number = (int)wide;
    return NVML_SUCCESS;
}

nvmlReturn_t read_list(nvmlDevice_t device, ull *numbers, uint count, const char *format, ...)
{
    char value[STATE_VALUE_MAX], *at = value, *end;
    va_list arguments;
    nvmlReturn_t result;

    va_start(arguments, format);
    result = read_with(device, value, sizeof value, format, arguments);
    va_end(arguments);
    TRY(result);
    for (uint i = 0; i < count; i++) {
        numbers[i] = strtoull(at, &end, 0);
        if (end == at || (*end != ',' && *end != '\0') || (*end == '\0') != (i + 1 == count))
            return NVML_ERROR_UNKNOWN;
        at = end + 1;
    }
    return NVML_SUCCESS;
}

nvmlReturn_t may_change(nvmlDevice_t device)
{
    TRY(check_device(device));
    return state_writable(STATE_VOLATILE) ? NVML_SUCCESS : NVML_ERROR_NO_PERMISSION;
}

static nvmlReturn_t write_changes(enum state_layer layer, const struct state_change *changes, uint count)
{
    if (state_update(layer, changes, count) == 0)
        return NVML_SUCCESS;
    return errno == EACCES || errno == EPERM ? NVML_ERROR_NO_PERMISSION : NVML_ERROR_UNKNOWN;
}

nvmlReturn_t write_numbers(nvmlDevice_t device, enum state_layer layer, const struct pair *pairs, uint count)
{
    struct state_change changes[16];
    char values[16][24];

    for (uint i = 0; i < count && i < 16; i++) {
        snprintf(changes[i].key, sizeof changes[i].key, "gpu.%d.%s", device->number, pairs[i].key);
        snprintf(values[i], sizeof values[i], "%llu", pairs[i].number);
        changes[i].value = values[i];
    }
    return write_changes(layer, changes, count);
}

nvmlReturn_t write_value(nvmlDevice_t device, const char *key, const char *value)
{
    struct state_change change = {.value = value};

    snprintf(change.key, sizeof change.key, "gpu.%d.%s", device->number, key);
    return write_changes(STATE_VOLATILE, &change, 1);
}
