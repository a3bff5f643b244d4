/* nvidia-modprobe; also modprobe and rmmod for the driver's modules, by the name it is called by. */
#include "modprobe.h"

#include "state.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static const char *program = "nvidia-modprobe";

static int failed(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int failed(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, arguments);
    fputs(" (simulated)\n", stderr);
    va_end(arguments);
    return 1;
}

static int load(int module)
{
    char version[128], loaded[STATE_VALUE_MAX];
    struct utsname kernel;

    if (module_loaded(module))
        return 0;
    if (module_version(module, version, sizeof version) != 0) {
        uname(&kernel);
        return failed("FATAL: Module %s not found in directory /lib/modules/%s", module_names[module], kernel.release);
    }
    if (module != NVIDIA && load(NVIDIA) != 0)
        return 1;
    if (state_number("gpu.count", 0) < 1)
        return failed("ERROR: could not insert '%s': No such device", module_names[module]);
    if (module != NVIDIA && state_get("module.version", loaded, sizeof loaded) == 0 && strcmp(loaded, version) != 0)
        return failed("ERROR: could not insert '%s': Unknown symbol in module: it is of version %s, nvidia of %s",
                      module_names[module], version, loaded);
    if (record_load(module, version) != 0)
        return failed("ERROR: could not insert '%s': %s", module_names[module], strerror(errno));
    show_module(module, version);
    return 0;
}

static int unload(int module, int quiet_if_absent)
{
    char who[300];

    if (!module_loaded(module))
        return quiet_if_absent ? 0 : failed("ERROR: Module %s is not currently loaded", module_names[module]);
    if (module_users(module, who, sizeof who) > 0)
        return failed("ERROR: Module %s is in use by: %.*s", module_names[module], (int)strlen(who) - 1, who);
    if ((module == NVIDIA || module == NVIDIA_UVM) && gpu_holder(who, sizeof who))
        return failed("ERROR: Module %s is in use: %s", module_names[module], who);
    if (record_unload(module) != 0)
        return failed("ERROR: could not remove '%s': %s", module_names[module], strerror(errno));
    hide_module(module);
    return 0;
}

/* Any other module is the real one's business. */
static int hand_over(const char *name, char **words)
{
    char path[STATE_PATH_MAX], real[64];

    snprintf(real, sizeof real, "/sbin/%.40s", name);
    state_path(path, sizeof path, real);
    execv(path, words);
    fprintf(stderr, "%s: cannot run %s: %s\n", program, path, strerror(errno));
    return 127;
}

static int as_modprobe(int count, char **words, int removing)
{
    const char *name = removing ? "rmmod" : "modprobe";
    int all = removing, dry = 0, result = 0, seen = 0;

    for (int i = 1; i < count; i++) {
        if (strcmp(words[i], "-r") == 0 || strcmp(words[i], "--remove") == 0)
            removing = all = 1;
        else if (strcmp(words[i], "-a") == 0 || strcmp(words[i], "--all") == 0)
            all = 1;
        else if (strcmp(words[i], "-n") == 0 || strcmp(words[i], "--dry-run") == 0)
            dry = 1;
        else if (words[i][0] != '-' && module_named(words[i]) < 0 && !(seen && !all))
            return hand_over(name, words);
        else if (words[i][0] != '-')
            seen = 1;
    }
    if (!seen)
        return hand_over(name, words);
    for (int i = 1; i < count && !dry; i++) {
        int module = words[i][0] == '-' ? -1 : module_named(words[i]);

        if (module < 0)
            continue;
        result |= removing ? unload(module, strcmp(name, "modprobe") == 0) : load(module);
        if (!all)
            break; /* what follows are parameters of the module */
    }
    return result;
}

static int as_itself(int count, char **words)
{
    int result, option;

    while ((option = getopt(count, words, "umsc:f:v")) != -1) {
        if (option == 'v') {
            puts("nvidia-modprobe:  version " DRIVER_VERSION " (simulated)");
            return 0;
        }
        if (option == 'u' || option == 'm') {
            result = load(option == 'u' ? NVIDIA_UVM : NVIDIA_MODESET);
            if (result != 0)
                return result;
        } else if (option == '?') {
            return 1;
        }
    }
    return load(NVIDIA);
}

int main(int count, char **words)
{
    const char *slash = strrchr(words[0], '/'), *name = slash ? slash + 1 : words[0];

    if (strcmp(name, "modprobe") == 0 || strcmp(name, "rmmod") == 0) {
        program = name;
        return as_modprobe(count, words, strcmp(name, "rmmod") == 0);
    }
    return as_itself(count, words);
}
