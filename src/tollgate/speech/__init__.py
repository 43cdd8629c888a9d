"""A server of speech for hosts, with the models of hibari. It stands apart, and needs the extra `speech`."""
