"""What a person asked for, checked, to frozen cells and heats."""
