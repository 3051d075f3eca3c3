"""`python -m yoco` and `yoco`: the command line."""

import sys

INTERRUPTED = 130  # exit status
SAID = "yoco: interrupted; the same command resumes from the last checkpoint"


def main() -> int:
    """Run the command line; Ctrl-C ends it with one line, also while it is still being imported."""
    try:
        from yoco import cli

        return cli.main()
    except KeyboardInterrupt:
        print(SAID, file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
