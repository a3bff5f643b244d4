#include "daemon.h"

#include "state.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

void say(const struct daemon *daemon, const char *level, const char *format, ...)
{
    char text[512], stamp[32], path[STATE_PATH_MAX];
    time_t now = time(NULL);
    va_list arguments;
    FILE *log;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s: %s (simulated)\n", daemon->name, text);
    if (!*daemon->log)
        return;
    strftime(stamp, sizeof stamp, "%b %d %Y %H:%M:%S", localtime(&now));
    state_path(path, sizeof path, daemon->log);
    log = fopen(path, "ae");
    if (log) {
        fprintf(log, "[%s] [%s] [tid %ld] %s (simulated)\n", stamp, level, (long)getpid(), text);
        fclose(log);
    }
}

int set_key(const char *key, const char *value)
{
    struct state_change change = {.value = value};

    snprintf(change.key, sizeof change.key, "%s", key);
    return state_update(STATE_VOLATILE, &change, 1);
}

int set_all_gpus(const char *key, const char *value)
{
    long count = state_number("gpu.count", 0);
    struct state_change changes[GPU_NUMBERS_MAX];

    if (count > GPU_NUMBERS_MAX)
        count = GPU_NUMBERS_MAX;
    for (long number = 0; number < count; number++) {
        snprintf(changes[number].key, sizeof changes[number].key, "gpu.%ld.%s", number, key);
        changes[number].value = value;
    }
    return state_update(STATE_VOLATILE, changes, (size_t)count);
}

static void pid_path(char *out, size_t size, const struct daemon *daemon, int with_file)
{
    char path[STATE_PATH_MAX];

    snprintf(path, sizeof path, "/run/%s%s%s%s", daemon->folder, with_file ? "/" : "", with_file ? daemon->name : "",
             with_file ? ".pid" : "");
    state_path(out, size, path);
}

static int write_pid(const struct daemon *daemon)
{
    char path[STATE_PATH_MAX], pid[24];
    FILE *file;

    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    pid_path(path, sizeof path, daemon, 0);
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
        return -1;
    pid_path(path, sizeof path, daemon, 1);
    file = fopen(path, "we");
    if (!file)
        return -1;
    fprintf(file, "%s\n", pid);
    fclose(file);
    return set_key(daemon->pid_key, pid);
}

/* The parent leaves when the child is ready or has failed. */
static void detach(int *ready)
{
    int ends[2];
    char byte = 1;

    if (pipe(ends) != 0)
        exit(1);
    switch (fork()) {
    case -1:
        exit(1);
    case 0:
        close(ends[0]);
        setsid();
        *ready = ends[1];
        return;
    default:
        close(ends[1]);
        exit(read(ends[0], &byte, 1) == 1 ? byte : 1);
    }
}

int serve(const struct daemon *daemon, int background, int (*begin)(void), void (*end)(void))
{
    char path[STATE_PATH_MAX], byte = 0;
    int ready = -1, received;
    sigset_t signals;

    if (background)
        detach(&ready);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    if (write_pid(daemon) != 0 || begin() != 0) {
        say(daemon, "ERROR", "cannot write below /run: %s; run as root", strerror(errno));
        return 1;
    }
    say(daemon, "INFO", "started");
    if (ready >= 0) {
        if (write(ready, &byte, 1) != 1)
            return 1;
        close(ready);
        if (!freopen("/dev/null", "r", stdin) || !freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
            return 1;
    }
    sigwait(&signals, &received);
    end();
    set_key(daemon->pid_key, NULL);
    pid_path(path, sizeof path, daemon, 1);
    unlink(path);
    return 0;
}
