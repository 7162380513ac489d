"""The exception for errors that a user can correct."""


class InputError(ValueError):
    """A file, an argument or a checkpoint cannot be used.

    The message names the file, line or argument, the value, and what to do. The command line prints it without a
    traceback.
    """
