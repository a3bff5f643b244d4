/* The parts of nvidia-modprobe. */
#ifndef RACKSERVE_SIMULATED_MODPROBE_H
#define RACKSERVE_SIMULATED_MODPROBE_H

#include <stddef.h>

enum module { NVIDIA, NVIDIA_UVM, NVIDIA_MODESET, NVIDIA_PEERMEM, MODULES };

extern const char *const module_names[MODULES];

/* The module of that name (nvidia-uvm or nvidia_uvm), or -1. */
int module_named(const char *name);

/* modprobe_state.c */
int module_loaded(int module);
int module_users(int module, char *names, size_t size); /* loaded modules that need it: "nvidia_uvm,", how many */
int module_version(int module, char *version, size_t size); /* of the file on the disk; -1: there is none */
int gpu_holder(char *who, size_t size);                 /* 1 if something holds a GPU, and who */
int record_load(int module, const char *version);
int record_unload(int module);

/* modprobe_files.c: what the kernel would show; errors are told and not fatal */
void show_module(int module, const char *version);
void hide_module(int module);
void show_modules(void);

#endif
