/* nvidia-persistenced: holds persistence mode on all GPUs while it runs. It stays root: --user is taken and ignored. */
#include "daemon.h"
#include "state.h"

#include <stdio.h>
#include <string.h>

static const struct daemon self = {
    .name = "nvidia-persistenced", .folder = "nvidia-persistenced", .pid_key = "persistenced.pid", .log = ""};

static int begin(void)
{
    return set_all_gpus("persistence_mode", "1");
}

static void end(void)
{
    set_all_gpus("persistence_mode", "0");
}

int main(int count, char **words)
{
    char version[STATE_VALUE_MAX];
    int background = 1;

    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--version") == 0 || strcmp(words[i], "-v") == 0) {
            puts("nvidia-persistenced:  version " DRIVER_VERSION " (simulated)");
            return 0;
        }
        if (strcmp(words[i], "--foreground") == 0)
            background = 0;
    }
    if (state_get("module.version", version, sizeof version) != 0 || state_number("gpu.count", 0) < 1) {
        say(&self, "ERROR", "Failed to query NVIDIA devices: the NVIDIA kernel module is not loaded; run modprobe nvidia");
        return 1;
    }
    return serve(&self, background, begin, end);
}
