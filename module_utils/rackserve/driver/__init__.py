"""NVIDIA's driver on a host: what is installed, what is loaded, and whether all of it is one version."""
