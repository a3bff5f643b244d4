"""A real answer as proof: ask an engine or a gateway, time the answer, compare it with a golden one."""
