"""The two ways in which a command ends early on purpose."""


class UserError(Exception):
    """What went wrong, in one sentence with the remedy; printed as it stands, exit code 2."""


class Requeue(BaseException):
    """A run was asked to stop and has saved what it had: the same command goes on from there, exit
    code 75 (EX_TEMPFAIL).
    """
