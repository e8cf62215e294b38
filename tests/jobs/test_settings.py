from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.settings import Settings, load_settings, parse_settings, settings_for_record, settings_hash
from reconcile.errors import SettingsError

SHIPPED = Path(__file__).parents[2] / "config.yaml"


def faults_of(values: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        parse_settings(values)
    return str(caught.value)


def load_text(tmp_path: Path, text: str | bytes, environment: dict[str, str] | None = None) -> Settings:
    file = tmp_path / "config.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_settings(file, environment or {})


def test_the_shipped_file_states_every_setting_with_its_default() -> None:
    assert load_settings(SHIPPED, {}) == Settings()
    written = yaml.safe_load(SHIPPED.read_text())
    written["merchants"][0]["api_key_file"] = None  # stands in a comment, since a merchant has one or the other
    assert written == settings_for_record(Settings())


def test_defaults_are_the_published_ones() -> None:
    settings = Settings()
    assert [(m.name, m.api_key_env, m.api_key_file, m.mode) for m in settings.merchants] == [
        ("main", "STRIPE_API_KEY", None, None)
    ]
    assert settings.relink.reasons == ("inactive", "expiring", "account_number", "permissions")
    assert (settings.relink.cooldown_days, settings.relink.max_attempts, settings.relink.pending_days) == (4, 4, 7)
    assert (settings.stripe.endpoint_requests_per_second, settings.stripe.max_attempts) == (20.0, 6)
    assert (settings.brakes.minimum, settings.brakes.account_drop) == (25, 0.02)
    assert settings.reports.file_mode_bits == 0o600


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("merchants", [], "merchants: must have at least 1 entry"),
        ("merchants", [{"name": "a/b"}], "merchants[0].name: must be 1 to 64"),
        ("merchants", [{"name": ".."}], "merchants[0].name: must be 1 to 64"),
        ("merchants", [{"mode": "live"}], "merchants[0].name: is missing"),
        ("merchants", [{"name": "a", "api_key_env": "my key"}], "merchants[0].api_key_env: must be the name"),
        (
            "merchants",
            [{"name": "a", "api_key_env": "K", "api_key_file": "/k"}],
            "merchants[0].api_key_file: stands beside",
        ),
        ("merchants", [{"name": "a"}, {"name": "b"}], "merchants[1].api_key_env: is the key of merchants[0] too"),
        (
            "merchants",
            [{"name": "a", "stripe_account": "acct_1"}, {"name": "b", "stripe_account": "acct_1"}],
            "merchants[1].api_key_env: is the key of merchants[0] too",
        ),
        (
            "merchants",
            [{"name": "a", "api_key_file": "k"}, {"name": "b", "api_key_file": "k"}],
            "merchants[1].api_key_file: is",
        ),
        (
            "merchants",
            [{"name": "a"}, {"name": "A", "api_key_env": "B"}],
            "merchants[1].name: is also the name of merchants[0]",
        ),
        (
            "merchants",
            [{"name": "a", "allow_secret_key": "yes"}],
            "merchants[0].allow_secret_key: must be true or false",
        ),
        ("merchants", [{"name": "a", "stripe_account": "x\r\ny"}], "merchants[0].stripe_account: must be the id"),
        ("stripe", {"api_base": "https://api.example.com"}, "stripe.api_base: must be https://api.stripe.com"),
        ("stripe", {"api_base": "http://api.stripe.com"}, "stripe.api_base: must be https://api.stripe.com"),
        ("stripe", {"api_base": "https://api.stripe.com.evil.example"}, "stripe.api_base: must be"),
        ("stripe", {"api_base": "http://127.0.0.1@evil.example"}, "stripe.api_base: must be"),
        ("stripe", {"api_base": "http://localhost.evil.example:80"}, "stripe.api_base: must be"),
        ("stripe", {"api_base": "https://api.stripe.com/v1"}, "stripe.api_base: must be a scheme"),
        ("stripe", {"api_base": "http://[::1"}, "stripe.api_base: is not an address"),
        ("stripe", {"api_version": "2026-10-28.endive"}, "stripe.api_version: must look like 2026-09-30.preview"),
        ("stripe", {"api_version": "2026-13-30.preview"}, "stripe.api_version: must look like"),
        ("stripe", {"requests_per_second": "fast"}, "stripe.requests_per_second: must be auto"),
        ("stripe", {"requests_per_second": 101}, "stripe.requests_per_second: is above the 100"),
        ("stripe", {"requests_per_second": True}, "stripe.requests_per_second: must be auto"),
        ("stripe", {"endpoint_requests_per_second": 0}, "stripe.endpoint_requests_per_second: must be above 0"),
        ("stripe", {"endpoint_requests_per_second": 25.5}, "stripe.endpoint_requests_per_second: is above the 25"),
        ("stripe", {"max_attempts": 21}, "stripe.max_attempts: must be at most 20 (it is 21)"),
        ("stripe", {"max_attempts": "6"}, "stripe.max_attempts: must be a whole number"),
        ("stripe", {"max_attempts": True}, "stripe.max_attempts: must be a whole number"),
        ("stripe", {"max_elapsed_seconds": float("inf")}, "stripe.max_elapsed_seconds: must be a finite number"),
        ("pull", {"mode": "ful"}, "pull.mode: must be one of 'auto', 'full' or 'incremental'; did you mean full?"),
        ("database", {"url": "mysql://h/x"}, "database.url: must begin with sqlite:/// or postgresql+psycopg://"),
        ("database", {"url": "postgresql://h/x"}, "database.url: must begin with"),
        ("database", {"url": "sqlite:///:memory:"}, "database.url: must be a file"),
        ("database", {"url": "sqlite:///"}, "database.url: must name a file"),
        ("database", {"url": "sqlite:///var/x.db?mode=memory"}, "database.url: must name a file"),
        ("ledger", {"url": "sqlite:///l.db"}, "ledger.query: is missing beside ledger.url"),
        ("ledger", {"query": "SELECT 1"}, "ledger.url: is missing beside ledger.query"),
        ("ledger", {"url": "sqlite:///l.db", "query": "DELETE FROM x"}, "ledger.query: begins with DELETE"),
        ("ledger", {"url": "sqlite:///l.db", "query": "SELECT 1; DROP TABLE x"}, "ledger.query: holds more than one"),
        ("relink", {"cooldown_days": 1}, "relink.cooldown_days: must be at least 2 (it is 1)"),
        ("relink", {"cooldown_days": 2.5}, "relink.cooldown_days: must be a whole number"),
        ("relink", {"cooldown_day": 3}, "relink.cooldown_day: is not a setting; did you mean cooldown_days?"),
        ("relink", {"max_attempts": 0}, "relink.max_attempts: must be at least 1"),
        ("relink", {"pending_days": 0}, "relink.pending_days: must be at least 1"),
        ("relink", {"reasons": ["inactive", "broken"]}, "relink.reasons[1]: must be one of"),
        ("relink", {"reasons": ["inactive", "inactive"]}, "relink.reasons: names inactive more than once"),
        ("relink", {"reasons": "inactive"}, "relink.reasons: must be a list"),
        ("relink", {"causes_to_review": ["denied"]}, "relink.causes_to_review[0]: must be one of"),
        ("relink", {"return_url": "http://shop.example"}, "relink.return_url: must be an https:// address"),
        ("relink", {"return_url": "http://127.0.0.1.shop.example"}, "relink.return_url: must be an https:// address"),
        ("relink", {"return_url": "https://u:p@shop.example"}, "relink.return_url: must be an https:// address"),
        ("brakes", {"newly_broken_share": 0}, "brakes.newly_broken_share: must be above 0"),
        ("brakes", {"account_drop": 1.01}, "brakes.account_drop: must be at most 1"),
        ("brakes", {"institution_share": float("nan")}, "brakes.institution_share: must be"),
        ("reports", {"file_mode": "0644"}, "reports.file_mode: must let the owner read"),
        ("reports", {"file_mode": "0604"}, "reports.file_mode: must let the owner read"),
        ("reports", {"file_mode": "0040"}, "reports.file_mode: must let the owner read"),
        ("reports", {"file_mode": 384}, "reports.file_mode: must be text; put it in quotes"),
        ("reports", {"file_mode": "rw"}, "reports.file_mode: must be octal"),
        ("reports", {"group": "no-such-group-here"}, "reports.group: is not a group on this machine"),
        ("reports", {"formats": ["csv", "pdf"]}, "reports.formats[1]: must be one of"),
        ("reports", {"directory": "a\0b"}, "reports.directory: must be a path"),
        ("schedule", {"cron": "30 3 * *"}, "schedule.cron: is not a crontab line"),
        ("schedule", {"cron": "30 3 31 2 *"}, "schedule.cron: never comes due"),
        ("schedule", {"timezone": "Mars/Olympus"}, "schedule.timezone: is not a time zone"),
        ("schedule", {"timezone": "../../etc/passwd"}, "schedule.timezone: is not a time zone"),
        ("schedule", {"timezone": "America"}, "schedule.timezone: is not a time zone"),
        ("schedule", {"misfire_grace_hours": 0}, "schedule.misfire_grace_hours: must be at least 1"),
        ("notify", {"urls_env": "https://hooks.example/x"}, "notify.urls_env: must be the name"),
        ("log", {"level": "verbose"}, "log.level: must be one of"),
        ("log", "info", "log: must hold further names and values"),
        ("cooldown_days", 3, "cooldown_days: is not a setting; did you mean relink.cooldown_days?"),
    ],
)
def test_a_fault_names_its_path_and_the_remedy(section: str, values: Any, expected: str) -> None:
    assert f"\n  {expected}" in faults_of({section: values})


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:12111", "http://127.9.9.9:1", "http://[::1]:8080", "http://localhost:1/"]
)
def test_a_stand_in_on_loopback_is_accepted_and_may_be_called_faster(text: str) -> None:
    settings = parse_settings({"stripe": {"api_base": text, "endpoint_requests_per_second": 500}})
    assert settings.stripe.api_base == text.rstrip("/")


