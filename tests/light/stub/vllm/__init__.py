"""A stub that stands where vLLM stands, for tests of everything around an engine. It computes nothing."""

__version__ = "0.32.0+stub"
