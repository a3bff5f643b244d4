#include "modprobe.h"

#include "state.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define MAX_CHANGES 1024

const char *const module_names[MODULES] = {"nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_peermem"};

/* Settings of GPUs that are gone when the driver goes. */
static const char *const lost_settings[] = {
    "accounting.mode",          "clocks.app.graphics_mhz",    "clocks.app.memory_mhz",
    "clocks.locked_memory_mhz", "clocks.locked_graphics_mhz", "compute_mode",
    "persistence_mode",         "power.enforced_limit_mw",    "power.limit_mw",
};

struct changes {
    struct state_change list[MAX_CHANGES];
    size_t count;
};

static void add(struct changes *changes, const char *value, const char *prefix, const char *key)
{
    if (changes->count == MAX_CHANGES)
        return;
    snprintf(changes->list[changes->count].key, STATE_KEY_MAX, "%s%s", prefix, key);
    changes->list[changes->count++].value = value;
}

int module_named(const char *name)
{
    char plain[64];

    snprintf(plain, sizeof plain, "%s", name);
    for (char *at = plain; *at; at++)
        if (*at == '-')
            *at = '_';
    for (int module = 0; module < MODULES; module++)
        if (strcmp(plain, module_names[module]) == 0)
            return module;
    return -1;
}

static void key_of(int module, char *key, size_t size)
{
    snprintf(key, size, "module.%s", module == NVIDIA ? "version" : module_names[module]);
}

int module_loaded(int module)
{
    char key[STATE_KEY_MAX], value[STATE_VALUE_MAX];

    key_of(module, key, sizeof key);
    return state_get_layer(STATE_VOLATILE, key, value, sizeof value) == 0;
}

int module_users(int module, char *names, size_t size)
{
    int users = 0;

    *names = '\0';
    for (int other = NVIDIA + 1; module == NVIDIA && other < MODULES; other++) {
        if (!module_loaded(other))
            continue;
        snprintf(names + strlen(names), size - strlen(names), "%s,", module_names[other]);
        users++;
    }
    return users;
}

/* The value of `version=` in the section .modinfo of an ELF object. */
static int modinfo_version(const char *text, size_t size, char *version, size_t room)
{
    const Elf64_Ehdr *head = (const void *)text;
    const Elf64_Shdr *sections, *names;

    if (size < sizeof *head || memcmp(head->e_ident, ELFMAG, SELFMAG) != 0 || head->e_shoff >= size)
        return -1;
    sections = (const void *)(text + head->e_shoff);
    names = &sections[head->e_shstrndx];
    for (int i = 0; i < head->e_shnum; i++) {
        const char *at = text + sections[i].sh_offset, *end = at + sections[i].sh_size;

        if (strcmp(text + names->sh_offset + sections[i].sh_name, ".modinfo") != 0)
            continue;
        for (; at < end; at += strlen(at) + 1) {
            if (strncmp(at, "version=", 8) == 0) {
                snprintf(version, room, "%s", at + 8);
                return 0;
            }
        }
    }
    return -1;
}

int module_version(int module, char *version, size_t size)
{
    char name[64], path[STATE_PATH_MAX], full[STATE_PATH_MAX], *text;
    struct utsname kernel;
    struct stat seen;
    int file, result = -1;

    snprintf(name, sizeof name, "%s", module_names[module]);
    for (char *at = name; *at; at++)
        if (*at == '_')
            *at = '-';
    uname(&kernel);
    snprintf(path, sizeof path, "/lib/modules/%s/updates/dkms/%s.ko", kernel.release, name);
    state_path(full, sizeof full, path);
    file = open(full, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    if (fstat(file, &seen) == 0 && (text = malloc((size_t)seen.st_size))) {
        if (read(file, text, (size_t)seen.st_size) == seen.st_size)
            result = modinfo_version(text, (size_t)seen.st_size, version, size);
        free(text);
    }
    close(file);
    return result;
}

struct holder {
    char *who;
    size_t size;
    int found;
};

static int look_at_process(const char *key, const char *value, void *context)
{
    struct holder *holder = context;
    long pid = strtol(value, NULL, 10);

    if (!strstr(key, ".process.") || !process_alive(pid))
        return 0;
    snprintf(holder->who, holder->size, "process %ld (%s)", pid, key);
    holder->found = 1;
    return 1;
}

int gpu_holder(char *who, size_t size)
{
    static const char *const daemons[][2] = {{"persistenced.pid", "nvidia-persistenced"},
                                             {"fabric_manager.pid", "nv-fabricmanager"}};
    struct holder holder = {who, size, 0};

    for (int i = 0; i < 2; i++) {
        if (!process_alive(state_number(daemons[i][0], 0)))
            continue;
        snprintf(who, size, "%s", daemons[i][1]);
        return 1;
    }
    state_each("gpu.", look_at_process, &holder);
    return holder.found;
}

/* At the first load after a boot the pending ECC mode becomes the current one. */
static void settle_ecc(struct changes *changes, char modes[][24])
{
    long count = state_number("gpu.count", 0);

    for (int number = 0; number < count && number < 64; number++) {
        char key[STATE_KEY_MAX], value[STATE_VALUE_MAX];

        snprintf(key, sizeof key, "gpu.%d.ecc.current", number);
        if (state_get_layer(STATE_VOLATILE, key, value, sizeof value) == 0)
            continue;
        snprintf(key, sizeof key, "gpu.%d.ecc.pending", number);
        if (state_get(key, value, sizeof value) != 0)
            continue;
        snprintf(modes[number], sizeof modes[number], "%.23s", value);
        snprintf(key, sizeof key, "gpu.%d.", number);
        add(changes, modes[number], key, "ecc.current");
    }
}

int record_load(int module, const char *version)
{
    static struct changes changes;
    static char modes[64][24];
    char key[STATE_KEY_MAX];

    changes.count = 0;
    key_of(module, key, sizeof key);
    add(&changes, module == NVIDIA ? version : "1", "", key);
    if (module == NVIDIA)
        settle_ecc(&changes, modes);
    return state_update(STATE_VOLATILE, changes.list, changes.count);
}

int record_unload(int module)
{
    static struct changes changes;
    long count = state_number("gpu.count", 0);
    char key[STATE_KEY_MAX];

    changes.count = 0;
    key_of(module, key, sizeof key);
    add(&changes, NULL, "", key);
    for (int number = 0; module == NVIDIA && number < count && number < 64; number++) {
        snprintf(key, sizeof key, "gpu.%d.", number);
        for (size_t i = 0; i < sizeof lost_settings / sizeof *lost_settings; i++)
            add(&changes, NULL, key, lost_settings[i]);
    }
    return state_update(STATE_VOLATILE, changes.list, changes.count);
}
