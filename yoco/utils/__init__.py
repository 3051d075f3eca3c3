"""Plumbing that knows nothing about condensation.

Argument checks, devices, seeds, locks, tensor files, k-means. Import the files one by one: `from
yoco.utils import checks`.
"""
