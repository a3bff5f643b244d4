/* PCI, PCIe links, affinity, topology. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PCI_CLASS_3D_CONTROLLER 0x030200ULL
#define PATH_PARTS 32

int parse_bus_id(const char *text, uint *domain, uint *bus, uint *slot)
{
    if (sscanf(text, "%x:%x:%x", domain, bus, slot) == 3)
        return 0;
    *domain = 0;
    return sscanf(text, "%x:%x", bus, slot) == 2 ? 0 : -1;
}

/* Both bus id texts from the numbers. */
void format_pci(nvmlPciInfo_t *pci)
{
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", pci->domain & 0xffff, pci->bus & 0xff,
             pci->device & 0xff);
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.0", pci->domain, pci->bus & 0xff, pci->device & 0xff);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    char value[STATE_VALUE_MAX];

    REQUIRE(pci);
    memset(pci, 0, sizeof *pci);
    TRY(read_value(device, value, sizeof value, "pci.bus_id"));
    if (parse_bus_id(value, &pci->domain, &pci->bus, &pci->device) != 0)
        return NVML_ERROR_UNKNOWN;
    format_pci(pci);
    TRY(read_uint(device, &pci->pciDeviceId, "pci.device_id"));
    return read_uint(device, &pci->pciSubSystemId, "pci.subsystem_id");
}
ALIAS(nvmlDeviceGetPciInfo_v2, nvmlDeviceGetPciInfo_v3);

EXPORT nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_v1_t *pci)
{
    nvmlPciInfo_t basic;
    ull class = PCI_CLASS_3D_CONTROLLER;
    nvmlReturn_t result;

    REQUIRE(pci);
    if (pci->version != NVML_VERSION(nvmlPciInfoExt_v1_t, 1))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    TRY(nvmlDeviceGetPciInfo_v3(device, &basic));
    result = read_ull(device, &class, "pci.class");
    if (result != NVML_SUCCESS && result != NVML_ERROR_NOT_SUPPORTED)
        return result;
    pci->domain = basic.domain;
    pci->bus = basic.bus;
    pci->device = basic.device;
    pci->pciDeviceId = basic.pciDeviceId;
    pci->pciSubSystemId = basic.pciSubSystemId;
    pci->baseClass = (uint)(class >> 16) & 0xff;
    pci->subClass = (uint)(class >> 8) & 0xff;
    strcpy(pci->busId, basic.busId);
    return NVML_SUCCESS;
}

GET_UINT(nvmlDeviceGetMaxPcieLinkGeneration, "pcie.max_gen")
GET_UINT(nvmlDeviceGetGpuMaxPcieLinkGeneration, "pcie.device_max_gen")
GET_UINT(nvmlDeviceGetCurrPcieLinkGeneration, "pcie.gen")
GET_UINT(nvmlDeviceGetMaxPcieLinkWidth, "pcie.max_width")
GET_UINT(nvmlDeviceGetCurrPcieLinkWidth, "pcie.width")
GET_UINT(nvmlDeviceGetPcieReplayCounter, "pcie.replay")
GET_UINT(nvmlDeviceGetPcieLinkMaxSpeed, "pcie.device_max_gen") /* the enum counts the generations */

EXPORT nvmlReturn_t nvmlDeviceGetPcieSpeed(nvmlDevice_t device, uint *speed)
{
    static const uint mbps[] = {0, 2500, 5000, 8000, 16000, 32000, 64000};
    uint generation;

    TRY(read_uint(device, &generation, "pcie.gen"));
    REQUIRE(speed);
    if (generation >= sizeof mbps / sizeof *mbps)
        return NVML_ERROR_UNKNOWN;
    *speed = mbps[generation];
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetBusType(nvmlDevice_t device, uint *type)
{
    TRY(check_device(device));
    REQUIRE(type);
    *type = 2; /* PCIe */
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, uint counter, uint *kbytes_s)
{
    REQUIRE(counter <= 1);
    return read_uint(device, kbytes_s, counter == 0 ? "pcie.tx_kbytes_s" : "pcie.rx_kbytes_s");
}

static nvmlReturn_t set_bits(const char *list, uint words, unsigned long *bits)
{
    const uint width = 8 * sizeof *bits;

    memset(bits, 0, words * sizeof *bits);
    while (*list) {
        char *end;
        unsigned long first = strtoul(list, &end, 10), last = first;

        if (end == list)
            return NVML_ERROR_UNKNOWN;
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        for (; first <= last && first / width < words; first++)
            bits[first / width] |= 1UL << (first % width);
        list = *end == ',' ? end + 1 : end;
        if (*end && *end != ',')
            return NVML_ERROR_UNKNOWN;
    }
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, uint words, unsigned long *bits)
{
    char value[STATE_VALUE_MAX];

    TRY(read_value(device, value, sizeof value, "cpu_affinity"));
    REQUIRE(bits && words > 0);
    return set_bits(value, words, bits);
}

EXPORT nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t device, uint words, unsigned long *bits, uint scope)
{
    REQUIRE(scope <= 1);
    return nvmlDeviceGetCpuAffinity(device, words, bits);
}