def test_a_live_merchant_never_meets_a_stand_in() -> None:
    values = {"stripe": {"api_base": "http://127.0.0.1:1"}, "merchants": [{"name": "main", "mode": "live"}]}
    assert "merchants[0].mode: is live, but stripe.api_base is a stand-in" in faults_of(values)


@pytest.mark.parametrize("setting", ["database", "ledger"])
@pytest.mark.parametrize(
    "rest",
    [
        "relink:pa@Sw0rdTail@localhost:1/db",
        "relink:@Sw0rdTail@localhost:1/db",
        "relink:pa@Sw0r/dTail@localhost:1/db",
        "relink:pa@Sw0r?dTail@localhost:1/db",
        "relink:pa@Sw0r#dTail@localhost:1/db",
        "relink:pa@Sw0r:dTail@localhost:1/db",
        "relink:p/a@Sw0rdTail@localhost",
        "relink:pa@Sw0rdTail@[::1]/db",
        "relink:pa@Sw0rdTail@/db?host=/run/postgresql",
        "domain/relink:Sw0rdTail@localhost/db",
        "/relink:Sw0rdTail@localhost/db",
        "/relink:pa@Sw0rdTail@localhost/db",
        "relink:secret@localhost/db?password=pa@Sw0rdTail",
    ],
)
def test_a_password_that_would_be_taken_for_a_host_is_refused_and_not_shown(setting: str, rest: str) -> None:
    """Only the part before the first `@` would be hidden."""
    told = faults_of(
        {setting: {"url": f"postgresql+psycopg://{rest}", **({"query": "SELECT 1"} if setting == "ledger" else {})}}
    )
    assert f"{setting}.url: has an @ behind the one that ends user and password" in told
    assert "@ as %40" in told
    assert [part for part in ("Sw0r", "dTail") if part in told] == []


