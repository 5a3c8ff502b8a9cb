"""How a lane of the lab ends: exit codes 0 passed, 1 failed, 3 not possible here, 130 interrupted."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def lane(name: str, *, verbose: bool = False) -> Iterator[None]:
    """Every error is one line that begins with the lane's name; ``verbose``: and what helps to find out why."""
    from vmm_ras.errors import RasError
    from vmm_ras.lab.errors import LabError, Unavailable
    from vmm_ras.lab.qemu import end_on_signals

    end_on_signals()
    try:
        yield
    except RasError as error:
        impossible = isinstance(error, Unavailable)
        typer.echo(f"{name}: {'not possible here' if impossible else 'FAILED'}: {error}", err=True)
        if verbose and isinstance(error, LabError) and error.detail:
            typer.echo(error.detail, err=True)
        sys.exit(3 if impossible else 1)
    except OSError as error:
        typer.echo(f"{name}: not possible here: {error}", err=True)
        sys.exit(3)
    except KeyboardInterrupt:
        typer.echo(f"{name}: interrupted", err=True)
        sys.exit(130)
