"""Parallel work: independent calls in processes (`pool`), and ranks of torchrun (`distributed`).

The ranks work together on one condensation.
"""
