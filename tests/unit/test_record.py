"""Blocks that are made of what they have in common are those that are made whole."""

from __future__ import annotations

import itertools

import pytest

from cper.common import Severity
from vmm_ras.record import MAX_FRAMES, NATIVE, QEMU, Blocks, RecordStyle, memory_block

PAGES = ([(0x5000, 4096)], [(0x12_3456_7000, 1 << 21)], [(0, 4096), (4096, 4096)])
TIMES = (None, 0.0, 5.5, 1_700_000_000.25, -0.5, 1e18)


@pytest.mark.parametrize("style", [NATIVE, QEMU, RecordStyle(timestamp=False), RecordStyle(fru_text=False)])
@pytest.mark.parametrize("severity", [Severity.RECOVERABLE, Severity.FATAL, Severity.CORRECTED])
def test_blocks_of_a_rule_are_those_made_whole(style: RecordStyle, severity: Severity) -> None:
    for error_type in (None, 3):
        blocks = Blocks(severity, error_type, style)
        for latent, time, pages, number in itertools.product((False, True), TIMES, PAGES, (1, 0x1234_ABCD, 1 << 32)):
            assert blocks.build(tuple(pages), latent, number, time) == memory_block(
                pages, severity=severity, error_type=error_type, latent=latent, number=number, time=time, style=style
            )


def test_what_is_remembered_of_many_seconds_is_bounded() -> None:
    blocks = Blocks(Severity.RECOVERABLE, None, NATIVE)
    for second in range(3 * MAX_FRAMES):
        assert blocks.build(((0x1000, 4096),), False, 1, second) == memory_block(
            [(0x1000, 4096)], number=1, time=second
        )
    assert len(blocks._frames) <= MAX_FRAMES
