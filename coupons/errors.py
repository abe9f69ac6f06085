"""Errors that are shown to users, as one line that mentions the affected object and no codes; signals to stop work."""


class UserError(Exception):
    """An error whose text the command line and the console show. Any other error is an internal error."""


class Conflict(UserError):
    """The request conflicts with the present state. Nothing was changed."""


class WorkStopped(Exception):
    """The work must stop at once and write nothing more."""


class LeaseLost(WorkStopped):
    """Another worker has taken over the work, or an operator has ended the work."""


class SendingBlocked(WorkStopped):
    """The restore guard has locked the database: no mail may be sent, and no code may be assigned or returned."""
