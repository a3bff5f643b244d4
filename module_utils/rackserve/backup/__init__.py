"""One archive of what decides how a cluster is: description, plan, locks, records; no secret, each file hashed."""
