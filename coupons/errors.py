"""Errors whose text is meant for the person who caused them: one line that names the thing, without codes."""


class UserError(Exception):
    """Shown as it is by the command line and the web; everything else is a defect."""


class Conflict(UserError):
    """What was asked for cannot be done. Nothing was changed."""


class WorkStopped(Exception):
    """The work must stop at once and write nothing more."""


class LeaseLost(WorkStopped):
    """Another worker has taken the work over, or an operator has ended it."""


class SendingBlocked(WorkStopped):
    """The restore guard does not accept the database: nothing may be sent, and no code may change its owner."""
