"""The version of this release: the one place where it is written."""

from typing import Final

__version__: Final = "0.1.0"
"""As in the name of the distribution: "0.1.0"."""
