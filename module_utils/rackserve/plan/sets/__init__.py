"""Release sets: what a file of `files/releases` says and must not say, and where it ran (docs/releases.md)."""
