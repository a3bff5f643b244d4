"""Hardware profiles: what a kind of host is made of, and where each value comes from."""
