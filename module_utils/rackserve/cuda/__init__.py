"""CUDA toolkit, cuDNN and NCCL on a host: what is installed, and whether files, packages and release agree."""
