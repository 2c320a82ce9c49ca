"""The errors a user may meet: one sentence each, with what, where and what to do."""


class ScratchnetError(Exception):
    """Base of all errors whose message is meant for the user as it stands; the command line prints it and exits."""

    exit_status = 1


class DataError(ScratchnetError):
    """A data set cannot be found, fetched, read or trusted."""


class DeviceError(ScratchnetError):
    """The requested processor cannot be used."""

    exit_status = 2


class TrainingError(ScratchnetError):
    """Training cannot go on: a loss is not finite, or a worker process died."""
