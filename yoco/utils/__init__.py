"""Plumbing that knows nothing of condensation: checks of arguments, devices, seeds, locks, files of
tensors, k-means.

Its files are imported one by one: `from yoco.utils import checks`.
"""
