#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct entry {
    const char *key;
    const char *value;
};

struct table {
    char *text;
    struct entry *entries;
    size_t count;
};

struct layer {
    const char *folder;
    struct table table;
    struct stat seen;
    int loaded;
};

static struct layer layers[STATE_LAYERS] = {
    [STATE_VOLATILE] = {.folder = "/run/rackserve-simulated"},
    [STATE_PERSISTENT] = {.folder = "/var/lib/rackserve-simulated"},
    [STATE_HARDWARE] = {.folder = "/usr/local/lib/rackserve-lab/hardware"},
};
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

void state_path(char *out, size_t size, const char *path)
{
    const char *root = getenv("RACKSERVE_SIMULATED_ROOT");

    if (!root || strcmp(root, "/") == 0)
        root = "";
    snprintf(out, size, "%s%s", root, path);
}

static void layer_path(char *out, size_t size, enum state_layer layer, const char *name)
{
    char path[STATE_PATH_MAX];

    snprintf(path, sizeof path, "%s%s%s", layers[layer].folder, *name ? "/" : "", name);
    state_path(out, size, path);
}

static int by_key(const void *left, const void *right)
{
    return strcmp(((const struct entry *)left)->key, ((const struct entry *)right)->key);
}

static void table_free(struct table *table)
{
    free(table->text);
    free(table->entries);
    memset(table, 0, sizeof *table);
}

static void table_parse(struct table *table)
{
    char *rest = NULL;
    size_t room = 1;

    for (const char *at = table->text; *at; at++)
        room += *at == '\n';
    table->entries = calloc(room, sizeof *table->entries);
    if (!table->entries)
        return;
    for (char *line = strtok_r(table->text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *value = strchr(line, '=');

        if (!value)
            continue;
        *value++ = '\0';
        table->entries[table->count].key = line;
        table->entries[table->count++].value = value;
    }
    qsort(table->entries, table->count, sizeof *table->entries, by_key);
}

/* Reads the whole file; an absent one is an empty table. */
static void table_read(struct table *table, const char *path, struct stat *seen)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t size, done = 0;

    memset(table, 0, sizeof *table);
    memset(seen, 0, sizeof *seen);
    if (file < 0)
        return;
    if (fstat(file, seen) == 0) {
        size = (size_t)seen->st_size;
        table->text = malloc(size + 1);
        while (table->text && done < size) {
            ssize_t got = read(file, table->text + done, size - done);

            if (got <= 0)
                break;
            done += (size_t)got;
        }
        if (table->text) {
            table->text[done] = '\0';
            table_parse(table);
        }
    }
    close(file);
}

static int same_file(const struct stat *left, const struct stat *right)
{
    return left->st_ino == right->st_ino && left->st_size == right->st_size &&
           left->st_mtim.tv_sec == right->st_mtim.tv_sec && left->st_mtim.tv_nsec == right->st_mtim.tv_nsec;
}

/* The layer's table as it is now; the caller holds the guard. */
static const struct table *current(enum state_layer which)
{
    struct layer *layer = &layers[which];
    char path[STATE_PATH_MAX];
    struct stat now;

    layer_path(path, sizeof path, which, "state");
    if (stat(path, &now) != 0)
        memset(&now, 0, sizeof now);
    if (!layer->loaded || !same_file(&now, &layer->seen)) {
        table_free(&layer->table);
        table_read(&layer->table, path, &layer->seen);
        layer->loaded = 1;
    }
    return &layer->table;
}

static const char *table_find(const struct table *table, const char *key)
{
    struct entry wanted = {.key = key};
    const struct entry *found;

    if (!table->count)
        return NULL;
    found = bsearch(&wanted, table->entries, table->count, sizeof wanted, by_key);
    return found ? found->value : NULL;
}

int state_get_layer(enum state_layer layer, const char *key, char *value, size_t size)
{
    const char *found;

    pthread_mutex_lock(&guard);
    found = table_find(current(layer), key);
    if (found)
        snprintf(value, size, "%s", found);
    pthread_mutex_unlock(&guard);
    return found ? 0 : -1;
}

int state_get(const char *key, char *value, size_t size)
{
    for (int layer = 0; layer < STATE_LAYERS; layer++)
        if (state_get_layer((enum state_layer)layer, key, value, size) == 0)
            return 0;
    return -1;
}

