"""CXL switch and MLD port event sections (UEFI 2.10, N.2.14; CXL 3.1, 7.6.8).

Only what every event record begins with is decoded: no public source shows the rest, so it stays bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from cper.cxl_component import CxlComponent, CxlEventHeader, frame


@dataclass(frozen=True)
class CxlPhysicalSwitch(CxlComponent[CxlEventHeader], guid="77cf9271-9c02-470b-9fe4-bc7b75f2da97"):
    """An event of a physical CXL switch."""

    FRAME = frame(CxlEventHeader)


@dataclass(frozen=True)
class CxlVirtualSwitch(CxlComponent[CxlEventHeader], guid="40d26425-3396-4c4d-a5da-3d47263af425"):
    """An event of a virtual CXL switch."""

    FRAME = frame(CxlEventHeader)


@dataclass(frozen=True)
class CxlMldPort(CxlComponent[CxlEventHeader], guid="8dc44363-0c96-4710-b7bf-04bb99534c3f"):
    """An event of a port of a multi-logical device."""

    FRAME = frame(CxlEventHeader)