@pytest.mark.parametrize(
    "rest",
    [
        "relink:pa%40Sw0rd@localhost:1/db",
        "relink:pa/s?w#o:rd@localhost:1/db",
        "relink@localhost/db",
        "localhost/db?user=me@tenant&sslmode=require",
        "/db?host=/run/postgresql",
        "relink:word@/db?host=/run/postgresql",
        "relink:word@[::1]:5432/db",
        "",
    ],
)
def test_a_url_whose_password_is_hidden_whole_is_taken(rest: str) -> None:
    url = f"postgresql+psycopg://{rest}"
    if rest:
        assert parse_settings({"database": {"url": url}}).database.url == url
    assert parse_settings({"ledger": {"url": url, "query": "SELECT 1"}}).ledger.url == url


@pytest.mark.parametrize("path", ["/srv/me@home/relink.db", "var/relink@home.db"])
def test_the_path_of_an_embedded_database_may_hold_an_at_sign(path: str) -> None:
    url = f"sqlite:///{path}"
    settings = parse_settings({"database": {"url": url}, "ledger": {"url": url, "query": "SELECT 1"}})
    assert (settings.database.url, settings.ledger.url) == (url, url)


def test_all_faults_are_told_at_once_whatever_section_they_are_in() -> None:
    told = faults_of(
        {
            "merchants": [{"name": "a"}, {"name": "a", "mode": "prod"}],
            "relink": {"cooldown_days": 1, "delivery": "mail"},
            "ledger": {"url": "sqlite:///x"},
            "brakes": {"minimum": -1},
        }
    )
    assert told.startswith("7 faults in the settings")
    paths = {line.strip().partition(":")[0] for line in told.splitlines()[1:]}
    assert paths == {
        "merchants[1].name",
        "merchants[1].mode",
        "merchants[1].api_key_env",
        "relink.cooldown_days",
        "relink.delivery",
        "ledger.query",
        "brakes.minimum",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- main\n", "must hold names and values"),
        ("log: {level: info}\nlog: {level: debug}\n", "line 2: log stands twice"),
        ("relink:\n  max_attempts: 3\n  max_attempts: 4\n", "line 3: max_attempts stands twice"),
        ("x: !!python/object/apply:os.system ['true']\n", "could not determine a constructor"),
        ("a: &a [1]\nb: *a\n", "aliases"),
        ("log: {level: info\n", "is not plain YAML at line"),
        ("log: {}\n---\nlog: {}\n", "is not plain YAML"),
        ("1: 2\n", "a key is not text"),
        ("a: " + "[" * 5000, "nested too deeply"),
        (b"log: \x00", "NUL"),
        (b"log: \xff\xfe", "not UTF-8"),
        (b"# " + b"x" * 1024 * 1024, "larger than 1 MiB"),
    ],
)
def test_a_file_that_is_not_plain_settings_is_refused(tmp_path: Path, text: str | bytes, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected) as caught:
        load_text(tmp_path, text)
    assert str(tmp_path / "config.yaml") in str(caught.value)


