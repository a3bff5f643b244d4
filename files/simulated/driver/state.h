/* The simulated hardware's state: key=value files in three layers (README.md). */
#ifndef RACKSERVE_SIMULATED_STATE_H
#define RACKSERVE_SIMULATED_STATE_H

#include <stddef.h>

enum state_layer { STATE_VOLATILE, STATE_PERSISTENT, STATE_HARDWARE, STATE_LAYERS };

#define STATE_VALUE_MAX 4096
#define STATE_KEY_MAX 160
#define STATE_PATH_MAX 1024

/* A change of one key; value NULL removes it from the layer. The keys of one update differ. */
struct state_change {
    char key[STATE_KEY_MAX];
    const char *value;
};

/* `path` below the root of the simulated machine (RACKSERVE_SIMULATED_ROOT). */
void state_path(char *out, size_t size, const char *path);

/* Copies the value the uppermost layer has; 0, or -1 when no layer has the key. */
int state_get(const char *key, char *value, size_t size);
int state_get_layer(enum state_layer layer, const char *key, char *value, size_t size);

/* Number of a key, or `fallback` when it is nowhere or no number. */
long state_number(const char *key, long fallback);

/* Calls `each` for every key with the prefix, as the layers show it together; stops when it returns non-zero. */
typedef int (*state_visitor)(const char *key, const char *value, void *context);
void state_each(const char *prefix, state_visitor each, void *context);

/* Applies all changes at once under the layer's lock; 0, or -1 with errno. */
int state_update(enum state_layer layer, const struct state_change *changes, size_t count);

/* True if this process may change the layer. */
int state_writable(enum state_layer layer);

/* True if the process exists and is not a zombie. */
int process_alive(long pid);

#endif
