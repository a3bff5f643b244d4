"""Checks that only read: of a host, of the variables, of what somebody else put on a host."""
