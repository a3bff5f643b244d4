"""Build, ship and verify engine releases: an interpreter, the standard library and every package in one tree."""