long state_number(const char *key, long fallback)
{
    char value[STATE_VALUE_MAX], *end;
    long number;

    if (state_get(key, value, sizeof value) != 0)
        return fallback;
    number = strtol(value, &end, 0);
    return *value && !*end ? number : fallback;
}

void state_each(const char *prefix, state_visitor each, void *context)
{
    struct entry *found = NULL;
    size_t count = 0, length = strlen(prefix);

    pthread_mutex_lock(&guard);
    for (int upper = 0; upper < STATE_LAYERS; upper++) {
        const struct table *table = current((enum state_layer)upper);

        for (size_t i = 0; i < table->count; i++) {
            const struct entry *entry = &table->entries[i];
            int hidden = strncmp(entry->key, prefix, length) != 0;
            struct entry *grown;

            for (int above = 0; above < upper && !hidden; above++)
                hidden = table_find(&layers[above].table, entry->key) != NULL;
            grown = hidden ? NULL : realloc(found, (count + 1) * sizeof *found);
            if (!grown)
                continue;
            found = grown;
            found[count].key = strdup(entry->key);
            found[count].value = strdup(entry->value);
            if (found[count].key && found[count].value)
                count++;
        }
    }
    pthread_mutex_unlock(&guard);
    if (found)
        qsort(found, count, sizeof *found, by_key);
    for (size_t i = 0, stop = 0; i < count; i++) {
        if (!stop)
            stop = (size_t)each(found[i].key, found[i].value, context);
        free((char *)found[i].key);
        free((char *)found[i].value);
    }
    free(found);
}

static int by_changed_key(const void *left, const void *right)
{
    return strcmp((*(const struct state_change *const *)left)->key, (*(const struct state_change *const *)right)->key);
}

static void print_change(FILE *file, const struct state_change *change)
{
    if (change->value)
        fprintf(file, "%s=%s\n", change->key, change->value);
}

/* Old entries and changes, merged in the order of their keys. */
static int write_merged(const char *path, const struct table *old, const struct state_change *changes, size_t count)
{
    const struct state_change **sorted = calloc(count + 1, sizeof(void *));
    FILE *file = fopen(path, "we");
    size_t next = 0;

    if (!sorted || !file) {
        free(sorted);
        if (file)
            fclose(file);
        return -1;
    }
    for (size_t i = 0; i < count; i++)
        sorted[i] = &changes[i];
    qsort(sorted, count, sizeof(void *), by_changed_key);
    for (size_t i = 0; i < old->count; i++) {
        const struct entry *entry = &old->entries[i];

        while (next < count && strcmp(sorted[next]->key, entry->key) < 0)
            print_change(file, sorted[next++]);
        if (next < count && strcmp(sorted[next]->key, entry->key) == 0)
            print_change(file, sorted[next++]);
        else
            fprintf(file, "%s=%s\n", entry->key, entry->value);
    }
    while (next < count)
        print_change(file, sorted[next++]);
    free(sorted);
    return fclose(file) == 0 ? 0 : -1;
}

int state_update(enum state_layer layer, const struct state_change *changes, size_t count)
{
    char folder[STATE_PATH_MAX], path[STATE_PATH_MAX], next[STATE_PATH_MAX], locked[STATE_PATH_MAX];
    struct table old;
    struct stat seen;
    int lock, result = -1, problem;

    layer_path(folder, sizeof folder, layer, "");
    layer_path(path, sizeof path, layer, "state");
    layer_path(next, sizeof next, layer, "state.next");
    layer_path(locked, sizeof locked, layer, "state.lock");
    if (mkdir(folder, 0755) != 0 && errno != EEXIST)
        return -1;
    lock = open(locked, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock < 0)
        return -1;
    if (flock(lock, LOCK_EX) == 0) {
        table_read(&old, path, &seen);
        if (write_merged(next, &old, changes, count) == 0)
            result = rename(next, path);
        table_free(&old);
    }
    problem = errno;
    close(lock);
    errno = problem;
    return result;
}

int state_writable(enum state_layer layer)
{
    char folder[STATE_PATH_MAX];

    layer_path(folder, sizeof folder, layer, "");
    return faccessat(AT_FDCWD, folder, W_OK, AT_EACCESS) == 0 || (errno == ENOENT && geteuid() == 0);
}

int process_alive(long pid)
{
    char path[64], text[512], *state;
    int file;
    ssize_t got;

    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return 0;
    got = read(file, text, sizeof text - 1);
    close(file);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    state = strrchr(text, ')');
    return state && strlen(state) > 2 && state[2] != 'Z' && state[2] != 'X';
}
