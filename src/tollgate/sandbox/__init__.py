"""An OpenRouter look-alike, for the demo, the tests and the benchmark: honest in shape, and faulty when asked to be."""

API = "/api/v1"
