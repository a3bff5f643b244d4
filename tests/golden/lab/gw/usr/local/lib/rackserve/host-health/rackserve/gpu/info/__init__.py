# Part of rackserve's host-health.
