"""`python -m yoco` and `yoco`: the notebooks' work from a shell."""

import sys

from yoco.cli import main

if __name__ == "__main__":
    sys.exit(main())
