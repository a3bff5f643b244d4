"""Release sets: what one file of `files/releases` says, what it must not say, where it was proven (docs/releases.md)."""
