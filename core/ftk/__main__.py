"""``python -m ftk``: the command, for launchers that start modules."""

from ftk.cli import main

if __name__ == "__main__":
    main()
