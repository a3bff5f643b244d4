"""Weights from host to host in a chain: each host writes, hashes and passes on at the same time."""
