"""Work side by side: independent calls in other processes, and one condensation over the ranks of
torchrun (`distributed`).
"""
