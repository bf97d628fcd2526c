"""What monitoring reads: the output of a plugin (Nagios, Icinga), and Prometheus's text format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from cli.results import HOSTILE, NOW, THRESHOLDS, checked, faulty, result
from conftest import examples
from securesmtp._cli.check.nagios import to_nagios
from securesmtp._cli.check.plugin import usage_error
from securesmtp._cli.check.prometheus import to_prometheus
from securesmtp._cli.check.result import CheckResult
from securesmtp._cli.check.verdict import Checked

# 'label'=value[UOM];[warn];[crit];[min];[max]: https://www.monitoring-plugins.org/doc/guidelines.html
_RANGE, _NUMBER = r"(-?[0-9.]*:?[0-9.]*)", r"(-?[0-9.]*)"
DATUM = re.compile(
    rf"'((?:[^'=]|'')+)'=(-?[0-9.]+)(s|%|B|c|)(?:;{_RANGE}(?:;{_RANGE}(?:;{_NUMBER}(?:;{_NUMBER})?)?)?)?"
)


class Plugin(NamedTuple):
    """What a monitoring server reads: the first line, the lines after it, and the data by their labels."""

    first: str
    details: list[str]
    data: dict[str, tuple[str | None, ...]]


def read(output: str) -> Plugin:
    """Read a plugin's output as Nagios and Icinga do, which agree as long as all data are at the end."""
    assert output.endswith("\n")
    text, bar, data = output.rstrip("\n").partition("|")
    assert bar
    assert "|" not in data
    assert "\n" not in data
    first, *details = text.split("\n")
    matches = list(DATUM.finditer(data))
    assert " ".join(match[0] for match in matches) == data.strip()
    found = {match[1]: match.groups()[1:] for match in matches}
    assert len(found) == len(matches)
    return Plugin(first.rstrip(), details, found)


def nagios(*results: CheckResult, per_address: bool = False) -> Plugin:
    """Return what monitoring reads about *results*."""
    return read(to_nagios(checked(*results, per_address=per_address), THRESHOLDS))


def test_a_fine_server_is_one_line_with_data() -> None:
    """The verdict, what is fine in a few words, and the days left with the thresholds as ranges."""
    plugin = nagios(result())
    assert plugin.first == ("SMTP OK - smtp.example.com:465: TLSv1.3, certificate valid for 61 days, login accepted")
    assert plugin.details == []
    assert plugin.data == {
        "days_left": ("61", "", "14:", "7:", None, None),
        "time": ("0.123", "s", "", "", "0", None),
    }


def test_a_fault_has_its_fix_in_the_details() -> None:
    """The cause is in the first line, which notifications quote."""
    plugin = nagios(faulty())
    assert plugin.first == "SMTP CRITICAL - smtp.example.com:465: the certificate is not signed by a trusted CA"
    assert [line.strip() for line in plugin.details] == ["Fix: pass the root of your CA", 'ca_file="corp-ca.pem"']
    plugin = nagios(faulty(level="warning", days=9))
    assert plugin.first.startswith("SMTP WARNING - smtp.example.com:465: the certificate is not signed by a trusted CA")
    assert plugin.first.endswith("(and 1 more)")
    assert "warning: the certificate expires in 9 days" in plugin.details[2]


def test_several_servers_have_one_verdict_and_data_of_their_own() -> None:
    """The worst verdict counts, the worst server comes first, and labels name the server."""
    plugin = nagios(result(host="a.example"), faulty(host="b.example"), result(host="c.example", days=8))
    assert plugin.first == "SMTP CRITICAL - 3 checked: 1 with a fault, 1 with a warning, 1 fine"
    assert [line.split()[:2] for line in plugin.details if line.startswith("[")] == [
        ["[CRITICAL]", "b.example:465:"],
        ["[WARNING]", "c.example:465:"],
        ["[OK]", "a.example:465:"],
    ]
    assert {label: values[0] for label, values in plugin.data.items()} == {
        "a.example:465 days_left": "61",
        "a.example:465 time": "0.123",
        "b.example:465 days_left": "61",
        "b.example:465 time": "0.123",
        "c.example:465 days_left": "8",
        "c.example:465 time": "0.123",
    }


def test_what_is_not_known_is_not_in_the_data() -> None:
    """A word as a value breaks parsers (PITFALLS-2 L18)."""
    assert set(nagios(faulty(chain=())).data) == {"time"}


def test_an_ipv6_address_is_not_taken_for_a_group() -> None:
    """Icinga takes ``::`` in a label for the end of a group's name, and puts that before the labels that follow."""
    plugin = nagios(
        result(host="::1", address="::1"), result(host="a.example", address="2001:db8::1"), per_address=True
    )
    assert not [label for label in plugin.data if "::" in label]
    assert "0000:0000:0000:0000:0000:0000:0000:0001:465 time" in plugin.data
    assert "a.example:465 2001:0db8:0000:0000:0000:0000:0000:0001 time" in plugin.data
    assert "a.example:465 192.0.2.1 time" in nagios(result(host="a.example"), result(), per_address=True).data
    assert "a.example:465 time" in nagios(result(host="a.example", address=None), result(), per_address=True).data


