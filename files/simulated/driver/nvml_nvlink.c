/* NVLink, the fabric, peer access. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FABRIC_HEALTHY 1
#define FABRIC_UNHEALTHY 2

static nvmlReturn_t check_link(nvmlDevice_t device, uint link)
{
    uint count;

    TRY(read_uint(device, &count, "nvlink.count"));
    if (count == 0)
        return NVML_ERROR_NOT_SUPPORTED;
    REQUIRE(link < count);
    return NVML_SUCCESS;
}

/* A link's own key, the key of all links, or the fallback. */
static nvmlReturn_t link_text(nvmlDevice_t device, uint link, const char *name, const char *fallback, char *text, size_t size)
{
    nvmlReturn_t result;

    TRY(check_link(device, link));
    result = read_value(device, text, size, "nvlink.%u.%s", link, name);
    if (result == NVML_ERROR_NOT_SUPPORTED)
        result = read_value(device, text, size, "nvlink.%s", name);
    if (result == NVML_ERROR_NOT_SUPPORTED && fallback) {
        snprintf(text, size, "%s", fallback);
        result = NVML_SUCCESS;
    }
    return result;
}

static nvmlReturn_t link_number(nvmlDevice_t device, uint link, const char *name, const char *fallback, ull *number)
{
    char text[STATE_VALUE_MAX], *end;

    TRY(link_text(device, link, name, fallback, text, sizeof text));
    *number = strtoull(text, &end, 0);
    return *text && !*end ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

nvmlReturn_t nvlink_value(nvmlDevice_t device, uint link, const char *name, ull *number)
{
    const char *fallback = strcmp(name, "state") == 0 ? "1" : strncmp(name, "errors.", 7) == 0 ? "0" : NULL;

    return link_number(device, link, name, fallback, number);
}

static nvmlReturn_t link_uint(nvmlDevice_t device, uint link, const char *name, uint *number)
{
    ull wide;

    TRY(nvlink_value(device, link, name, &wide));
    REQUIRE(number);
    *number = (uint)wide;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, uint link, uint *active)
{
    return link_uint(device, link, "state", active);
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkVersion(nvmlDevice_t device, uint link, uint *version)
{
    return link_uint(device, link, "version", version);
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, uint link, uint *type)
{
    return link_uint(device, link, "remote_type", type);
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, uint link, nvmlPciInfo_t *pci)
{
    char text[STATE_VALUE_MAX];

    TRY(link_text(device, link, "remote", NULL, text, sizeof text));
    REQUIRE(pci);
    memset(pci, 0, sizeof *pci);
    if (parse_bus_id(text, &pci->domain, &pci->bus, &pci->device) != 0)
        return NVML_ERROR_UNKNOWN;
    format_pci(pci);
    return NVML_SUCCESS;
}
ALIAS(nvmlDeviceGetNvLinkRemotePciInfo, nvmlDeviceGetNvLinkRemotePciInfo_v2);

/* P2P, system memory, atomics: what links of GPUs can do today; SLI bridges are not simulated. */
EXPORT nvmlReturn_t nvmlDeviceGetNvLinkCapability(nvmlDevice_t device, uint link, uint capability, uint *result)
{
    TRY(check_link(device, link));
    REQUIRE(capability <= 5 && result);
    *result = capability != 4;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkErrorCounter(nvmlDevice_t device, uint link, uint counter, ull *count)
{
    static const char *const names[] = {"errors.replay", "errors.recovery", "errors.crc_flit", "errors.crc_data"};

    TRY(check_link(device, link));
    REQUIRE(count);
    if (counter >= sizeof names / sizeof *names)
        return NVML_ERROR_NOT_SUPPORTED;
    return nvlink_value(device, link, names[counter], count);
}

EXPORT nvmlReturn_t nvmlDeviceResetNvLinkErrorCounters(nvmlDevice_t device, uint link)
{
    static const char *const names[] = {"replay", "recovery", "crc_flit", "crc_data"};
    char keys[4][64];
    struct pair pairs[4];

    TRY(may_change(device));
    TRY(check_link(device, link));
    for (int i = 0; i < 4; i++) {
        snprintf(keys[i], sizeof keys[i], "nvlink.%u.errors.%s", link, names[i]);
        pairs[i] = (struct pair){keys[i], 0};
    }
    return write_numbers(device, STATE_VOLATILE, pairs, 4);
}

struct fabric {
    unsigned char cluster[16];
    uint status, clique, state, health, summary;
};

static nvmlReturn_t read_fabric(nvmlDevice_t device, struct fabric *fabric)
{
    char uuid[STATE_VALUE_MAX];
    uint bytes = 0;
    nvmlReturn_t result;

    memset(fabric, 0, sizeof *fabric);
    result = read_uint(device, &fabric->state, "fabric.state");
    if (result == NVML_ERROR_NOT_SUPPORTED)
        return NVML_SUCCESS; /* a GPU without a fabric: state 0 */
    TRY(result);
    TRY(read_uint(device, &fabric->status, "fabric.status"));
    result = read_uint(device, &fabric->clique, "fabric.clique_id");
    if (result != NVML_SUCCESS && result != NVML_ERROR_NOT_SUPPORTED)
        return result;
    if (read_value(device, uuid, sizeof uuid, "fabric.cluster_uuid") == NVML_SUCCESS)
        for (const char *at = uuid; *at && bytes < sizeof fabric->cluster; at += *at == '-' ? 1 : 2)
            if (*at != '-' && sscanf(at, "%2hhx", &fabric->cluster[bytes++]) != 1)
                return NVML_ERROR_UNKNOWN;
    if (read_uint(device, &fabric->health, "fabric.health_mask") != NVML_SUCCESS)
        fabric->health = 0;
    if (read_uint(device, &fabric->summary, "fabric.health_summary") == NVML_SUCCESS || fabric->health == 0)
        return NVML_SUCCESS;
    /* Bits of the mask: bandwidth, route recovery, route, access timeout (1 = bad), configuration (above 1 = bad). */
    fabric->summary = ((fabric->health & 0x55) != 0 || ((fabric->health >> 8) & 0xf) > 1) ? FABRIC_UNHEALTHY : FABRIC_HEALTHY;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *info)
{
    struct fabric fabric;

    REQUIRE(info);
    TRY(read_fabric(device, &fabric));
    memcpy(info->clusterUuid, fabric.cluster, sizeof fabric.cluster);
    info->status = fabric.status;
    info->cliqueId = fabric.clique;
    info->state = fabric.state;
    return NVML_SUCCESS;
}

/* Both versions start alike; the newer one is longer by the summary. */
EXPORT nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfo_v3_t *info)
{
    struct fabric fabric;

    REQUIRE(info);
    if (info->version != NVML_VERSION(nvmlGpuFabricInfo_v2_t, 2) && info->version != NVML_VERSION(nvmlGpuFabricInfo_v3_t, 3))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    TRY(read_fabric(device, &fabric));
    memcpy(info->clusterUuid, fabric.cluster, sizeof fabric.cluster);
    info->status = fabric.status;
    info->cliqueId = fabric.clique;
    info->state = fabric.state;
    info->healthMask = fabric.health;
    if (info->version == NVML_VERSION(nvmlGpuFabricInfo_v3_t, 3))
        info->healthSummary = (unsigned char)fabric.summary;
    return NVML_SUCCESS;
}

static int active_links(nvmlDevice_t device)
{
    uint count = 0, active = 0;
    ull state;

    if (read_uint(device, &count, "nvlink.count") != NVML_SUCCESS)
        return 0;
    for (uint link = 0; link < count; link++)
        active += nvlink_value(device, link, "state", &state) == NVML_SUCCESS && state == 1;
    return (int)active;
}

EXPORT nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t left, nvmlDevice_t right, uint capability, uint *status)
{
    static const char *const names[] = {"read", "write", "nvlink", "atomics", "pci"};
    int linked;

    TRY(check_device(left));
    TRY(check_device(right));
    REQUIRE(capability < sizeof names / sizeof *names && status);
    if (left == right) {
        *status = NVML_P2P_STATUS_NOT_SUPPORTED;
        return NVML_SUCCESS;
    }
    linked = active_links(left) > 0 && active_links(right) > 0;
    if (strcmp(names[capability], "nvlink") != 0 && read_uint(left, status, "p2p.%s", names[capability]) == NVML_SUCCESS)
        return NVML_SUCCESS;
    *status = linked && strcmp(names[capability], "pci") != 0 ? NVML_P2P_STATUS_OK : NVML_P2P_STATUS_NOT_SUPPORTED;
    return NVML_SUCCESS;
}
