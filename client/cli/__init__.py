"""The client's half of the command line: `fanwire pub`, `sub`, `watch`, `feed` and `bench`.

Each command has a file of its name; what it does lies beside it in files without click, so that it can be tested and
used (`fanwire demo` does) without a command line. The packages of the extra `fanwire[cli]` may be imported only here.
"""
