"""One kind of error for all that a user can mend."""


class UserError(ValueError):
    """Says in one sentence what was wrong, where, and what to do about it."""
