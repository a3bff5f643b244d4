#define _XOPEN_SOURCE 700 /* mknod */

#include "modprobe.h"

#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define TEXT_MAX 65536
/* The null device: a node of the real number could lead to a real GPU of the machine below. */
#define NODE_DEVICE ((dev_t)((1 << 8) | 3))

static const char *const character_devices[MODULES][2] = {
    {"195 nvidia", "195 nvidiactl"}, {"508 nvidia-uvm", NULL}, {"195 nvidia-modeset", NULL}, {NULL, NULL}};

static void told(const char *path)
{
    fprintf(stderr, "nvidia-modprobe: cannot write %s: %s (simulated)\n", path, strerror(errno));
}

static void make_folders(char *path)
{
    for (char *at = strchr(path + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        mkdir(path, 0755);
        *at = '/';
    }
}

/* Writes in place: the files are mounted over the kernel's own and cannot be replaced. */
static void put(const char *text, const char *format, ...)
{
    char name[STATE_PATH_MAX], path[STATE_PATH_MAX];
    va_list arguments;
    FILE *file;

    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    state_path(path, sizeof path, name);
    make_folders(path);
    file = fopen(path, "we");
    if (!file || fputs(text, file) < 0)
        told(path);
    if (file)
        fclose(file);
}

static char *get(const char *name)
{
    static char text[TEXT_MAX];
    char path[STATE_PATH_MAX];
    size_t got = 0;
    FILE *file;

    state_path(path, sizeof path, name);
    file = fopen(path, "re");
    if (file) {
        got = fread(text, 1, sizeof text - 1, file);
        fclose(file);
    }
    text[got] = '\0';
    return text;
}

static void remove_tree(const char *path)
{
    char below[STATE_PATH_MAX];
    struct dirent *entry;
    DIR *folder = opendir(path);

    while (folder && (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        remove_tree(below);
    }
    if (folder)
        closedir(folder);
    if (remove(path) != 0 && errno != ENOENT)
        told(path);
}

static void drop(const char *format, ...)
{
    char name[STATE_PATH_MAX], path[STATE_PATH_MAX];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    state_path(path, sizeof path, name);
    remove_tree(path);
}

static void make_node(const char *name)
{
    char path[STATE_PATH_MAX], full[STATE_PATH_MAX];
    int file;

    snprintf(path, sizeof path, "/dev/%s", name);
    state_path(full, sizeof full, path);
    make_folders(full);
    if (mknod(full, S_IFCHR | 0666, NODE_DEVICE) == 0 || errno == EEXIST) {
        chmod(full, 0666);
        return;
    }
    file = open(full, O_WRONLY | O_CREAT | O_CLOEXEC, 0666); /* where no device may be made: a plain file */
    if (file < 0)
        told(full);
    else
        close(file);
}

/* Lines of /proc/devices: those of the loaded modules follow the heading of character devices. */
static void show_devices(void)
{
    static char old[TEXT_MAX], text[TEXT_MAX];
    char *rest = NULL;

    snprintf(old, sizeof old, "%s", get("/proc/devices"));
    if (!*old)
        snprintf(old, sizeof old, "Character devices:\n\nBlock devices:\n");
    *text = '\0';
    for (char *line = old; line && *line; line = rest) {
        rest = strchr(line, '\n');
        if (rest)
            *rest++ = '\0';
        if (strstr(line, " nvidia"))
            continue;
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s\n", line);
        for (int module = 0; strncmp(line, "Character", 9) == 0 && module < MODULES; module++)
            for (int i = 0; i < 2 && module_loaded(module) && character_devices[module][i]; i++)
                snprintf(text + strlen(text), sizeof text - strlen(text), "%s\n", character_devices[module][i]);
    }
    put(text, "/proc/devices");
}

void show_modules(void)
{
    static char old[TEXT_MAX], text[TEXT_MAX];
    char *rest = NULL, users[256];

    snprintf(old, sizeof old, "%s", get("/proc/modules"));
    *text = '\0';
    for (int module = MODULES - 1; module >= 0; module--) {
        int count = module_users(module, users, sizeof users);

        if (module_loaded(module))
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s 14299136 %d %s Live 0x0000000000000000 (OE)\n",
                     module_names[module], count, *users ? users : "-");
    }
    for (char *line = strtok_r(old, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        if (strncmp(line, "nvidia", 6) != 0)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s\n", line);
    put(text, "/proc/modules");
    show_devices();
}

static const char *gpu_text(int number, const char *name)
{
    static char value[STATE_VALUE_MAX];
    char key[STATE_KEY_MAX];

    snprintf(key, sizeof key, "gpu.%d.%s", number, name);
    if (state_get(key, value, sizeof value) != 0 || *value == '!')
        snprintf(value, sizeof value, "??");
    return value;
}

static void show_gpu(int number, const char *version)
{
    char text[2048], address[32], node[32];
    unsigned domain, bus, slot;

    if (sscanf(gpu_text(number, "pci.bus_id"), "%x:%x:%x", &domain, &bus, &slot) != 3)
        return;
    snprintf(address, sizeof address, "%04x:%02x:%02x.0", domain & 0xffff, bus & 0xff, slot & 0xff);
    snprintf(text, sizeof text, "Model: \t\t %.100s\nIRQ:   \t\t 0\n", gpu_text(number, "name"));
    snprintf(text + strlen(text), sizeof text - strlen(text), "GPU UUID: \t %.100s\n", gpu_text(number, "uuid"));
    snprintf(text + strlen(text), sizeof text - strlen(text), "Video BIOS: \t %.100s\n", gpu_text(number, "vbios_version"));
    snprintf(text + strlen(text), sizeof text - strlen(text),
             "Bus Type: \t PCIe\nDMA Size: \t 52 bits\nDMA Mask: \t 0xfffffffffffff\nBus Location: \t %s\n", address);
    snprintf(text + strlen(text), sizeof text - strlen(text), "Device Minor: \t %.20s\n", gpu_text(number, "minor_number"));
    snprintf(text + strlen(text), sizeof text - strlen(text), "GPU Firmware: \t %s\nGPU Excluded:\t No\n", version);
    put(text, "/proc/driver/nvidia/gpus/%s/information", address);
    snprintf(node, sizeof node, "nvidia%.20s", gpu_text(number, "minor_number"));
    make_node(node);
}

/* `options nvidia NVreg_X=Y` of /etc/modprobe.d, as the lines `X: Y` of /proc/driver/nvidia/params. */
static void add_options(const char *name, char *text, size_t size)
{
    char line[1024], path[STATE_PATH_MAX], *rest = NULL;
    FILE *file;

    snprintf(line, sizeof line, "/etc/modprobe.d/%s", name);
    state_path(path, sizeof path, line);
    file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        char *word = strtok_r(line, " \t\n", &rest), *module = strtok_r(NULL, " \t\n", &rest);

        if (!word || !module || strcmp(word, "options") != 0 || strcmp(module, "nvidia") != 0)
            continue;
        while ((word = strtok_r(NULL, " \t\n", &rest))) {
            char *value = strchr(word, '=');

            if (strncmp(word, "NVreg_", 6) == 0 && value)
                snprintf(text + strlen(text), size - strlen(text), "%.*s: %s\n", (int)(value - word - 6), word + 6, value + 1);
        }
    }
    if (file)
        fclose(file);
}

static void show_parameters(void)
{
    static const char *const defaults[] = {"EnableGpuFirmware: 18",           "EnableStreamMemOPs: 0",
                                           "PreserveVideoMemoryAllocations: 0", "EnablePCIERelaxedOrderingMode: 0",
                                           "NvLinkDisable: 0",                "RegistryDwords: \"\""};
    static char set[TEXT_MAX / 4], text[TEXT_MAX / 2];
    char path[STATE_PATH_MAX];
    struct dirent **names;
    int count;

    *set = *text = '\0';
    state_path(path, sizeof path, "/etc/modprobe.d");
    count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        size_t length = strlen(names[i]->d_name);

        if (length > 5 && strcmp(names[i]->d_name + length - 5, ".conf") == 0)
            add_options(names[i]->d_name, set, sizeof set);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++) {
        char name[64];

        snprintf(name, sizeof name, "%.*s:", (int)strcspn(defaults[i], ":"), defaults[i]);
        if (!strstr(set, name))
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s\n", defaults[i]);
    }
    snprintf(text + strlen(text), sizeof text - strlen(text), "%s", set);
    put(text, "/proc/driver/nvidia/params");
}

void show_module(int module, const char *version)
{
    char text[512];

    snprintf(text, sizeof text, "%s\n", version);
    put(text, "/sys/module/%s/version", module_names[module]);
    put("live\n", "/sys/module/%s/initstate", module_names[module]);
    if (module == NVIDIA_UVM)
        make_node("nvidia-uvm");
    if (module == NVIDIA_MODESET)
        make_node("nvidia-modeset");
    if (module == NVIDIA) {
        snprintf(text, sizeof text,
                 "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  %s  Release Build  (simulated)\n"
                 "GCC version:  simulated\n",
                 version);
        put(text, "/proc/driver/nvidia/version");
        show_parameters();
        make_node("nvidiactl");
        for (int number = 0; number < state_number("gpu.count", 0); number++)
            show_gpu(number, version);
    }
    show_modules();
}

void hide_module(int module)
{
    drop("/sys/module/%s", module_names[module]);
    if (module == NVIDIA_UVM)
        drop("/dev/nvidia-uvm");
    if (module == NVIDIA_MODESET)
        drop("/dev/nvidia-modeset");
    if (module == NVIDIA) {
        drop("/proc/driver/nvidia");
        drop("/dev/nvidiactl");
        for (int number = 0; number < state_number("gpu.count", 0); number++)
            drop("/dev/nvidia%.20s", gpu_text(number, "minor_number"));
    }
    show_modules();
}