def test_a_missing_file_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"nowhere\.yaml.*No such file.*--config"):
        load_settings(Path("nowhere.yaml"), {})
    with pytest.raises(SettingsError, match=r"elsewhere\.yaml"):
        load_settings(None, {"RELINK_CONFIG": "elsewhere.yaml"})
    with pytest.raises(SettingsError, match=r"\./config\.yaml does not exist"):
        load_settings(None, {})
    with pytest.raises(SettingsError, match="Is a directory"):
        load_settings(tmp_path, {})


def test_the_file_is_found_by_option_then_variable_then_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("config", "variable", "option"):
        Path(f"{name}.yaml").write_text(f"merchants: [{{name: {name}}}]\n")
    found = [
        load_settings(None, {}),
        load_settings(None, {"RELINK_CONFIG": "variable.yaml"}),
        load_settings(Path("option.yaml"), {"RELINK_CONFIG": "variable.yaml"}),
    ]
    assert [settings.merchant_names for settings in found] == [("config",), ("variable",), ("option",)]


def test_a_heading_without_lines_keeps_the_defaults(tmp_path: Path) -> None:
    assert load_text(tmp_path, "relink:\n  # all commented out\nlog: {level: info}\n") == Settings()


def test_variables_override_the_file_at_every_depth(tmp_path: Path) -> None:
    settings = load_text(
        tmp_path,
        "merchants: [{name: main}]\nrelink: {cooldown_days: 3, max_attempts: 2}\nledger:\n",
        {
            "RELINK_RELINK__COOLDOWN_DAYS": "9",
            "RELINK_RELINK__REASONS": "[inactive, permissions]",
            "RELINK_RELINK__ALLOW_WIDENING": "false",
            "RELINK_STRIPE__REQUESTS_PER_SECOND": "7.5",
            "RELINK_MERCHANTS__0__NAME": "2026",
            "RELINK_MERCHANTS__1__NAME": "second",
            "RELINK_MERCHANTS__1__API_KEY_FILE": "/run/key",
            "RELINK_REPORTS__FILE_MODE": "0640",
            "RELINK_LEDGER__URL": "sqlite:///ledger.db",
            "RELINK_LEDGER__QUERY": "SELECT a: b",
            "RELINK_PULL": "{mode: full}",
            "RELINK_METRICS__TEXTFILE": "null",
            "UNRELATED": "x",
        },
    )
    assert (settings.relink.cooldown_days, settings.relink.max_attempts) == (9, 2)
    assert settings.relink.reasons == ("inactive", "permissions")
    assert settings.relink.allow_widening is False
    assert settings.stripe.requests_per_second == 7.5
    assert settings.merchant_names == ("2026", "second")
    assert (settings.merchants[1].api_key_env, settings.merchants[1].api_key_file) == (None, Path("/run/key"))
    assert settings.reports.file_mode == "0640"
    assert settings.ledger.query == "SELECT a: b"
    assert settings.pull.mode == "full"


