"""The agent: the program on a host."""
