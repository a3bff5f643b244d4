"""Simulated GPU hosts: hardware, driver state and faults at the boundary of driver and sysfs."""
