/* Shared by the parts of the library, not by its callers. */
#ifndef RACKSERVE_SIMULATED_INTERNAL_H
#define RACKSERVE_SIMULATED_INTERNAL_H

#include "nvml.h"
#include "state.h"

#define EXPORT __attribute__((visibility("default")))
#define ALIAS(name, target) __typeof__(target) name __attribute__((visibility("default"), alias(#target)))

#define MAX_GPUS 64

struct nvmlDevice_st {
    int number; /* N of gpu.N. in the state */
};

/* One getter that is nothing but a key of the device. */
#define GET_UINT(function, key)                                                                    \
    EXPORT nvmlReturn_t function(nvmlDevice_t device, uint *value) { return read_uint(device, value, key); }
#define GET_ULL(function, key)                                                                     \
    EXPORT nvmlReturn_t function(nvmlDevice_t device, ull *value) { return read_ull(device, value, key); }
#define GET_TEXT(function, key)                                                                    \
    EXPORT nvmlReturn_t function(nvmlDevice_t device, char *text, uint length) { return read_text(device, text, length, key); }

/* Returns early with whatever went wrong. */
#define TRY(call)                                                                                  \
    do {                                                                                           \
        nvmlReturn_t tried = (call);                                                               \
        if (tried != NVML_SUCCESS)                                                                 \
            return tried;                                                                          \
    } while (0)

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return NVML_ERROR_INVALID_ARGUMENT;                                                    \
    } while (0)

nvmlReturn_t initialized(void);
nvmlReturn_t check_device(nvmlDevice_t device);
nvmlDevice_t device_at(int number);   /* handle of gpu.N, whatever its condition; NULL if it is not enumerated */
int next_device(int after);           /* number of the next enumerated GPU after `after` (-1: the first), or -1 */

/* Raw value of a device's key (printf format): NOT_SUPPORTED when absent, the named error when it is `!NAME`. */
nvmlReturn_t read_value(nvmlDevice_t device, char *value, size_t size, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
nvmlReturn_t read_text(nvmlDevice_t device, char *text, uint length, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
nvmlReturn_t read_uint(nvmlDevice_t device, uint *number, const char *format, ...) __attribute__((format(printf, 3, 4)));
nvmlReturn_t read_int(nvmlDevice_t device, int *number, const char *format, ...) __attribute__((format(printf, 3, 4)));
nvmlReturn_t read_ull(nvmlDevice_t device, ull *number, const char *format, ...) __attribute__((format(printf, 3, 4)));
nvmlReturn_t read_list(nvmlDevice_t device, ull *numbers, uint count, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Changes of a device's keys, at most 16 at once; a NULL value removes. */
struct pair {
    const char *key;
    ull number;
};
nvmlReturn_t may_change(nvmlDevice_t device);
nvmlReturn_t write_numbers(nvmlDevice_t device, enum state_layer layer, const struct pair *pairs, uint count);
nvmlReturn_t write_value(nvmlDevice_t device, const char *key, const char *value);

int parse_bus_id(const char *text, uint *domain, uint *bus, uint *slot);
void format_pci(nvmlPciInfo_t *pci);
ull process_memory(nvmlDevice_t device);
nvmlReturn_t throttle_time_ns(nvmlDevice_t device, const char *reason, ull *nanoseconds);
/* `state`, `speed_mbytes_s`, `version`, `errors.replay` ... of a link, with the defaults of README.md. */
nvmlReturn_t nvlink_value(nvmlDevice_t device, uint link, const char *name, ull *number);

#endif
