"""Real prices for `fanwire feed` and `fanwire demo`; README.md beside this file names their source."""
