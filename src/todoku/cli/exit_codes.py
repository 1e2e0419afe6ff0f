"""The exit codes of all commands. Scripts rely on them: a number never gets a new meaning."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The result of a command."""

    def __new__(cls, number: int, meaning: str) -> "ExitCode":
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        return code

    meaning: str

    OK = 0, "success; for a server: stopped cleanly on request, also by Ctrl-C"
    FAILED = 1, "failure; for a server: not stopped cleanly"
    USAGE = 2, "invalid command, flag or setting"
    CANNOT_START = 3, "a required port, folder or program is unavailable"
    IN_USE = 4, "the data folder is in use by another process"
    NOT_FOUND = 5, "no such order, product, shipment or dead letter"
    REFUSED = 6, "the service rejected the request; nothing was changed"
    UNREACHABLE = 7, "a service does not answer, or is not a Todoku service"
    BUSY = 8, "the service is overloaded or not ready; nothing was changed, try again later"
    OUTCOME_UNKNOWN = 9, "request sent, result unknown; check before you repeat it"
    NO_STOCK = 10, "watched order ended as CANCELLED_NO_STOCK"
    SHIPMENT_FAILED = 11, "watched order ended as SHIPMENT_FAILED"
    NOT_ENDED = 12, "watched order had not ended before --timeout"
    ENDED_OTHERWISE = 13, "watched order failed with another status"
    UNKNOWN_STATUS = 14, "watched order has a status that this version of todoku does not know"
    CANCELLED = 15, "watched order ended as CANCELLED"
    INTERRUPTED = 130, "interrupted by Ctrl-C"
    OUTPUT_CLOSED = 141, "the reader of the output, such as head, closed the pipe"

    @classmethod
    def explained(cls) -> str:
        """Return all codes with their meanings, for the help."""
        return "Exit codes:\n" + "\n".join(f"{code.value:>5}  {code.meaning}" for code in cls)
