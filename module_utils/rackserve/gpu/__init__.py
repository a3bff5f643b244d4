"""GPUs of a host: what must be true of them before an engine starts."""
