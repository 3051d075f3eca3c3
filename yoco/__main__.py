"""`python -m yoco` and `yoco`: the command line."""

import sys


def main() -> int:
    """Run the command line; Ctrl-C ends it with one line, also while it is still being imported."""
    try:
        from yoco import cli

        return cli.main()
    except KeyboardInterrupt:
        from yoco.utils import interrupts

        print(interrupts.SAID, file=sys.stderr)
        return interrupts.STATUS


if __name__ == "__main__":
    sys.exit(main())
