"""The commands, a file each: its flags, and the few lines that call what it does and print it."""
