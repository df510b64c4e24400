"""The broker's half of the command line: `fanwire serve`, and `fanwire demo`, which is a broker, a feed and a watcher.

Only here may the broker's side import the client's.
"""
