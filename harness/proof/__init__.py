"""The same work, on the true device, by a true clock: shown before times count."""