def test_a_variable_may_set_the_merchant_that_no_file_names(tmp_path: Path) -> None:
    settings = load_text(tmp_path, "log: {level: info}\n", {"RELINK_MERCHANTS__0__API_KEY_ENV": "OTHER_KEY"})
    assert [(m.name, m.api_key_env) for m in settings.merchants] == [("main", "OTHER_KEY")]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "RELINK_RELINK__MAX_ATTEMPTS",
            "0",
            "relink.max_attempts (from $RELINK_RELINK__MAX_ATTEMPTS): must be at least 1",
        ),
        (
            "RELINK_COOLDOWN_DAYS",
            "3",
            "$RELINK_COOLDOWN_DAYS: is not a setting; did you mean $RELINK_RELINK__COOLDOWN_DAYS?",
        ),
        ("RELINK_RELINK_COOLDOWN_DAYS", "3", "did you mean $RELINK_RELINK__COOLDOWN_DAYS?"),
        (
            "RELINK_RELINK__COOLDOWN",
            "3",
            "relink.cooldown (from $RELINK_RELINK__COOLDOWN): is not a setting; did you mean cooldown_days?",
        ),
        ("RELINK_SOMETHING", "3", "$RELINK_SOMETHING: is not a setting"),
        (
            "RELINK_STRIP__MAX_ATTEMPTS",
            "3",
            "strip (from $RELINK_STRIP__MAX_ATTEMPTS): is not a setting; did you mean stripe?",
        ),
        ("RELINK_RELINK__REASONS", "[inactive", "$RELINK_RELINK__REASONS: is not a YAML value"),
        ("RELINK_RELINK__REASONS", "!!python/name:os.system", "$RELINK_RELINK__REASONS: is not a YAML value"),
        ("RELINK_MERCHANTS__3__NAME", "x", "$RELINK_MERCHANTS__3__NAME: merchants has only 1 entries"),
        ("RELINK_MERCHANTS__NAME", "x", "$RELINK_MERCHANTS__NAME: merchants has no further levels"),
        ("RELINK_LOG__0", "x", "$RELINK_LOG__0: log is not a list"),
        (
            "RELINK_DATABASE__URL",
            "oracle://scott:tiger77@h/x",
            "database.url (from $RELINK_DATABASE__URL): must begin with",
        ),
    ],
)
def test_a_faulty_variable_is_named(tmp_path: Path, name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_text(tmp_path, "merchants: [{name: main}]\nlog: {level: info}\n", {name: value})
    assert expected in str(caught.value)
    assert "tiger77" not in str(caught.value)


def test_variables_that_settings_name_are_not_settings(tmp_path: Path) -> None:
    environment = {
        "RELINK_CONFIG": "elsewhere",
        "RELINK_NOTIFY_URLS": "x",
        "RELINK_HEARTBEAT_URL": "x",
        "RELINK_KEY": "sk_test_123456789",
        "RELINK_MAIN__KEY": "sk_test_123456789",
        "RELINK_PAGER": "x",
        "RELINK_NOTIFY__URLS_ENV": "RELINK_PAGER",
    }
    text = "merchants: [{name: a, api_key_env: RELINK_KEY}, {name: b, api_key_env: RELINK_MAIN__KEY}]\n"
    assert load_text(tmp_path, text, environment).notify.urls_env == "RELINK_PAGER"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("merchants:\n  - name: main\n    api_key_env: SECRET\n", "merchants[0].api_key_env (line 3)"),
        ("log: {level: info}\n# old key: SECRET\n", "line 2"),
        ("log: {SECRET: info}\n", "(line 1)"),
        ("ledger: {url: 'x://u:SECRET@h/d', query: SELECT 1}\n", "ledger.url (line 1)"),
    ],
)
def test_a_key_in_the_file_is_a_fault_that_does_not_repeat_it(tmp_path: Path, text: str, place: str) -> None:
    secret = "rk_live_51AbCdEfGhIjKlMn"
    with pytest.raises(SettingsError) as caught:
        load_text(tmp_path, text.replace("SECRET", secret))
    told = str(caught.value)
    assert f"{place}: holds what looks like a key" in told
    assert secret not in told
    assert "AbCdEf" not in told


