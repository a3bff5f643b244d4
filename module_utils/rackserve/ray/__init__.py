"""Ray clusters: what they say of themselves."""
