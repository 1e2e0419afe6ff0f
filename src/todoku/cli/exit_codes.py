"""What a command's exit code says. Scripts rely on these: no number is ever given a new meaning."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    def __new__(cls, number: int, meaning: str) -> "ExitCode":
        code = int.__new__(cls, number)
        code._value_ = number
        code.meaning = meaning
        return code

    meaning: str

    OK = 0, "done; for a server: stopped cleanly when asked, by Ctrl-C too"
    FAILED = 1, "not done, or not stopped cleanly"
    USAGE = 2, "a command, a flag or a setting is wrong"
    CANNOT_START = 3, "a port, a folder or a program that is needed cannot be had"
    IN_USE = 4, "the data folder is in use by another process"
    NOT_FOUND = 5, "there is no such order, product or shipment"
    REFUSED = 6, "the service refuses what it was sent; nothing was done"
    UNREACHABLE = 7, "a service does not answer, or what answers is not Todoku"
    BUSY = 8, "the service cannot serve just now; nothing was done, try again later"
    OUTCOME_UNKNOWN = 9, "sent, but whether it was carried out is not known: look first"
    NO_STOCK = 10, "watched to its end: the order is CANCELLED_NO_STOCK"
    SHIPMENT_FAILED = 11, "watched to its end: the order is SHIPMENT_FAILED"
    NOT_ENDED = 12, "watched until --timeout: the order has not ended"
    ENDED_OTHERWISE = 13, "watched to its end: the order failed in a status other than those above"
    UNKNOWN_STATUS = 14, "watched: the order has a status that this version of todoku does not know"
    INTERRUPTED = 130, "stopped by Ctrl-C before it was done"
    OUTPUT_CLOSED = 141, "whoever read the output, such as head, has stopped reading"

    @classmethod
    def explained(cls) -> str:
        """All codes with their meanings, for the help."""
        return "Exit codes:\n" + "\n".join(f"{code.value:>5}  {code.meaning}" for code in cls)
