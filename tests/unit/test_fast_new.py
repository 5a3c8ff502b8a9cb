"""``tests/bench/new.c``: named tuples that are made of a tuple in place, and become one again when they are dropped."""

from __future__ import annotations

import gc
import importlib.util
import os
import subprocess
import sys
import sysconfig
import weakref
from typing import Any, NamedTuple

import pytest

from tests.bench.fast import ROOT, able


class Pair(NamedTuple):
    first: int
    second: Any


class WithDict(Pair):
    pass


class Slim(Pair):
    __slots__ = ()


class Late(tuple[Any, ...]):
    __slots__ = ()
    dropped = 0

    def __del__(self):
        Late.dropped += 1


class Loose(tuple[Any, ...]):
    pass


KINDS = (Pair, WithDict, Slim, Late, Loose)


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    if not able():
        pytest.skip("no C compiler or no Python.h")
    made = tmp_path_factory.mktemp("new") / f"_new{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    words = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-Wall", "-Werror", include, "-o", made]
    subprocess.run([*words, ROOT / "tests/bench/new.c"], check=True)
    spec = importlib.util.spec_from_file_location("_new", made)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.new


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_tuple_makes(new, kind):
    made = new(kind, (1, "two"))
    assert type(made) is kind
    assert made == (1, "two")
    held = (3, [4])
    assert new(kind, held) is not held
    assert type(held) is tuple


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_of_what_was_dropped(new, kind):
    mark = object()

    def use():
        for n in range(500):
            one = new(kind, (n, [mark]))
            if kind in (WithDict, Loose):
                one.more = [one, mark]
            one[1].append(one)  # the collector finds it
            new(kind, (n, new(Pair, (n, mark))))
            if issubclass(kind, Pair):
                kind(n, mark)
        del one
        gc.collect()

    use()
    before = sys.getrefcount(kind), sys.getrefcount(Pair), sys.getrefcount(mark)
    use()
    assert (sys.getrefcount(kind), sys.getrefcount(Pair), sys.getrefcount(mark)) == before


def test_what_a_class_does_in_the_end_is_done(new):
    Late.dropped = 0
    for n in range(10):
        new(Late, (n,))
    assert Late.dropped == 10


def test_deep_nesting_is_dropped(new):
    value = None
    for n in range(200_000):
        value = new(Pair, (n, value))
    del value


def test_a_class_goes_with_its_last_instance(new):
    class Brief(NamedTuple):
        only: int

    seen, one = weakref.ref(Brief), new(Brief, (1,))
    del Brief
    gc.collect()
    assert seen() is not None
    del one
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("words", [(), (Pair,), (Pair, [1, 2]), (int, (1,)), (1, (1,)), (Pair, (1, 2), 3)])
def test_what_it_refuses(new, words):
    with pytest.raises(TypeError, match="expected a class of tuples, and a tuple"):
        new(*words)
