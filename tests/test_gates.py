"""Gate files and profiles: what they may say, and one clear line for each mistake."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from trueprune._support.errors import AuditError
from trueprune.audits.context import AuditSettings
from trueprune.audits.instruments import INSTRUMENTS
from trueprune.audits.metrics import metrics_meant, places_of
from trueprune.reports import gates
from trueprune.reports.gates import PROFILES, Check, Gate, check_gate, profile, profile_text, read_gate
from trueprune.texts.tasks.questions import TaskOptions

GOOD = """
name = "release"
inconclusive = "pass"

[[check]]
instrument = "perplexity"
metric = "perplexity"
ratio_at_most = 1.15
reason = "Texts read as before."

[[check]]
instrument = "accuracy"
metric = "accuracy/*"
change_at_least = -0.02
change_at_most = 1
inconclusive = "fail"
"""


def check(*lines, instrument="accuracy", metric="accuracy/facts"):
    return "\n".join(["[[check]]", f'instrument = "{instrument}"', f'metric = "{metric}"', *lines])


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        (tmp_path / "mine.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_gate(tmp_path / "mine.toml")

    return read_text


def test_a_gate_is_read(read):
    assert read(GOOD) == Gate(
        "release",
        (
            Check("perplexity", "perplexity", "ratio", None, 1.15, "Texts read as before."),
            Check("accuracy", "accuracy/*", "change", -0.02, 1.0, "", "fail"),
        ),
        "pass",
    )
    assert read(GOOD).instruments == ("perplexity", "accuracy")


def test_what_a_gate_does_not_say(read):
    gate = read(b"\xef\xbb\xbf" + check("value_at_least = 0").encode())
    assert (gate.name, gate.inconclusive) == ("mine", "fail")
    assert gate.checks == (Check("accuracy", "accuracy/facts", "value", 0.0, None),)


def test_a_name_cannot_steer_a_terminal(read):
    assert read('name = "a\\u001b[31m\\nb"\n' + check("value_at_least = 0")).name == "a\ufffd[31m b"


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("", "", "holds no check.*Add a bound"),
        ("check = []", "", "holds no check"),
        ("[check]\ninstrument = 'accuracy'", ", check", r"a table of its own.*\[\[check\]\]"),
        ("check = [1]", ", check", "a table of its own"),
        ("check = = 1", "", "is no TOML .*line 1"),
        (b"name = '\xff'", "", "is not UTF-8 .*byte 8"),
        ("x" * 100 + " = 1\n" + check("value_at_least = 0"), ", x{55}\\.\\.\\.", "unknown key.*Known are name"),
        ("checks = 1", ", checks", "unknown key.*Did you mean check?"),
        ("name = 1\n" + check("value_at_least = 0"), ", name", "1 is no text"),
        ("inconclusive = 'maybe'\n" + check("value_at_least = 0"), ", inconclusive", "'maybe' is unknown.*\"fail\" or"),
        ("inconclusive = []\n" + check("value_at_least = 0"), ", inconclusive", r"\[\] is unknown"),
        (check("value_at_last = 0"), ", check 1, value_at_last", "unknown key.*Did you mean value_at_least?"),
        ("[[check]]\nmetric = 'perplexity'\nvalue_at_most = 9", ", check 1, instrument", "is missing"),
        ("[[check]]\ninstrument = 'perplexity'\nvalue_at_most = 9", ", check 1, metric", "is missing"),
        (check("value_at_least = 0", metric=" "), ", check 1, metric", "is missing"),
        (check("inconclusive = true", "value_at_least = 0"), ", check 1, inconclusive", "True is unknown"),
        (check("reason = 3", "value_at_least = 0"), ", check 1, reason", "3 is no text"),
        (check(), ", check 1", "there is no bound.*value_at_least, value_at_most, change_at_least"),
        (
            check("value_at_least = 0.5", "change_at_least = -0.1"),
            ", check 1, change_at_least",
            "value_at_least and change_at_least bound two quantities.*two checks",
        ),
        (check("change_at_least = 0.1", "change_at_most = -0.1"), ", check 1, change_at_least", "0.1 is above .*-0.1"),
        (check("value_at_least = '0.5'"), ", check 1, value_at_least", "'0.5' is no finite number"),
        (check("value_at_least = nan"), ", check 1, value_at_least", "nan is no finite number"),
        (check("value_at_most = inf"), ", check 1, value_at_most", "inf is no finite number"),
        (check("value_at_least = 1" + "0" * 400), ", check 1, value_at_least", r"1000.*\.\.\.0 is no finite number"),
        (
            check("value_at_least = 0x1" + "0" * 9000),
            ", check 1, value_at_least",
            "a number of more digits .* is no finite",
        ),
        (check("value_at_least = 1" + "0" * 9000), "", "is no TOML .*4300 digits"),
        (check("value_at_least = true"), ", check 1, value_at_least", "True is no finite number"),
        (check("value_at_least = [0.5]"), ", check 1, value_at_least", r"\[0.5\] is no finite number"),
        (
            check("value_at_least = 0", instrument="acuracy"),
            ", check 1, instrument",
            "'acuracy'.*Did you mean accuracy?.*perplexity",
        ),
        (check("value_at_least = 0", instrument="speed of it all"), ", check 1, instrument", "Use one of perplexity"),
        (
            check("value_at_least = 0") + "\n" + check("value_at_least = 0", metric="acuracy/*"),
            ", check 2, metric",
            r"accuracy yields no metric 'acuracy/\*'.*Did you mean accuracy/\*?",
        ),
        (check("value_at_least = 0", metric="mc1/general"), ", check 1, metric", "It is one of truthfulness"),
        (check("value_at_least = 0", metric="?"), ", check 1, metric", "It yields accuracy/{task}"),
        (check("value_at_least = 0", metric="a" * 300), ", check 1, metric", "a name of 300 letters"),
        (check("value_at_least = 70"), ", check 1, value_at_least", "70 bounds nothing.*0 and 1.*2 % is 0.02"),
        (check("change_at_least = -2"), ", check 1, change_at_least", "-2 bounds nothing.*-1 and 1"),
        (check("ratio_at_least = -0.1"), ", check 1, ratio_at_least", "-0.1 bounds nothing.*never below 0"),
        (
            check("value_at_most = 0.5", instrument="perplexity", metric="perplexity"),
            ", check 1, value_at_most",
            "0.5 bounds nothing.*never below 1.*Give a bound within",
        ),
        (
            check("ratio_at_most = 1", instrument="calibration", metric="overconfidence/facts"),
            ", check 1",
            r"overconfidence/\{task\} may be negative",
        ),
        (
            check("change_at_least = 0", instrument="faithfulness", metric="same-option/facts"),
            ", check 1",
            r"same-option/\{task\} compares the pruned model.*Bound its value",
        ),
    ],
)
def test_every_mistake_is_one_clear_line(read, tmp_path, text, place, problem):
    with pytest.raises(AuditError) as error:
        read(text)
    said = str(error.value)
    assert said.startswith(str(tmp_path / "mine.toml"))
    assert re.match(f"{place}.*{problem}", said.removeprefix(str(tmp_path / "mine.toml")), re.DOTALL), said
    assert len(said.splitlines()) == 1
    assert len(said) < 500
    assert error.value.remedy


def test_files_that_are_none(tmp_path):
    with pytest.raises(AuditError, match=r"strict does not exist\. .*--profile"):
        read_gate("strict")
    with pytest.raises(AuditError, match="is a folder"):
        read_gate(tmp_path)
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(AuditError, match="is no TOML"):
        read_gate(tmp_path / "deep.toml")


# Before a model is loaded


def held(*checks, **options):
    return Gate("g", checks, **options)


def test_an_instrument_that_will_not_run_is_refused():
    gate = held(
        Check("perplexity", "perplexity", "value", None, 9.0), Check("accuracy", "accuracy/facts", "value", 0.5)
    )
    check_gate(gate, ["accuracy", "perplexity"])
    with pytest.raises(
        AuditError, match=r"gate g, check 2, instrument: accuracy is not measured\. .*perplexity accuracy"
    ):
        check_gate(gate, ["perplexity"])


def test_a_gate_that_was_not_read_from_a_file_is_checked_alike():
    with pytest.raises(AuditError, match="the gate g has no check"):
        check_gate(held(), INSTRUMENTS)
    for wrong, problem in (
        (Check("speed", "x", "value", 0.0), "unknown instrument 'speed'"),
        (Check("accuracy", "acuracy/facts", "value", 0.0), "Did you mean accuracy/facts"),
        (Check("accuracy", "accuracy/facts", "value"), "there is no bound"),
        (Check("accuracy", "accuracy/facts", "value", 0.9, 0.1), "0.9 is above"),
        (Check("accuracy", "accuracy/facts", "value", float("nan")), "no finite number"),
    ):
        with pytest.raises(AuditError, match=f"^gate g, check 1.*{problem}"):
            check_gate(held(wrong), INSTRUMENTS)


def test_what_the_options_do_not_ask_is_refused():
    gate = held(Check("accuracy", "accuracy/boolq", "value", 0.5))
    check_gate(gate, INSTRUMENTS)
    check_gate(gate, INSTRUMENTS, settings=AuditSettings(answering=TaskOptions(tasks=("facts", "boolq"))))
    with pytest.raises(AuditError, match=r"check 1, metric: 'accuracy/boolq' will not be measured.*--tasks"):
        check_gate(gate, INSTRUMENTS, settings=AuditSettings())


def test_without_a_pruned_model_there_is_no_change():
    check_gate(held(Check("accuracy", "accuracy/facts", "value", 0.5)), INSTRUMENTS, pruned=False)
    for quantity in ("change", "ratio"):
        gate = held(Check("accuracy", "accuracy/facts", quantity, 0.0))
        check_gate(gate, INSTRUMENTS)
        with pytest.raises(AuditError, match=f"a {quantity} is of a pruned model"):
            check_gate(gate, INSTRUMENTS, pruned=False)


# Profiles


def test_profiles_grow_more_lenient():
    read = [profile(name) for name in PROFILES]
    assert [gate.name for gate in read] == ["strict", "balanced", "lenient"]
    assert [gate.inconclusive for gate in read] == ["fail", "fail", "pass"]
    for stricter, laxer in pairwise(read):
        for one, other in zip(stricter.checks, laxer.checks, strict=True):
            assert (one.instrument, one.metric, one.quantity) == (other.instrument, other.metric, other.quantity)
            assert (one.at_least, other.at_most) == (None, other.at_most) or one.at_least > other.at_least
            assert (one.at_most, other.at_least) == (None, other.at_least) or one.at_most < other.at_most


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_say_why_and_bound_what_an_audit_asks_by_default(name):
    gate = profile(name)
    check_gate(gate, gate.instruments, settings=AuditSettings())
    for one in gate.checks:
        assert len(one.reason.split()) > 8
        assert metrics_meant(one.instrument, one.metric, places_of(AuditSettings()))
    assert {"perplexity", "lie-detection", "accuracy", "calibration", "truthfulness", "open-qa"} == set(
        gate.instruments
    )


def test_a_profile_can_be_copied_and_changed(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(profile_text("balanced").replace('"balanced"', '"mine"'))
    assert (read_gate(file).name, read_gate(file).checks) == ("mine", profile("balanced").checks)


def test_an_unknown_profile():
    with pytest.raises(AuditError, match=r"there is no profile 'stric'\. Did you mean strict\?"):
        profile("stric")
    with pytest.raises(AuditError, match=r"no profile '\.\./strict'\. Use one of|Did you mean"):
        profile("../strict")


def test_the_room_has_what_it_lists():
    assert all(getattr(gates, name) is not None for name in gates.__all__)
    with pytest.raises(AttributeError, match="no attribute 'judgement'"):
        gates.judgement  # noqa: B018