def test_nothing_secret_is_shown_by_a_fault_or_kept_in_its_chain(tmp_path: Path) -> None:
    text = "ledger: {url: 'postgresql://u:hunter2@h/x', query: DROP TABLE x}\ndatabase: {url: 'nope://u:hunter2@h/x'}\n"
    with pytest.raises(SettingsError) as caught:
        load_text(tmp_path, text)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None


def test_settings_do_not_show_database_urls() -> None:
    settings = parse_settings(
        {
            "database": {"url": "postgresql+psycopg://u:hunter2@h/x"},
            "ledger": {"url": "mysql://u:hunter3@h/x", "query": "SELECT 1"},
        }
    )
    assert "hunter" not in repr(settings)
    assert "hunter" not in json.dumps(settings_for_record(settings))
    assert settings_for_record(settings)["database"]["url"] == "postgresql+psycopg://u:***@h/x"


def test_the_record_holds_no_address_from_the_query() -> None:
    query = "SELECT * FROM l WHERE owner <> 'ada@example.com'"
    record = settings_for_record(parse_settings({"ledger": {"url": "sqlite:///l", "query": query}}))
    assert "ada@" not in json.dumps(record)
    assert record["ledger"]["query"].startswith("SELECT * FROM l WHERE owner <> ")


@pytest.mark.parametrize(
    ("section", "change", "decides"),
    [
        ("relink", {"cooldown_days": 5}, True),
        ("relink", {"causes_to_review": ["access_denied"]}, True),
        ("relink", {"reasons": ["permissions", "account_number", "expiring", "inactive"]}, False),
        ("brakes", {"minimum": 26}, True),
        ("relink", {"delivery_rules": [{"customer": "cus_1", "delivery": "hosted_url"}]}, True),
        ("relink", {"hosted_interval_hours": 72}, True),
        ("schedule", {"timezone": "America/New_York"}, True),
        ("schedule", {"cron": "0 4 * * *"}, False),
        ("stripe", {"api_version": "2026-10-30.preview"}, True),
        ("stripe", {"max_attempts": 3}, False),
        ("stripe", {"api_base": "http://127.0.0.1:1"}, True),
        ("ledger", {"url": "sqlite:///l", "query": "SELECT 1"}, True),
        ("database", {"url": "sqlite:///elsewhere.db"}, False),
        ("reports", {"directory": "elsewhere"}, False),
        ("log", {"level": "debug"}, False),
        ("merchants", [{"name": "main", "stripe_account": "acct_1"}], True),
        ("merchants", [{"name": "main", "api_key_env": "OTHER"}], False),
    ],
)
def test_the_hash_changes_with_what_decides_and_with_nothing_else(section: str, change: Any, decides: bool) -> None:
    before, after = Settings(), parse_settings({section: change})
    changed = settings_hash(before, before.merchants[0]) != settings_hash(after, after.merchants[0])
    assert changed is decides