/* An unknown node (-1, as in virtual machines) is reported as node 0. */
EXPORT nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, uint words, unsigned long *bits, uint scope)
{
    char text[16];
    int node;

    TRY(read_int(device, &node, "numa_node"));
    REQUIRE(bits && words > 0 && scope <= 1);
    snprintf(text, sizeof text, "%d", node < 0 ? 0 : node);
    return set_bits(text, words, bits);
}

EXPORT nvmlReturn_t nvmlDeviceGetNumaNodeId(nvmlDevice_t device, uint *node)
{
    return read_uint(device, node, "gpu_numa_node");
}

/* The folders of /sys/devices that lead to the device, host bridge first. */
struct way {
    char text[STATE_PATH_MAX];
    char *parts[PATH_PARTS];
    int count;
};

static nvmlReturn_t way_to(nvmlDevice_t device, struct way *way)
{
    char link[STATE_PATH_MAX], path[STATE_PATH_MAX], *rest = NULL, *start;
    nvmlPciInfo_t pci;
    ssize_t got;

    TRY(nvmlDeviceGetPciInfo_v3(device, &pci));
    snprintf(link, sizeof link, "/sys/bus/pci/devices/%04x:%02x:%02x.0", pci.domain & 0xffff, pci.bus & 0xff,
             pci.device & 0xff);
    state_path(path, sizeof path, link);
    got = readlink(path, way->text, sizeof way->text - 1);
    if (got < 0)
        return NVML_ERROR_NOT_SUPPORTED;
    way->text[got] = '\0';
    start = strstr(way->text, "/pci");
    way->count = 0;
    for (char *part = start ? strtok_r(start, "/", &rest) : NULL; part && way->count < PATH_PARTS;
         part = strtok_r(NULL, "/", &rest))
        way->parts[way->count++] = part;
    return way->count >= 2 ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

static nvmlReturn_t same_node(nvmlDevice_t left, nvmlDevice_t right, uint *level)
{
    int nodes[2];

    TRY(read_int(left, &nodes[0], "numa_node"));
    TRY(read_int(right, &nodes[1], "numa_node"));
    *level = nodes[0] == nodes[1] ? NVML_TOPOLOGY_NODE : NVML_TOPOLOGY_SYSTEM;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t left, nvmlDevice_t right, uint *level)
{
    struct way ways[2];
    int shared = 0, below;

    REQUIRE(level);
    if (left == right)
        return NVML_ERROR_NOT_SUPPORTED;
    TRY(way_to(left, &ways[0]));
    TRY(way_to(right, &ways[1]));
    while (shared < ways[0].count && shared < ways[1].count && strcmp(ways[0].parts[shared], ways[1].parts[shared]) == 0)
        shared++;
    if (shared == 0)
        return same_node(left, right, level);
    below = ways[0].count > ways[1].count ? ways[0].count - shared : ways[1].count - shared;
    /* Below the upstream port of one shared switch lie its downstream port and the device. */
    *level = shared == 1 ? NVML_TOPOLOGY_HOSTBRIDGE : below <= 2 ? NVML_TOPOLOGY_SINGLE : NVML_TOPOLOGY_MULTIPLE;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t device, uint level, uint *count, nvmlDevice_t *found)
{
    uint room, here;

    TRY(check_device(device));
    REQUIRE(count);
    room = *count;
    *count = 0;
    for (int number = next_device(-1); number >= 0; number = next_device(number)) {
        nvmlDevice_t other = device_at(number);

        if (other == device || nvmlDeviceGetTopologyCommonAncestor(device, other, &here) != NVML_SUCCESS || here != level)
            continue;
        if (found && *count < room)
            found[*count] = other;
        ++*count;
    }
    return found && *count > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
}
