"""Errors of users, whose text is one line that names the thing and contains no codes; and signals to stop work."""


class UserError(Exception):
    """The command line and the console show its text; any other error is an internal error."""


class Conflict(UserError):
    """The request is not possible in the present state. Nothing was changed."""


class WorkStopped(Exception):
    """The work must stop at once and write nothing more."""


class LeaseLost(WorkStopped):
    """Another worker has taken the work over, or an operator has ended it."""


class SendingBlocked(WorkStopped):
    """The restore guard does not accept the database: nothing may be sent, and no code may change its owner."""
