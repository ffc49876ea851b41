"""What each command does: plain functions that ``harness.cli`` calls once it has read the flags."""
