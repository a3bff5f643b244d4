"""Health of one host: a catalogue of checks, what they read, and what follows from their findings."""
