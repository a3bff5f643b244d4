"""A module's core run on a host by itself, for runs that people wait for: without Ansible's module library."""
