"""The real servers that the tests run against, each on a free loopback port."""
