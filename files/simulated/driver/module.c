/* A kernel module that is none: only what modinfo shows of it. */
#define INFO(name, text)                                                                           \
    static const char info_##name[] __attribute__((section(".modinfo"), used, aligned(1))) = #name "=" text

INFO(version, DRIVER_VERSION);
INFO(description, "simulated " MODULE_NAME " kernel module");
INFO(license, "Dual MIT/GPL");
INFO(depends, MODULE_DEPENDS);
INFO(name, MODULE_NAME);
INFO(vermagic, MODULE_KERNEL " SMP mod_unload ");