@pytest.mark.parametrize("days", [-3000, -1, 0, 1, 12345])
def test_numbers_are_plain(days: int) -> None:
    """No thousands separator, no exponent, no unit for days, no blank round the equals sign (PITFALLS-2 L18)."""
    plugin = nagios(result(days=days, elapsed=timedelta(seconds=1234.5678)))
    assert plugin.data["days_left"][:2] == (str(min(days, 900)), "")
    assert plugin.data["time"][:2] == ("1234.568", "s")


@given(st.text(max_size=300))
@settings(max_examples=examples(200))
def test_no_text_of_a_server_becomes_data(text: str) -> None:
    """Whatever it says, a ``|`` and a line end among it, the first line and the data are ours (PITFALLS-2 L18)."""
    plugin = nagios(faulty(cause=text or "?"), faulty(host="b.example", cause=text or "?"))
    assert plugin.first == "SMTP CRITICAL - 2 checked: 2 with a fault"
    assert len(plugin.details) == 6
    assert len(plugin.data) == 4


def test_a_hostile_text_is_one_line() -> None:
    """Its escapes do not reach the terminal or the web page."""
    plugin = nagios(faulty(cause=HOSTILE))
    assert plugin.first == (
        r"SMTP CRITICAL - smtp.example.com:465: [bold]a/b=1;2 'c'\x1b[31m\x07\r\nSMTP OK - fine\u202e"
    )
    assert usage_error(HOSTILE).count("\n") == 1
    assert "|" not in usage_error(HOSTILE)


def test_many_servers_do_not_push_the_data_out() -> None:
    """Nagios reads 8 KiB, and the data are at the end."""
    results = [faulty(host=f"a{number}.example", cause="long " * 100) for number in range(40)]
    output = to_nagios(checked(*results), THRESHOLDS)
    plugin = read(output)
    assert len(output.encode()) < 8192
    assert len(plugin.data) == 80
    assert plugin.details[-1] == "and 105 more lines; run the command in a terminal "


def prometheus(results: Sequence[Checked]) -> dict[str, Metric]:
    """Return what Prometheus's own parser reads."""
    text = to_prometheus(results, NOW)
    assert text.endswith("\n")
    names = re.findall(r"^# TYPE (\S+) gauge$", text, re.MULTILINE)
    # The parser accepts a metric twice, and the node exporter does not.
    assert len(set(names)) == len(names) == text.count("# TYPE") == text.count("# HELP")
    families = list(text_string_to_metric_families(text))
    assert [family.name for family in families] == names
    return {family.name.removeprefix("securesmtp_check_"): family for family in families}


def test_prometheus_reads_each_metric() -> None:
    """HELP and TYPE once each, a value for each server, labels that say which (PITFALLS-2 L19)."""
    found = prometheus(checked(result(), faulty(host="b.example", chain=()), result(host="c.example", days=3)))
    values = {
        name: {sample.labels.get("host", ""): sample.value for sample in family.samples}
        for name, family in found.items()
    }
    end = NOW.timestamp() + 61 * 86400
    assert values == {
        "up": {"smtp.example.com": 1, "b.example": 0, "c.example": 1},
        "status": {"smtp.example.com": 0, "b.example": 2, "c.example": 2},
        "certificate_expiry_timestamp_seconds": {"smtp.example.com": end, "c.example": end - 58 * 86400},
        "login_accepted": {"smtp.example.com": 1, "c.example": 1},
        "round_trips": {"smtp.example.com": 2, "c.example": 2},
        "duration_seconds": dict.fromkeys(["smtp.example.com", "b.example", "c.example"], 0.123457),
        "last_run_timestamp_seconds": {"": NOW.timestamp()},
    }
    assert {sample.timestamp for family in found.values() for sample in family.samples} == {None}


def test_when_it_ran_is_said_on_failure_too() -> None:
    """So that a job that has stopped looks otherwise than a server that is down (PITFALLS-2 L19)."""
    found = prometheus(checked(faulty(chain=())))
    assert [sample.value for sample in found["last_run_timestamp_seconds"].samples] == [NOW.timestamp()]
    assert [sample.value for sample in found["up"].samples] == [0]


def test_each_series_is_there_once() -> None:
    """Two samples with the same labels make Prometheus refuse the file."""
    same = [result(address="192.0.2.1"), result(address="192.0.2.2"), result(tls="starttls")]
    for family in prometheus(checked(*same, per_address=True)).values():
        labels = [tuple(sorted(sample.labels.items())) for sample in family.samples]
        assert len(set(labels)) == len(labels)
    (first,) = prometheus(checked(result(address=None), per_address=True))["up"].samples
    assert first.labels == {"host": "smtp.example.com", "port": "465", "tls": "implicit", "address": ""}


@given(st.text(max_size=100))
@example('\\n"\n\\')
@settings(max_examples=examples(200))
def test_any_label_is_read_as_it_was_written(host: str) -> None:
    """A quote, a backslash and a line end are escaped."""
    (sample,) = prometheus(checked(result(host=host)))["up"].samples
    assert sample.labels["host"] == host


def test_a_login_that_was_refused_is_zero() -> None:
    """And none is absent, so that an alert on zero is about logins."""
    found = result()
    assert found.report is not None
    for login, expected in ((True, [1]), (False, [0]), (None, [])):
        report = replace(found.report, login=login)
        samples = prometheus(checked(result(report=report)))["login_accepted"].samples
        assert [sample.value for sample in samples] == expected
