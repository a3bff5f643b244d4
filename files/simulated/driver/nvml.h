/* What the library shares with its callers: layouts and numbers as nvidia-ml-py (13.x) declares them. */
#ifndef RACKSERVE_SIMULATED_NVML_H
#define RACKSERVE_SIMULATED_NVML_H

typedef enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_CORRUPTED_INFOROM = 14,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_RESET_REQUIRED = 16,
    NVML_ERROR_OPERATING_SYSTEM = 17,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_MEMORY = 20,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_DEPRECATED = 26,
    NVML_ERROR_UNKNOWN = 999
} nvmlReturn_t;

typedef struct nvmlDevice_st *nvmlDevice_t;
typedef struct nvmlEventSet_st *nvmlEventSet_t;
typedef unsigned int uint;
typedef unsigned long long ull;

enum { NVML_CLOCK_GRAPHICS, NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_CLOCK_VIDEO, NVML_CLOCK_COUNT };
enum { NVML_CLOCK_ID_CURRENT, NVML_CLOCK_ID_APP_CLOCK_TARGET, NVML_CLOCK_ID_APP_CLOCK_DEFAULT, NVML_CLOCK_ID_CUSTOMER_BOOST_MAX };
enum { NVML_VOLATILE_ECC, NVML_AGGREGATE_ECC };
enum { NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_MEMORY_ERROR_TYPE_UNCORRECTED };
enum { NVML_MEMORY_LOCATION_DRAM = 2, NVML_MEMORY_LOCATION_SRAM = 7, NVML_MEMORY_LOCATION_COUNT = 8 };
enum { NVML_POWER_SCOPE_GPU, NVML_POWER_SCOPE_MODULE, NVML_POWER_SCOPE_MEMORY };
enum { NVML_P2P_STATUS_OK = 0, NVML_P2P_STATUS_NOT_SUPPORTED = 5 };
enum {
    NVML_VALUE_TYPE_UNSIGNED_INT = 1,
    NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3,
    NVML_VALUE_TYPE_SIGNED_INT = 5
};
enum {
    NVML_TOPOLOGY_SINGLE = 10,
    NVML_TOPOLOGY_MULTIPLE = 20,
    NVML_TOPOLOGY_HOSTBRIDGE = 30,
    NVML_TOPOLOGY_NODE = 40,
    NVML_TOPOLOGY_SYSTEM = 50
};
#define NVML_EVENT_XID_CRITICAL 0x8ULL
#define NVML_EVENTS_OF_H100 0xff9fULL /* as one reports them; only Xids are ever given */
#define NVML_CLOCK_LIMIT_ID_TDP 0xffffff01U
#define NVML_CLOCK_LIMIT_ID_UNLIMITED 0xffffff02U
#define NVML_ID_NONE 0xffffffffU

/* Every versioned structure holds its size and version in its first number. */
#define NVML_VERSION(type, number) ((uint)(sizeof(type) | ((uint)(number) << 24)))

typedef struct {
    char busIdLegacy[16];
    uint domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

typedef struct {
    uint version, domain, bus, device, pciDeviceId, pciSubSystemId, baseClass, subClass;
    char busId[32];
} nvmlPciInfoExt_v1_t;

typedef struct {
    uint version;
    char branch[80];
} nvmlSystemDriverBranchInfo_v1_t;

typedef struct {
    uint version, type;
    union {
        char text[41];
        unsigned char bytes[16];
    } value;
} nvmlUUID_v1_t;

typedef struct {
    ull total, free, used;
} nvmlMemory_t;

typedef struct {
    uint version;
    ull total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    ull bar1Total, bar1Free, bar1Used;
} nvmlBAR1Memory_t;

typedef struct {
    ull l1Cache, l2Cache, deviceMemory, registerFile;
} nvmlEccErrorCounts_t;

typedef struct {
    uint version;
    ull aggregateUncParity, aggregateUncSecDed, aggregateCor, volatileUncParity, volatileUncSecDed, volatileCor;
    ull aggregateUncBucketL2, aggregateUncBucketSm, aggregateUncBucketPcie, aggregateUncBucketMcu, aggregateUncBucketOther;
    uint bThresholdExceeded;
} nvmlEccSramErrorStatus_v1_t;

typedef struct {
    uint max, high, partial, low, none;
} nvmlRowRemapperHistogramValues_t;

typedef struct {
    uint corrActive, corrInactive, uncActive, uncInactive, bPending, bFailure;
} nvmlRemappedRowsInfo_v2_t;

typedef struct {
    uint version, bChannelRepairPending, bTpcRepairPending;
} nvmlRepairStatus_v1_t;

/* version and one number: unrepairable memory, addressing mode, DRAM encryption, capabilities */
typedef struct {
    uint version, value;
} nvmlVersionedValue_v1_t;

typedef struct {
    uint version;
    ull value;
} nvmlPdi_v1_t;

typedef struct {
    uint version;
    int marginTemperature;
} nvmlMarginTemperature_v1_t;

typedef struct {
    uint version, sensorType;
    int temperature;
} nvmlTemperature_v1_t;

typedef struct {
    uint version, powerScope, powerValueMw;
} nvmlPowerValue_v2_t;

typedef struct {
    uint gpu, memory;
} nvmlUtilization_t;

typedef struct {
    uint sessionsCount, averageFPS, averageLatency;
} nvmlFBCStats_t;

typedef struct {
    ull referenceTime, violationTime;
} nvmlViolationTime_t;

typedef struct {
    uint isC2cEnabled;
} nvmlC2cModeInfo_v1_t;

typedef struct {
    uint pid;
    ull usedGpuMemory;
} nvmlProcessInfo_v1_t;

typedef struct {
    uint pid;
    ull usedGpuMemory;
    uint gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;

typedef struct {
    nvmlDevice_t device;
    ull eventType, eventData;
} nvmlEventData_v1_t;

typedef struct {
    nvmlDevice_t device;
    ull eventType, eventData;
    uint gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

typedef struct {
    unsigned char clusterUuid[16];
    uint status, cliqueId, state;
} nvmlGpuFabricInfo_t;

typedef struct {
    uint version;
    unsigned char clusterUuid[16];
    uint status, cliqueId, state, healthMask;
} nvmlGpuFabricInfo_v2_t;

typedef struct {
    uint version;
    unsigned char clusterUuid[16];
    uint status, cliqueId, state, healthMask;
    unsigned char healthSummary;
} nvmlGpuFabricInfo_v3_t;

typedef struct {
    uint fieldId, scopeId;
    long long timestamp, latencyUsec;
    uint valueType, nvmlReturn;
    union {
        double dVal;
        uint uiVal;
        unsigned long ulVal;
        ull ullVal;
        long long sllVal;
        int siVal;
    } value;
} nvmlFieldValue_t;

#endif
