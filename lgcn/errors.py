"""The one exception for what a user can put right."""


class InputError(ValueError):
    """A file, an argument or a checkpoint that cannot be used as it is.

    The message names the file, line or argument, the value found there, and the way out. The command line
    prints it without a traceback.
    """
