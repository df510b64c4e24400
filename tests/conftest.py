"""What holds for every test."""

import os

from hypothesis import settings

# No test depends on how fast the machine is. In CI the same examples come every time; elsewhere new ones are sought.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
