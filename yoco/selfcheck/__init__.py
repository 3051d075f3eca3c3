"""`yoco selfcheck`: does this machine compute what others do, and how fast is it?

`checks` holds the computations, `expected` what a CPU got for them, `speed` the two timed pieces of
work, and `report` prints what a user pastes into a bug report. Nothing here needs Jupyter, pydantic
or loky.
"""
