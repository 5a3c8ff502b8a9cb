"""The half of a codec that writes bytes, as Python source: from an object, or from keyword arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cper.wire._layout import Layout

if TYPE_CHECKING:
    from cper.wire._struct import Struct


def encoder(cls: type[Struct], layout: Layout, name: str) -> str:
    """``encode(self)`` reads the object's dict, ``pack(*, ...)`` its own arguments; the rest is the same."""
    whole = {s.word: (i, s) for i, s in enumerate(layout.slots) if not s.mask}
    if name == "encode":
        out = ["def encode(self):", "    d = self.__dict__"]
    else:
        args = []
        for i, s in enumerate(layout.slots):
            required = cls.model_fields[s.name].is_required()
            args.append(s.name if required else f"{s.name}=default{i}")
        out = [f"def pack({'*, ' if args else ''}{', '.join(args)}):"]
    if layout.flags is not None:
        out.append("    v = 0")
    out.append("    try:")
    for w, (_, cell, _) in enumerate(layout.words):
        blank = "0" if not cell.fmt.endswith("s") else repr(bytes(cell.size))
        if w == layout.flags:
            pass
        elif w not in whole:
            out.append(f"        w{w} = {blank}")
        else:
            i, s = whole[w]
            get = f"d[{s.name!r}]" if name == "encode" else s.name
            dumped = f"dump{i}(x)" if s.dump else "x"
            if s.flag:
                out += [f"        x = {get}", f"        if x is None: w{w} = {blank}", "        else:"]
                out += [f"            w{w} = {dumped}", f"            v |= {s.flag:#x}"]
            elif s.dump:
                out.append(f"        w{w} = dump{i}({get})")
            else:
                out.append(f"        w{w} = {get}")
        for s in layout.slots:
            if s.word != w or not s.mask:
                continue
            get = f"d[{s.name!r}]" if name == "encode" else s.name
            target = "v" if w == layout.flags else f"w{w}"
            body = [f"if x & ~{s.mask:#x}: raise ValueError", f"{target} |= x << {s.lo}"]
            if s.flag:
                body.append(f"v |= {s.flag:#x}")
                out += [f"        x = {get}", "        if x is not None:", *[f"            {line}" for line in body]]
            else:
                out += [f"        x = {get}", *[f"        {line}" for line in body]]
    words = ", ".join("v" if w == layout.flags else f"w{w}" for w in range(len(layout.words)))
    out.append(f"        raw = pack_words({words})")
    failure = "(struct_error, TypeError, ValueError, AttributeError)"
    if name == "encode":
        out += [f"    except {failure}:", "        raise CLASS._does_not_fit(d) from None"]
        out += [
            "    residue = d['residue']",
            "    if residue is not None:",
            "        raw = CLASS._difference(raw, residue)",
        ]
    else:
        given = ", ".join(f"{s.name!r}: {s.name}" for s in layout.slots)
        out += [f"    except {failure}:", f"        raise CLASS._does_not_fit({{{given}}}) from None"]
    out.append("    return raw")
    return "\n".join(out)


__all__ = ["encoder"]
