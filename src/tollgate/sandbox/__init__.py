"""A look-alike of OpenRouter for the demo, the tests and the benchmark, with faults on request."""

API = "/api/v1"