def test_the_hash_is_the_merchants_own_and_does_not_depend_on_passwords() -> None:
    def hashes(password: str) -> list[str]:
        url = f"postgresql://u:{password}@h/x"
        merchants = [{"name": "a", "api_key_env": "A"}, {"name": "b", "api_key_env": "B"}]
        settings = parse_settings({"merchants": merchants, "ledger": {"url": url, "query": "SELECT 1"}})
        return [settings_hash(settings, merchant) for merchant in settings.merchants]

    assert hashes("one") == hashes("two")
    assert len(set(hashes("one"))) == 2


def test_a_delivery_rule_of_another_merchant_decides_nothing_for_this_one() -> None:
    merchants = [{"name": "a", "api_key_env": "A"}, {"name": "b", "api_key_env": "B"}]

    def hashes(*rules: dict[str, str]) -> list[str]:
        settings = parse_settings({"merchants": merchants, "relink": {"delivery_rules": list(rules)}})
        return [settings_hash(settings, merchant) for merchant in settings.merchants]

    plain, ruled = hashes(), hashes({"merchant": "b", "delivery": "hosted_email"})
    assert plain[0] == ruled[0]
    assert plain[1] != ruled[1]


def test_faults_of_delivery_rules_are_told_with_their_place() -> None:
    rules: list[object] = [
        {"institution": "Oak Bank", "delivery": "hosted_mail"},
        {"delivery": "hosted_url"},
        {"merchant": "shop", "delivery": "modal"},
        {"customer": "cus_1", "institution": "", "delivery": "modal"},
        {"institution": "Elm Bank", "reason": "expired", "delivery": "modal"},
        {"institution": "Fir Bank", "delivery": "modal"},
        {"institution": "Fir Bank", "delivery": "hosted_url"},
        {"bank": "Fir Bank", "delivery": "modal"},
        {"institution": "Yew Bank"},
    ]
    with pytest.raises(SettingsError) as caught:
        parse_settings({"relink": {"delivery_rules": rules}})
    told = str(caught.value)
    for expected in (
        "relink.delivery_rules[0].delivery: must be one of 'modal', 'hosted_url' or 'hosted_email'; did you mean hosted_email?",
        "relink.delivery_rules[1]: fits everybody",
        "relink.delivery_rules[2].merchant: is no merchant of merchants; they are main",
        "relink.delivery_rules[3].institution: must not be empty",
        "relink.delivery_rules[4].reason: must be one of",
        "relink.delivery_rules[6]: is never reached, since delivery_rules[5] fits the same",
        "relink.delivery_rules[7].bank: is not a setting",
        "relink.delivery_rules[8].delivery: is missing",
    ):
        assert expected in told


def test_delivery_rules_can_come_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("relink: {delivery: modal}\n")
    rules = "[{institution: Oak Bank, delivery: hosted_email}]"
    settings = load_settings(file, {"RELINK_RELINK__DELIVERY_RULES": rules})
    assert settings.relink.delivery_rules[0].institution == "Oak Bank"
