"""`fanwire` and `python -m fanwire`: the command line, or what to install when its packages are missing."""

import sys


def main() -> None:
    """Run the command line and exit: 0 done, 1 it failed, 2 it was asked wrongly, 130 it was interrupted."""
    try:
        from .commandline import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("error: the command line needs some more packages: pip install 'fanwire[all]'")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
