"""What a call waits for while no detector may be asked."""

from __future__ import annotations

from enum import StrEnum

from actors.faces import Priority


class Patience(StrEnum):
    """What a call waits for within its time; it is refused at once while anything else keeps it waiting.

    Attributes:
        NOTHING: somebody else can answer, such as the CPU.
        NOT_NOW: a detector that is well, and goes on when it hears the head.
        ANYTHING: that, and a circuit that closes again.
    """

    NOTHING = "nothing"
    NOT_NOW = "not_now"
    ANYTHING = "anything"

    @classmethod
    def of(cls, priority: Priority, *, may_fall_back: bool, is_timed: bool) -> Patience:
        """What a call waits for.

        Args:
            priority: of the call.
            may_fall_back: whether the CPU may answer it.
            is_timed: whether the CPU waits for a while before it does.
        """
        if may_fall_back and not is_timed:
            # The CPU answers while no detector may be asked, whatever the reason.
            return cls.NOTHING
        if priority is Priority.BULK and not may_fall_back:
            # Bulk images would rather wait for a circuit to close than fail.
            return cls.ANYTHING
        return cls.NOT_NOW
