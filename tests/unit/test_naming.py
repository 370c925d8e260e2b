"""Names of objects: what we make is read back as it was, nothing else is taken for ours."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.naming import (
    MANIFEST_SUFFIX,
    ObjectName,
    format_stamp,
    parse_object,
    parse_part,
    parse_stamp,
    parse_token,
    part_name,
    quote_name,
    run_token,
    unquote_name,
)

TAKEN = datetime(2026, 11, 23, 3, 15, tzinfo=timezone.utc)
STAMP = "2026-11-23T03-15-00Z"
TOKEN = "0123abcd-20261123T031500Z-00ff7e"

# What a file system or a database may call things: any bytes, as Python shows them.
ANY_NAME = st.binary(min_size=1, max_size=40).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)
TRICKY_NAME = st.lists(
    st.sampled_from(
        [
            *(
                STAMP,
                f"_{STAMP}",
                f".{TOKEN}.part",
                MANIFEST_SUFFIX,
                ".sql",
                ".part",
                "a",
                "B",
                "0",
            ),
            *("_", ".", "..", "/", "~", "%", "%2F", "\n", "\0", " ", "é", "\udcff"),
        ]
    ),
    min_size=1,
    max_size=6,
).map(lambda parts: "".join(parts))
ARTIFACTS = st.one_of(ANY_NAME, TRICKY_NAME, st.from_regex(r"[a-z_.-]{1,12}", fullmatch=True))
BACKUPS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
SUFFIXES = st.from_regex(r"(\.[A-Za-z0-9]{1,6}){0,4}", fullmatch=True)
MOMENTS = st.datetimes(
    min_value=datetime(1000, 1, 1),
    max_value=datetime(9999, 12, 30),
    timezones=st.just(timezone.utc),
).map(lambda moment: moment.replace(microsecond=0))
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
HEX = "0123456789abcdef"
TOKENS = st.builds(
    run_token,
    st.text(HEX, min_size=8, max_size=8),
    MOMENTS,
    st.text(HEX, min_size=6, max_size=6),
)
OBJECTS = st.builds(ObjectName, BACKUPS, ARTIFACTS, MOMENTS, SUFFIXES)


@given(ARTIFACTS)
def test_any_name_can_be_quoted_and_back(name: str) -> None:
    assert unquote_name(quote_name(name)) == name


@given(ARTIFACTS)
def test_a_quoted_name_is_safe_in_a_path_and_a_url(name: str) -> None:
    quoted = quote_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_%-][A-Za-z0-9_.%-]*", quoted)


@given(ARTIFACTS, ARTIFACTS)
def test_two_names_never_share_a_quoted_form(one: str, other: str) -> None:
    assert (quote_name(one) == quote_name(other)) == (one == other)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("shop", "shop"),
        ("my-db_2.old", "my-db_2.old"),
        ("/srv/www", "%2Fsrv%2Fwww"),
        (".", "%2E"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("100%", "100%25"),
        ("~root", "%7Eroot"),
        ("café", "caf%C3%A9"),
        ("\udcff", "%FF"),
        ("a b\n", "a%20b%0A"),
    ],
    ids=ascii,
)
def test_quoting_leaves_plain_names_readable(name: str, quoted: str) -> None:
    assert quote_name(name) == quoted


@given(MOMENTS, ZONES)
def test_stamps_are_utc_to_the_second(moment: datetime, zone: timezone) -> None:
    if datetime(1000, 1, 2, tzinfo=timezone.utc) < moment:
        assert format_stamp(moment.astimezone(zone)) == format_stamp(moment)
    assert parse_stamp(format_stamp(moment)) == moment


@given(MOMENTS, MOMENTS)
def test_stamps_sort_as_time_does(one: datetime, other: datetime) -> None:
    assert (format_stamp(one) < format_stamp(other)) == (one < other)


def test_the_layout_is_the_documented_one() -> None:
    name = ObjectName("crm-db", "shop", TAKEN, ".sql.zst.age")
    assert name.path == "crm-db/shop/shop_2026-11-23T03-15-00Z.sql.zst.age"
    assert name.manifest == "crm-db/shop/shop_2026-11-23T03-15-00Z.sql.zst.age.manifest.json"


@given(OBJECTS)
@example(ObjectName("etc", f"a_{STAMP}", TAKEN, ".tar"))
@example(ObjectName("etc", f"_{STAMP}.tar", TAKEN, ""))
@example(ObjectName("etc", f"x_{STAMP}{MANIFEST_SUFFIX}", TAKEN, ".gz"))
def test_an_object_is_read_back_as_what_it_was(name: ObjectName) -> None:
    assert parse_object(name.path) == name


@given(OBJECTS)
def test_an_object_lies_two_directories_deep_whatever_it_is_called(name: ObjectName) -> None:
    backup, directory, base = name.path.split("/")
    assert backup == name.backup
    assert base.startswith(f"{directory}_")
    assert f"{backup}/{directory}" == name.directory


@given(OBJECTS, OBJECTS)
def test_two_objects_never_share_a_path(one: ObjectName, other: ObjectName) -> None:
    assert (one.path == other.path) == (one == other)


@given(BACKUPS, ARTIFACTS, SUFFIXES)
def test_a_name_that_begins_with_another_is_no_prefix_of_it(
    backup: str, artifact: str, suffix: str
) -> None:
    longer = ObjectName(backup, f"{artifact}_{STAMP}", TAKEN, suffix)
    shorter = ObjectName(backup, artifact, TAKEN, suffix)
    assert not longer.path.startswith(shorter.directory + "/")
    parsed = parse_object(longer.path)
    assert parsed is not None
    assert parsed.artifact == longer.artifact


@given(st.text(max_size=60) | st.builds("{}/{}/{}".format, BACKUPS, ARTIFACTS, ARTIFACTS))
def test_whatever_is_taken_for_ours_is_what_we_would_have_written(path: str) -> None:
    name = parse_object(path)
    assert name is None or name.path == path


FOREIGN = {
    "empty": "",
    "no-directories": f"shop_{STAMP}.sql",
    "one-directory": f"shop/shop_{STAMP}.sql",
    "too-deep": f"a/db/shop/shop_{STAMP}.sql",
    "absolute": f"/db/shop/shop_{STAMP}.sql",
    "other-artifact-in-the-directory": f"db/shop/crm_{STAMP}.sql",
    "artifact-that-only-begins-like-the-directory": f"db/shop/shop2_{STAMP}.sql",
    "artifact-that-is-a-prefix-of-the-directory": f"db/shop2/shop_{STAMP}.sql",
    "no-artifact": f"db//_{STAMP}.sql",
    "no-stamp": "db/shop/shop.sql",
    "stamp-with-colons": "db/shop/shop_2026-11-23T03:15:00Z.sql",
    "local-time": "db/shop/shop_2026-11-23T03-15-00.sql",
    "v3-name": "db/shop/shop_2026-11-23_03-15.sql.gz",
    "month-13": "db/shop/shop_2026-13-23T03-15-00Z.sql",
    "29-february-of-a-common-year": "db/shop/shop_2026-02-29T03-15-00Z.sql",
    "second-61": "db/shop/shop_2026-11-23T03-15-61Z.sql",
    "year-0000": "db/shop/shop_0000-11-23T03-15-00Z.sql",
    "digits-that-are-not-ascii": "db/shop/shop_\u0662\u0660\u0662\u0666-11-23T03-15-00Z.sql",
    "suffix-without-dot": f"db/shop/shop_{STAMP}sql",
    "empty-suffix-part": f"db/shop/shop_{STAMP}..sql",
    "ends-with-a-dot": f"db/shop/shop_{STAMP}.sql.",
    "copy-by-hand": f"db/shop/shop_{STAMP}.sql (1)",
    "editor-backup": f"db/shop/shop_{STAMP}.sql~",
    "line-break-at-the-end": f"db/shop/shop_{STAMP}.sql\n",
    "unfinished": f"db/shop/.shop_{STAMP}.sql.{TOKEN}.part",
    "hidden-directory": f"db/.shop/.shop_{STAMP}.sql",
    "lower-case-escape": f"db/%2fsrv/%2fsrv_{STAMP}.tar",
    "needless-escape": f"db/%73hop/%73hop_{STAMP}.tar",
    "missing-escape": f"db/a b/a b_{STAMP}.tar",
    "broken-escape": f"db/50%/50%_{STAMP}.tar",
}


@pytest.mark.parametrize("path", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_foreign_name_is_nothing_of_ours(path: str) -> None:
    assert parse_object(path) is None


@given(OBJECTS, TOKENS)
def test_an_unfinished_object_tells_its_final_name_and_its_run(
    name: ObjectName, token: str
) -> None:
    for final in (name.path, name.manifest):
        part = part_name(final, token)
        assert parse_part(part) == (final, token)
        assert parse_object(part) is None


@given(ARTIFACTS.map(quote_name), TOKENS)
def test_an_unfinished_object_may_lie_at_the_top(base: str, token: str) -> None:
    assert parse_part(part_name(base, token)) == (base, token)


def test_an_unfinished_object_lies_hidden_beside_the_finished_one() -> None:
    assert part_name("db/shop/shop.sql", TOKEN) == f"db/shop/.shop.sql.{TOKEN}.part"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("", id="empty"),
        pytest.param("db/shop/", id="directory"),
        pytest.param(f"db/shop/shop.sql.{TOKEN}.part", id="not-hidden"),
        pytest.param(f"db/shop/.shop.sql.{TOKEN}", id="not-a-part"),
        pytest.param("db/shop/.shop.sql.part", id="no-token"),
        pytest.param(f"db/shop/.{TOKEN}.part", id="no-name"),
        pytest.param(f"db/shop/.shop.{TOKEN.upper()}.part", id="upper-case-token"),
        pytest.param(f"db/shop/.shop.{TOKEN}.part~", id="editor-backup"),
        pytest.param(f"db/shop/.shop.{TOKEN}.part\n", id="line-break-at-the-end"),
        pytest.param("db/shop/.shop.filepart", id="of-another-program"),
        pytest.param("db/shop/.shop.deadbeef-99999999T999999Z-abcdef.part", id="no-such-moment"),
        pytest.param("db/shop/.shop.deadbeef-20260229T000000Z-abcdef.part", id="no-such-day"),
        pytest.param(
            "db/shop/.shop.deadbeef-\u0662\u0660\u0662\u06661123T031500Z-abcdef.part",
            id="digits-that-are-not-ascii",
        ),
    ],
)
def test_a_foreign_name_is_nothing_unfinished_of_ours(path: str) -> None:
    assert parse_part(path) is None


@given(st.text(alphabet="." + HEX + "-TZpart/", max_size=60) | st.text(max_size=60))
def test_the_token_of_whatever_is_taken_for_unfinished_can_be_read(path: str) -> None:
    parsed = parse_part(path)
    if parsed is not None:
        parse_token(parsed[1])


@given(st.text(HEX, min_size=8, max_size=8), MOMENTS)
def test_a_token_tells_whose_it_is_and_when_it_began(identity: str, moment: datetime) -> None:
    assert parse_token(run_token(identity, moment, "00ff7e")) == (identity, moment)


@given(MOMENTS.filter(lambda moment: moment.year > 1000), ZONES)
def test_a_token_is_in_utc(moment: datetime, zone: timezone) -> None:
    token = run_token("0123abcd", moment.astimezone(zone), "00ff7e")
    assert parse_token(token)[1] == moment
