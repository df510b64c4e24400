"""What to say where the packages of an extra are not installed: one sentence, wherever it is noticed."""


class MissingExtra(ImportError):
    """A package that an extra brings is not installed; the text says what to install."""


def missing_extra(what: str, extra: str, error: ModuleNotFoundError) -> ImportError:
    """Make the error to raise for a package that could not be imported.

    Args:
        what: What needs the package, such as ``fanwire.Broker``.
        extra: The extra that brings the package, such as ``broker``.
        error: What the import raised.

    Returns:
        A `MissingExtra`; ``error`` itself if a module of Fanwire is missing, which is a defect.
    """
    if error.name is None or error.name.partition(".")[0] == "fanwire":
        return error
    return MissingExtra(f"{what} needs the package {error.name!r}: pip install 'fanwire[{extra}]'", name=error.name)
