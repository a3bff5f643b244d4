"""The driver and what belongs to it: modules, libraries, Fabric Manager, CUDA."""

from __future__ import annotations

from .case import ANY, ENGINE, KERNEL, TOOL, UNIT
from .rule import DOWN, ENGINE_SYMPTOMS, HEALTH, PLAY, Rule, healed, said

_ALL = (ENGINE, KERNEL, TOOL, UNIT)
_PROVE = PLAY + "prove-driver.yml --limit {host}"

RULES = (
    Rule(
        "driver-library-mismatch", "driver", DOWN, 0.96,
        "the loaded kernel module and the driver's libraries are of different versions",
        "Packages were changed under a loaded module; nothing can use a GPU until the module is loaded anew.",
        "upgrade-driver.yml drains the host, loads the installed version and proves it",
        PLAY + "upgrade-driver.yml --limit {host},gateway",
        healed("driver-versions", said(r"Driver/library version mismatch",
             r"NVRM: API mismatch: the client has the version",
             r"NVRM: this kernel module has the version", r"nvmlInit.*LibRmVersionMismatch", kinds=_ALL)),
        (*ENGINE_SYMPTOMS, "driver-versions", "gpu-no-device", "cuda-init", "fabric-manager-version"),
    ),
    Rule(
        "driver-not-loaded", "driver", DOWN, 0.92,
        "the NVIDIA driver is not loaded, or does not answer",
        "No module for the running kernel, Secure Boot without its key, or nouveau holds the cards.",
        "dkms status and journalctl -k -g 'NVRM|nouveau|Lockdown' on {host}; prove-driver.yml names the odd part",
        _PROVE,
        healed("driver-versions", said(r"couldn't communicate with the NVIDIA driver",
             r"modprobe: FATAL: Module nvidia not found",
             r"Loading of unsigned module is rejected", r"NVRM: No NVIDIA (?:GPU|graphics adapter) found",
             r"NVRM: The NVIDIA probe routine was not called", kinds=_ALL)),
        (*ENGINE_SYMPTOMS, "gpu-no-device", "driver-versions", "cuda-init"),
    ),
    Rule(
        "fabric-manager-missing", "fabric", DOWN, 0.93,
        "CUDA does not start because the NVLink fabric is not set up: Fabric Manager does not run",
        "On a machine with NVSwitches no GPU works before Fabric Manager has registered it.",
        "systemctl status nvidia-fabricmanager.service on {host}; site.yml installs and starts the driver's version",
        _PROVE,
        said(r"CUDA_ERROR_SYSTEM_NOT_READY", r"system not yet initialized", r"Error 802\b",
             r"error 802", kinds=(ENGINE, UNIT, ANY)),
        (*ENGINE_SYMPTOMS, "cuda-init", "nccl-internal-error"),
    ),
    Rule(
        "fabric-manager-version-log", "fabric", DOWN, 0.95,
        "Fabric Manager and the driver are of different versions",
        "Fabric Manager refuses to work with another driver; both come from one release.",
        "prove-driver.yml names both versions; upgrade-driver.yml brings the release's",
        _PROVE,
        said(r"fabric manager NVIDIA GPU driver interface version .* don't match",
             r"[Ff]abric [Mm]anager .*version.*(?:mismatch|does not match|don't match)", kinds=(UNIT, TOOL, ENGINE)),
        (*ENGINE_SYMPTOMS, "fabric-manager-missing", "cuda-init", "fabric-manager-version", "fabric-state",
         "fabric-manager"),
    ),
    Rule(
        "cuda-driver-old", "driver", DOWN, 0.94,
        "the driver is older than the CUDA that the release was built with",
        "The release set names the driver that fits its CUDA.",
        "prove-driver.yml compares with the release; upgrade-driver.yml brings the release's driver",
        _PROVE,
        said(r"CUDA driver version is insufficient for CUDA runtime version",
             r"The NVIDIA driver on your system is too old \(found version (?P<found>\d+)\)",
             r"unsupported toolchain|CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
        (*ENGINE_SYMPTOMS, "cuda-init"),
    ),
    Rule(
        "cuda-architecture", "release", DOWN, 0.93,
        "the release has no code for this GPU",
        "Its kernels were compiled for other compute capabilities.",
        "choose a release whose set was proven on this hardware (playbooks/show-plan.yml prints the proof)",
        PLAY + "show-plan.yml",
        said(r"no kernel image is available for execution on the device",
             r"with CUDA capability sm_\d+ is not compatible with the current PyTorch installation"),
        ENGINE_SYMPTOMS,
    ),
    Rule(
        "gpu-no-device", "hardware", DOWN, 0.85,
        "an engine sees no GPU, or fewer than it was given",
        "The driver does not bring one up, the unit may not open the devices, or CUDA_VISIBLE_DEVICES is wrong.",
        "nvidia-smi -L on {host}; compare with the plan's gpu_ids; systemctl cat {unit} for DeviceAllow",
        HEALTH,
        said(r"No CUDA GPUs are available", r"CUDA error: no CUDA-capable device is detected", r"No devices were found",
             r"CUDA error: invalid device ordinal", r"Unable to determine the device handle for [Gg][Pp][Uu]",
             r"NVML shows \d+ from 0 on", kinds=(ENGINE, TOOL)),
        (*ENGINE_SYMPTOMS, "cuda-init"),
    ),
    Rule(
        "gpu-init-failed", "hardware", DOWN, 0.93,
        "the driver could not bring up a GPU ({gpu})",
        "RmInitAdapter fails on broken memory, firmware or power.",
        "drain the host and reboot it; if it stays, power it off and on, then replace the GPU",
        _PROVE,
        healed("gpu-count", said(r"NVRM: GPU (?P<gpu>[0-9a-f:.]+): RmInitAdapter failed",
             r"NVRM: .*failed to (?:boot|initialize) GSP",
             kinds=(KERNEL,))),
        (*ENGINE_SYMPTOMS, "gpu-no-device", "gpu-count"),
    ),
    Rule(
        "cuda-init", "driver", DOWN, 0.7,
        "CUDA could not be initialised",
        "Driver, device files or fabric; a line above usually says which.",
        "prove-driver.yml compares every part of the driver with the release",
        _PROVE,
        said(r"CUDA (?:driver )?initialization: (?:Unexpected error|CUDA unknown error)", r"CUDA_ERROR_UNKNOWN",
             r"cuInit.*(?:failed|error)", r"CUDA unknown error"),
        ENGINE_SYMPTOMS,
    ),
)  # fmt: skip
