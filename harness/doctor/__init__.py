"""What each target needs, what is missing, and what mends it."""
