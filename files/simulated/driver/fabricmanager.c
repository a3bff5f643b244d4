/* nv-fabricmanager: brings the GPUs into the NVLink fabric while it runs. */
#include "daemon.h"
#include "state.h"

#include <stdio.h>
#include <string.h>

static struct daemon self = {
    .name = "nv-fabricmanager", .folder = "nvidia-fabricmanager", .pid_key = "fabric_manager.pid", .log = ""};

static int begin(void)
{
    if (set_all_gpus("fabric.state", "3") != 0 || set_all_gpus("fabric.status", "0") != 0)
        return -1;
    return set_key("fabric_manager.version", DRIVER_VERSION);
}

static void end(void)
{
    set_key("fabric_manager.version", NULL);
    set_all_gpus("fabric.state", NULL);
    set_all_gpus("fabric.status", NULL);
}

/* DAEMONIZE and LOG_FILE_NAME of the configuration; the rest has no effect here. */
static int read_configuration(const char *path, int *background)
{
    char line[512], value[256];
    FILE *file = fopen(path, "re");

    if (!file)
        return -1;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, " DAEMONIZE = %255s", value) == 1)
            *background = strcmp(value, "1") == 0;
        else if (sscanf(line, " LOG_FILE_NAME = %255s", value) == 1)
            snprintf(self.log, sizeof self.log, "%s", value);
    }
    fclose(file);
    return 0;
}

int main(int count, char **words)
{
    char version[STATE_VALUE_MAX];
    int background = 0;

    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "--version") == 0 || strcmp(words[i], "-v") == 0) {
            puts("Fabric Manager version is : " DRIVER_VERSION " (simulated)");
            return 0;
        }
        if (strcmp(words[i], "-c") == 0 && i + 1 < count && read_configuration(words[++i], &background) != 0) {
            say(&self, "ERROR", "cannot read the configuration %s", words[i]);
            return 1;
        }
    }
    if (state_get("module.version", version, sizeof version) != 0) {
        say(&self, "ERROR", "the NVIDIA kernel module is not loaded; run modprobe nvidia");
        return 1;
    }
    if (strcmp(version, DRIVER_VERSION) != 0) {
        say(&self, "ERROR",
            "fabric manager version %s does not match the loaded driver version %s; install both in the same version",
            DRIVER_VERSION, version);
        return 1;
    }
    if (state_number("nvswitch.count", 0) < 1) {
        say(&self, "ERROR", "no NVSwitch device found: this machine needs no fabric manager; disable the service");
        return 1;
    }
    return serve(&self, background, begin, end);
}
