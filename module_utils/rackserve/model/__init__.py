"""Check weights against their manifest and record that they are ready."""
