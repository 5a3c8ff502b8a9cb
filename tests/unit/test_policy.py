"""The policy language: what it refuses, and how it says so."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm_ras.deciding import Decider, Hook, Lost, View, digest
from vmm_ras.default_policy import TEXT
from vmm_ras.errors import InputError
from vmm_ras.events import Code
from vmm_ras.io.hook_file import load_hook
from vmm_ras.policy import Policy, Rate, Rule, When, default_policy, load_policy
from vmm_ras.policy_check import minus, region
from vmm_ras.profiles import PROFILES, GuestProfile

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


@pytest.mark.parametrize("guest", PROFILES.values(), ids=list(PROFILES))
def test_no_record_is_left_to_a_guest_that_does_not_look_for_one_in_its_kernel(guest: GuestProfile) -> None:
    policy = default_policy()
    rule = policy.rule[Decider(policy).decide(Lost(Code.AR, 0x4000_0000, 12), View(guest.name, el=1))]

    assert (rule.action == "bare") is not guest.claims_sea_at_el1


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
        (RULE + "delivr = []\n", "p.toml: rule 1 'all': delivr: unknown key; did you mean 'deliver'?"),
        (RULE.replace("[[rule]]", "[[rules]]"), "p.toml: rules: unknown key; did you mean 'rule'? (and 1 more)"),
        (RULE + 'when = { guest = "linux" }\n', "p.toml: rule 1 'all': when.guest: Input should be a list"),
        (RULE.replace('"sea"', '"sae"'), "p.toml: rule 1 'all': deliver.0: Input should be 'sea', 'sei'"),
        (RULE + RULE[11:], "p.toml: rule 2 'all': name: rule 1 has it already"),
        ("version = 1\n", "p.toml: rule: is missing"),
        ("version = 1\nrule = 3\n", "p.toml: rule: "),
        (
            'version = 1\n[[rule]]\nname = "x"\n',
            "p.toml: rule 1 'x': deliver: a rule that tells names at least one way",
        ),
        (RULE + 'when = { code = "AR" }\n', "p.toml: no rule decides every AO"),
        (
            RULE + 'when = { guest = ["hurd"] }\n',
            "p.toml: rule 1 'all': when: guest 'hurd' is none of linux, linux-6.1",
        ),
        *(
            (RULE + f"when = {{ {key} = [] }}\n", f"p.toml: rule 1 'all': when.{key}: ")
            for key in ("guest", "vcpu", "open")
        ),
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


# -- deciding, explaining, comparing -------------------------------------------------------------

WAYS = ("sea", "sei", "sdei", "gsiv", "gpio", "polled")
WHENS = st.fixed_dictionaries(
    {},
    optional={
        "code": st.sampled_from(["AR", "AO"]),
        "el": st.integers(0, 1),
        "guest": st.lists(st.sampled_from(["linux", "generic"]), min_size=1, max_size=2).map(tuple),
        "lsb_min": st.integers(10, 14),
        "lsb_max": st.integers(10, 14),
        "gpa_from": st.integers(0, 4),
        "gpa_to": st.integers(1, 5),
        "thread": st.sampled_from(["vcpu", "other"]),
        "vcpu": st.lists(st.integers(0, 2), min_size=1, max_size=2).map(tuple),
        "masked": st.booleans(),
        "serror": st.booleans(),
        "open": st.lists(st.sampled_from(WAYS[:3]), min_size=1, max_size=2).map(tuple),
        "closed": st.lists(st.sampled_from(WAYS[:3]), min_size=1, max_size=2).map(tuple),
        "seen_min": st.integers(0, 3),
        "seen_max": st.integers(0, 3),
        "lost_min": st.integers(1, 3),
        "rate": st.builds(Rate, events=st.integers(2, 3), seconds=st.sampled_from([1.0, 2.0])),
    },
)


@st.composite
def whens(draw: st.DrawFn) -> When:
    try:
        return When(**draw(WHENS))
    except ValueError:
        return When()


@st.composite
def cases(draw: st.DrawFn) -> tuple[Lost, View]:
    code = draw(st.sampled_from(list(Code)))
    lost = Lost(
        code, draw(st.integers(-1, 5)), draw(st.integers(10, 14)),
        "vcpu" if code == Code.AR else draw(st.sampled_from(["vcpu", "other"])),
    )  # fmt: skip
    spans = draw(st.tuples(st.sampled_from([0.5, 1.5, 9.0]), st.sampled_from([1.5, 9.0])))
    consumed = code == Code.AR
    view = View(
        draw(st.sampled_from(["linux", "generic"])),
        frozenset(draw(st.sets(st.sampled_from(WAYS[:3])))),
        draw(st.integers(0, 3)),
        draw(st.integers(0, 4)),
        lambda n: spans[0] if n == 2 else max(spans),
        draw(st.integers(0, 2)) if consumed else None,
        draw(st.integers(0, 1)) if consumed else None,
        draw(st.booleans()) if consumed else None,
        draw(st.booleans()) if consumed else None,
    )
    return lost, view


def rules_of(*conditions: When) -> Policy:
    made = [Rule(name=f"r{n}", when=when, action="ignore") for n, when in enumerate(conditions)]
    return Policy(version=1, rule=(*made, Rule(name="rest", action="ignore")))


def holds(when: When, lost: Lost, view: View) -> bool:
    """The conditions in the words of their documentation, written without the expressions that the product uses."""
    word = {"AR": Code.AR, "AO": Code.AO}
    checks = [
        when.code is None or word[when.code] is lost.code,
        when.el is None or when.el == view.el,
        when.guest is None or any(view.guest == g or view.guest.startswith(g + "-") for g in when.guest),
        when.lsb_min is None or when.lsb_min <= lost.lsb,
        when.lsb_max is None or when.lsb_max >= lost.lsb,
        when.gpa_from is None or when.gpa_from <= lost.gpa,
        when.gpa_to is None or (lost.gpa != -1 and when.gpa_to > lost.gpa),
        when.thread is None or when.thread == lost.thread,
        when.vcpu is None or (view.vcpu is not None and view.vcpu in set(when.vcpu)),
        when.masked is None or when.masked == view.masked,
        when.serror is None or when.serror == view.serror,
        when.open is None or set(when.open).issubset(view.open),
        when.closed is None or set(when.closed).isdisjoint(view.open),
        when.seen_min is None or when.seen_min <= view.seen,
        when.seen_max is None or when.seen_max >= view.seen,
        when.lost_min is None or when.lost_min <= view.lost,
        when.rate is None or view.span(when.rate.events) <= when.rate.seconds,
    ]
    return all(checks)


@given(st.lists(whens(), max_size=5), cases())
def test_the_first_rule_that_holds_decides_and_the_explanation_agrees(
    conditions: list[When], case: tuple[Lost, View]
) -> None:
    decider = Decider(rules_of(*conditions))
    wanted = next((n for n, when in enumerate(conditions) if holds(when, *case)), len(conditions))

    assert decider.decide(*case) == wanted
    tried = decider.explain(*case)
    assert [name for name, _ in tried] == [rule.name for rule in decider.rules[: wanted + 1]]
    assert [reason == "" for _, reason in tried] == [False] * wanted + [True]


@given(st.lists(whens(), min_size=1, max_size=5), cases())
def test_what_covers_holds_too_and_what_is_never_reached_never_decides(
    conditions: list[When], case: tuple[Lost, View]
) -> None:
    policy = rules_of(*conditions)
    held = [n for n, when in enumerate(conditions) if holds(when, *case)]
    for two in held:
        assert all(one in held for one in range(len(conditions)) if conditions[one].covers(conditions[two]))
        for one in held:
            assert minus(region(conditions[one]), region(conditions[two])) != [region(conditions[one])]
    if held:
        assert not any(found.startswith(f"rule {held[0] + 1} ") for found in policy.findings())


@given(whens())
def test_everything_covers_itself(one: When) -> None:
    assert one.covers(one)
    assert When().covers(one)


def check(*rules: tuple[str, str]) -> tuple[list[str], list[str]]:
    """Findings and overlaps of rules a, b, c that differ in what they do."""
    text = "version = 1\n"
    for name, (when, does) in zip("abcde", rules, strict=False):
        text += f'[[rule]]\nname = "{name}"\nwhen = {{ {when} }}\n{does}\n'
    policy = load_policy(text)
    return policy.findings(), policy.overlaps()


IGNORE, STOP, TELL = 'action = "ignore"', 'action = "stop"', 'deliver = ["sea", "polled"]'


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("gpa_to = 0x8000", "gpa_from = 0x8000, gpa_to = 0x10000", "gpa_from = 0x4000, gpa_to = 0xC000"),
        ("lsb_max = 15", "lsb_min = 16", "lsb_min = 12, lsb_max = 21"),
        ("vcpu = [0, 1]", "vcpu = [2, 3]", "vcpu = [1, 2]"),
        ("masked = true", "masked = false", 'code = "AR", el = 1'),
        ('open = ["sdei"]', 'closed = ["sdei"]', 'code = "AO"'),
        ("seen_max = 1", "seen_min = 2", "seen_min = 1, seen_max = 4"),
        ('guest = ["linux-6.1"]', 'guest = ["linux-7.2"]', 'guest = ["linux-6.1", "linux-7.2"]'),
        ('code = "AR"', 'code = "AO", lsb_max = 20', "lsb_max = 14"),
    ],
)
def test_a_rule_that_two_together_cover_is_never_reached(first: str, second: str, both: str) -> None:
    wanted = ["rule 3 'c' is never reached: rule 1 'a' and rule 2 'b' hold first"]

    assert check((first, TELL), (second, TELL), (both, IGNORE), ("", STOP))[0][:1] == wanted


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ("gpa_to = 0x8000", "gpa_from = 0x8001", "gpa_from = 0x4000, gpa_to = 0xC000"),
        ("gpa_to = 0x8000", "gpa_from = 0x8000", 'code = "AR"'),  # not where the address is not known
        ("el = 0", "el = 1", 'code = "AR"'),  # a guest hypervisor runs at EL2
        ("rate = { events = 5, seconds = 1 }", "rate = { events = 4, seconds = 0.5 }", "lost_min = 2"),
        ('open = ["sdei", "gsiv"]', 'closed = ["sdei", "gsiv"]', 'code = "AO"'),
    ],
)
def test_a_rule_of_which_two_leave_something_is_reached(first: str, second: str, both: str) -> None:
    assert check((first, TELL), (second, TELL), (both, IGNORE), ("", STOP))[0] == []


def test_an_address_that_is_not_known_lies_in_no_range() -> None:
    assert check(("gpa_from = 0", TELL), ("", STOP))[0] == []
    assert "no rule decides every AR" in message(RULE + "when = { gpa_from = 0 }\n")
    assert "gpa_to" in message(RULE + "when = { gpa_to = 0 }\n")


def test_rules_that_decide_everything_together_are_enough() -> None:
    assert check(("lsb_max = 15", TELL), ("lsb_min = 16", STOP)) == ([], [])


@pytest.mark.parametrize("key", ["el = 1", "vcpu = [1]", "masked = true", "serror = false"])
def test_what_only_a_consumed_error_has_is_about_no_other(key: str) -> None:
    assert check((key, IGNORE), ('code = "AO"', STOP), ("", TELL))[1] == []
    assert check((key, IGNORE), ('thread = "vcpu"', STOP), ("", TELL))[1] == []


@pytest.mark.parametrize("thread", ["vcpu", "other"])
@pytest.mark.parametrize("arrived", ["vcpu", "other"])
def test_whose_thread_it_was_is_asked_of_found_errors_only(thread: str, arrived: Literal["vcpu", "other"]) -> None:
    assert check((f'thread = "{thread}"', IGNORE), ('code = "AR"', STOP), ("", TELL))[1] == []
    text = f'version = 1\n[[rule]]\nname = "x"\nwhen = {{ thread = "{thread}" }}\naction = "ignore"\n{RULE[11:]}'
    decider = Decider(load_policy(text))

    assert decider.decide(Lost(Code.AR, 0x1000, 12, arrived), View("linux", el=0)) == 1
    assert decider.decide(Lost(Code.AO, 0x1000, 12, arrived), View("linux")) == (arrived != thread)


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ('code = "AR"', "code = AR, but code is AO"),
        ("gpa_from = 0x5000", "gpa_from = 0x5000, but gpa is 0x1000"),
        ("lsb_min = 16", "lsb_min = 16, but lsb is 12"),
        ("masked = true", "code = AR, but code is AO"),
        ('open = ["sdei"]', "open = sdei, but open: polled"),
        ('closed = ["polled"]', "closed = polled, but open: polled"),
        ("rate = { events = 5, seconds = 60 }", "rate = 5 in 60 s, but there were fewer"),
        ("rate = { events = 2, seconds = 1 }", "rate = 2 in 1 s, but the last 2 took 3 s"),
        ('guest = ["generic"]', "guest = generic, but guest is linux"),
    ],
)
def test_an_explanation_says_what_was_asked_and_what_was_found(when: str, reason: str) -> None:
    text = f'version = 1\n[[rule]]\nname = "x"\nwhen = {{ {when} }}\naction = "ignore"\n{RULE[11:]}'
    view = View("linux", frozenset({"polled"}), span=lambda n: 3.0 if n == 2 else float("inf"))

    assert Decider(load_policy(text)).explain(Lost(Code.AO, 0x1000, 12), view)[0] == ("x", reason)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ('when = { code = "AO" }\ndeliver = ["sea"]', "an SEA needs a vCPU"),
        ('when = { lsb_min = 13 }\ndeliver = ["sea"]', "an SEA needs a vCPU"),
        ('when = { guest = ["linux"] }\ndeliver = ["sei"]', "it delivers by sei, of which linux takes none"),
        (
            'when = { guest = ["linux-6.1", "no-apei"], open = ["sei"] }\naction = "stop"',
            "it holds only while sei is open, which linux-6.1, no-apei never takes",
        ),
        ('when = { closed = ["gsiv"] }\ndeliver = ["gsiv"]', "it delivers by gsiv, and holds only while it is closed"),
        ('when = { code = "AR" }\ndeliver = ["sea"]\nbatch_ms = 5', "batch_ms: "),
        ('when = { lsb_max = 12 }\ndeliver = ["polled"]\nlarge = "touch"', "large: "),
        ('action = "ignore"\nreport = "first"', "report: action 'ignore' tells the guest nothing"),
    ],
)
def test_rules_that_contradict_themselves_are_found(body: str, wanted: str) -> None:
    text = f'version = 1\n[[rule]]\nname = "x"\n{body}\n'
    if "when" in body:
        text += RULE[11:]

    (finding,) = load_policy(text).findings()

    assert finding.startswith(f"rule 1 'x' contradicts itself: {wanted}")


def test_the_hosts_own_syndrome_has_a_short_word() -> None:
    short = load_policy(RULE + 'syndrome = "relay"\nsea = { set = "ueo" }\n')

    assert digest(short) == digest(load_policy(RULE + 'sea = { set = "ueo", relay = true }\n'))
    assert load_policy(RULE + 'syndrome = "relay"\n').rule[0].sea.relay
    for wrong in ('syndrome = "made"\n', 'syndrome = "relay"\nsea = 3\n', "syndrome = []\n"):
        assert message(RULE + wrong).startswith("p.toml: rule 1 'all': syndrome: expected \"relay\"")


def test_overlaps_are_told_where_neither_rule_covers_the_other() -> None:
    text = (
        'version = 1\n[[rule]]\nname = "low"\nwhen = { gpa_to = 0x8000 }\naction = "ignore"\n'
        '[[rule]]\nname = "large"\nwhen = { lsb_min = 21 }\naction = "stop"\n'
        '[[rule]]\nname = "apart"\nwhen = { gpa_from = 0x8000, lsb_max = 20 }\naction = "migrate"\n'
    )

    assert load_policy(text + RULE[11:]).overlaps() == [
        "rules 1 'low' and 2 'large' overlap: where both hold, the first decides"
    ]


def test_a_policy_is_known_by_all_that_it_says() -> None:
    one, two = load_policy(RULE), load_policy(RULE + "hold_ms = 1999\n")
    hook = Hook(lambda lost, view: None, "ab")

    assert digest(one) == digest(load_policy("# a comment\n" + RULE))
    assert len({digest(one), digest(two), digest(one, hook), digest(one, hook._replace(digest="ac"))}) == 4


def test_a_hook_is_loaded_from_a_file_and_known_by_its_source(tmp_path: Path) -> None:
    file = tmp_path / "hook.py"
    file.write_text('def decide(lost, view):\n    return "all" if lost.lsb > 12 else None\n')

    hook = load_hook(file)

    assert hook.decide(Lost(Code.AO, 0, 21), View("linux")) == "all"
    assert hook.digest == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("def decide(:\n", ":1: "),
        ("\nimport nowhere_at_all\n", ":2: ModuleNotFoundError: "),
        ("x = 1\n", ": expected a function decide(lost, view)"),
        ("raise ValueError('a\\nb')\n", ":1: ValueError: a"),
    ],
)
def test_a_hook_that_cannot_be_loaded_is_one_line(tmp_path: Path, source: str, wanted: str) -> None:
    file = tmp_path / "hook.py"
    file.write_text(source)

    with pytest.raises(InputError) as caught:
        load_hook(file)
    assert str(caught.value).startswith(f"{file}{wanted}")
    assert "\n" not in str(caught.value)
