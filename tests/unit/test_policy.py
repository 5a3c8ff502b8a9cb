"""The policy language: what it refuses, and how it says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_ras.deciding import Decider, Lost, View
from vmm_ras.default_policy import TEXT
from vmm_ras.errors import InputError
from vmm_ras.events import Code
from vmm_ras.policy import Policy, default_policy, load_policy

RULE = 'version = 1\n[[rule]]\nname = "all"\ndeliver = ["sea", "polled"]\n'


def message(text: str) -> str:
    with pytest.raises(InputError) as caught:
        load_policy(text, "p.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_policy_says_why_each_rule_is_there() -> None:
    policy = default_policy()

    assert [r.name for r in policy.rule] == ["consumed-in-kernel", "consumed", "found"]
    assert all(len(r.doc) > 40 for r in policy.rule)
    assert policy.findings() == []


@pytest.mark.parametrize(
    ("code", "el", "guest", "rule"),
    [
        (Code.AR, 0, "linux", "consumed"),
        (Code.AR, 1, "linux", "consumed-in-kernel"),
        (Code.AR, 1, "generic", "consumed"),
        (Code.AO, None, "linux", "found"),
    ],
)
def test_what_the_default_policy_decides(code: Code, el: int | None, guest: str, rule: str) -> None:
    policy = default_policy()

    assert policy.rule[Decider(policy).decide(Lost(code, 0x4000_0000, 12), View(guest, el=el))].name == rule


def test_rules_are_tried_in_order_by_place_and_size() -> None:
    policy = load_policy(
        "version = 1\n"
        '[[rule]]\nname = "low"\nwhen = { gpa_to = 0x8000_0000 }\naction = "ignore"\n'
        '[[rule]]\nname = "huge"\nwhen = { lsb_min = 21 }\ndeliver = ["polled"]\n'
        '[[rule]]\nname = "rest"\ndeliver = ["sea"]\n'
    )

    places = ((0, 30), (1 << 31, 21), (1 << 31, 12))
    assert [Decider(policy).decide(Lost(Code.AO, gpa, lsb), View("linux")) for gpa, lsb in places] == [
        0, 1, 2,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("version = 1\n[[rule]\n", "p.toml:2: Expected ']]'"),
        ("version = 1\nrule = [", "p.toml:2: "),
        ('a = 1\nb = "\n', "p.toml:2: "),
        (RULE.replace("1", "2"), "p.toml: version: Input should be 1"),
        (RULE + "foo = 1\n", "p.toml: rule 1 'all': foo: unknown key"),
        (RULE.replace('"sea"', '"sae"'), "p.toml: rule 1 'all': deliver.0: Input should be 'sea', 'sei'"),
        (RULE + RULE[11:], "p.toml: rule 2 'all': name: rule 1 has it already"),
        ("version = 1\n", "p.toml: rule: is missing"),
        ("version = 1\nrule = 3\n", "p.toml: rule: "),
        (
            'version = 1\n[[rule]]\nname = "x"\n',
            "p.toml: rule 1 'x': deliver: a rule that tells names at least one way",
        ),
        (RULE + 'when = { code = "AR" }\n', "p.toml: no rule decides every AO"),
        (RULE + 'when = { guest = ["hurd"] }\n', "p.toml: rule 1 'all': when: guest 'hurd' is none of linux, generic"),
        (RULE + 'when = { code = "AO", el = 1 }\n', "p.toml: rule 1 'all': when: el: an AO has no exception level"),
        (RULE + "hold_ms = -1\n", "p.toml: rule 1 'all': hold_ms: "),
        (RULE + 'hold_ms = "1"\n', "p.toml: rule 1 'all': hold_ms: "),
        (RULE + "unacked = { tries = 1000 }\n", "p.toml: rule 1 'all': unacked.tries: "),
        (RULE.replace("all", "Not a name"), "p.toml: rule 1 'Not a name': name: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_its_place(text: str, wanted: str) -> None:
    assert message(text).startswith(wanted)


def test_rules_that_are_never_reached_are_found() -> None:
    policy = load_policy(RULE + RULE[11:].replace("all", "late") + 'when = { code = "AR" }\n')

    assert policy.findings() == ["rule 2 'late' is never reached: rule 1 'all' holds first"]


def test_too_many_rules_are_refused() -> None:
    body = "".join(f'[[rule]]\nname = "r{n}"\ndeliver = ["sea"]\n' for n in range(64))

    assert "rule" in message("version = 1\n" + body)


@given(st.text(max_size=300))
def test_any_text_is_a_policy_or_one_clear_line(text: str) -> None:
    try:
        load_policy(text)
    except InputError as error:
        assert "\n" not in str(error)


@given(st.data())
def test_a_damaged_policy_is_a_policy_or_one_clear_line(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TEXT)))
    piece = data.draw(st.text(max_size=5) | st.sampled_from(["=", "[", "]]", '"', "{", "}", "\n", "1", "-"]))
    cut = data.draw(st.integers(0, 10))
    try:
        assert isinstance(load_policy(TEXT[:at] + piece + TEXT[at + cut :]), Policy)
    except InputError as error:
        assert "\n" not in str(error)


def test_deep_nesting_is_refused() -> None:
    message("a = " + "[" * 100_000)
