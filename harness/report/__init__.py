"""Tables to something a person or a program reads: terminal, exports. Computes nothing."""
