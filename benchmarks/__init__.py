"""Benchmarks of yoco against the literal implementation: `make bench`."""
