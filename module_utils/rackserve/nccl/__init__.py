"""NCCL: the topology it detects, files it can read, what it is told by environment variables."""
