"""`python -m yoco` and `yoco`: the command line."""

import sys

from yoco.cli import main

if __name__ == "__main__":
    sys.exit(main())
