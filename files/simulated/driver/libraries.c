/* Stands for libcudart, libcudnn and libnccl: each tells its version and computes nothing. */
#include <stddef.h>

#define EXPORTED __attribute__((visibility("default")))

EXPORTED const char rackserve_simulated[] = "simulated: this library computes nothing";

#if defined(SIMULATE_CUDART)
EXPORTED int cudaRuntimeGetVersion(int *version)
{
    if (!version)
        return 1;
    *version = MAJOR * 1000 + MINOR * 10;
    return 0;
}
#elif defined(SIMULATE_CUDNN)
EXPORTED size_t cudnnGetVersion(void)
{
    return MAJOR * 10000 + MINOR * 100 + PATCH;
}
#elif defined(SIMULATE_NCCL)
EXPORTED int ncclGetVersion(int *version)
{
    if (!version)
        return 4;
    *version = MAJOR * 10000 + MINOR * 100 + PATCH;
    return 0;
}
#endif
