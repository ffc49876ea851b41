"""The user's cache: what may be kept there, who uses it, whether there is room."""
