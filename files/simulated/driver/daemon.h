/* What both daemons do: refuse in one line, go to the background, wait for the end. */
#ifndef RACKSERVE_SIMULATED_DAEMON_H
#define RACKSERVE_SIMULATED_DAEMON_H

#define GPU_NUMBERS_MAX 64

struct daemon {
    const char *name;      /* of the program */
    const char *folder;    /* below /run, for the pid file */
    const char *pid_key;   /* state key that holds the pid while it runs */
    char log[256];         /* also written there, if not empty */
};

/* One line on stderr, and in the log file. */
void say(const struct daemon *daemon, const char *level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Sets (value) or removes (NULL) a key of every GPU in the volatile layer; 0 or -1. */
int set_all_gpus(const char *key, const char *value);
int set_key(const char *key, const char *value);

/* Runs `begin`, reports to whoever started us, waits for TERM or INT, runs `end`. Exit status. */
int serve(const struct daemon *daemon, int background, int (*begin)(void), void (*end)(void));

#endif
