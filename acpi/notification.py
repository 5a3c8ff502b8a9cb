"""Hardware Error Notification (ACPI 6.5, 18.3.2.9): how an error source tells OSPM that it has something to say."""

from __future__ import annotations

from typing import Annotated

from cper.wire import U8, U32, OpenEnum, OpenFlags, Struct, u8, u16


class NotificationType(OpenEnum):
    """How the platform tells OSPM of an error (18.3.2.9)."""

    POLLED = 0
    EXTERNAL_INTERRUPT = 1
    LOCAL_INTERRUPT = 2
    SCI = 3
    NMI = 4
    CMCI = 5
    MCE = 6
    GPIO_SIGNAL = 7
    SEA = 8
    SEI = 9
    GSIV = 10
    SDEI = 11
    SSE = 12


class ConfigurationWriteEnable(OpenFlags):
    """Which fields of the notification OSPM may change (18.3.2.9)."""

    TYPE = 1 << 0
    POLL_INTERVAL = 1 << 1
    POLLING_THRESHOLD_VALUE = 1 << 2
    POLLING_THRESHOLD_WINDOW = 1 << 3
    ERROR_THRESHOLD_VALUE = 1 << 4
    ERROR_THRESHOLD_WINDOW = 1 << 5


class HardwareErrorNotification(Struct, size=28):
    """Hardware Error Notification (18.3.2.9)."""

    type: Annotated[NotificationType, u8]
    """The way; which of the other fields count depends on it."""
    length: U8 = 28
    """Bytes of this structure."""
    configuration_write_enable: Annotated[ConfigurationWriteEnable, u16] = ConfigurationWriteEnable(0)
    """Which of the fields below OSPM may change."""
    poll_interval_ms: U32 = 0
    """Milliseconds between polls; Linux disables a polled source with 0."""
    vector: U32 = 0
    """GSIV, or the SDEI event number."""
    polling_threshold_value: U32 = 0
    """Interrupts within the window from which on OSPM polls instead; 0: it never does."""
    polling_threshold_window_ms: U32 = 0
    """Milliseconds within which those interrupts are counted."""
    error_threshold_value: U32 = 0
    """Errors within the window from which on OSPM takes the matter seriously; 0: every error."""
    error_threshold_window_ms: U32 = 0
    """Milliseconds within which those errors are counted."""
