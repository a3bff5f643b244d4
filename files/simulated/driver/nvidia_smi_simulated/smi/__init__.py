"""The simulated nvidia-smi: everything it says comes from NVML, through an unmodified nvidia-ml-py."""
