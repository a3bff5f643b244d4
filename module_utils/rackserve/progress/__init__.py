"""Progress of long work: what it says of itself, rate and time left, background jobs, and where a run's time went."""
