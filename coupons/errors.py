"""Errors whose text is meant for the person who caused them: one line that names the thing, without codes."""


class UserError(Exception):
    """Shown as it is by the command line and the web; everything else is a defect."""


class Conflict(UserError):
    """What was asked for cannot be done. Nothing was changed."""


class LeaseLost(Exception):
    """Another worker has taken this work over, or a person has ended it: stop, and write nothing more."""
