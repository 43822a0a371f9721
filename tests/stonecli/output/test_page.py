import json
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stonecli.detection.estimate import KeyEstimate
from stonecli.key import Key
from stonecli.mixing.transitions import COMPATIBLE_COST, Track, key_transition, transition
from stonecli.output.page import page_track, save_page, script_json
from stonecli.tags.track_info import TrackInfo
from stonecli.util.text import printable
from tests.page_texts import texts

EstimateOf = Callable[..., KeyEstimate]
EVIL = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&amp;\u2028\u202e\x1b\udcff'
MANY = 2_000
COMPATIBLE_WITH_8A = {"8A", "9A", "7A", "8B", "9B", "7B", "10A", "3A", "11B", "6A", "1A"}  # docs/mixing.md


def evil_track(path: Path) -> dict[str, Any]:
    info = TrackInfo(title=EVIL, artist=f"{EVIL} artist", bpm=128.0)
    return page_track(path, Key.parse("Am"), None, info, "kept", None, EVIL)


@pytest.mark.parametrize("text", [EVIL, "<!--", "</SCRIPT ", "]]>"])
def test_no_text_escapes_the_script(text: str) -> None:
    written = script_json({text: [text]})
    assert not set("<>&") & set(written)
    assert written.isascii()
    assert json.loads(written) == {text: [text]}


def test_nothing_is_fetched(tmp_path: Path, estimate_of: EstimateOf) -> None:
    track = page_track(tmp_path / "a.mp3", Key.parse("Am"), estimate_of("Am"), TrackInfo(), "detected")
    save_page(tmp_path / "a.html", [track])
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    policy = text.split('Content-Security-Policy" content="')[1].split('"')[0]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert json.loads(text.split('id="data">')[1].split("</script>")[0])["tracks"] == [track]
    assert track["segments"] == [[0.0, 30.0, 21, 0.8]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A page of many tracks, the first with hostile texts, the second playable."""
    folder = tmp_path_factory.mktemp("page")
    soundfile.write(folder / "sound #1.wav", np.zeros(4000), 8000)
    random = np.random.default_rng(0)
    tracks = [
        evil_track(folder / "evil.mp3"),
        page_track(folder / "sound #1.wav", Key.parse("C"), None, TrackInfo("Zz top", "Me"), "kept"),
        page_track(folder / "broken.mp3", None, None, TrackInfo(), "error", "cannot be decoded"),
    ]
    for number in range(MANY - len(tracks)):
        key = Key.from_index(int(random.integers(24)))
        info = TrackInfo(f"Title {number}", f"Artist {number % 500}", bpm=float(random.integers(90, 150)))
        track = page_track(folder / f"{number}.mp3", key, None, info, "detected")
        track |= {"detected": key.index, "confidence": round(float(random.random()), 3)}
        track |= {"cents": float(random.integers(-40, 40))}
        if number % 7 == 0:  # ends in another key
            track["out"] = key.transposed(1).index
        if number % 11 == 0:  # begins in another
            track["in"] = key.relative.index
        tracks.append(track)
    save_page(folder / "page.html", tracks)
    return folder / "page.html", tracks


@pytest.fixture
def page(browser: Any, library: tuple[Path, list[dict[str, Any]]]) -> Any:
    """The browser with the page, freshly opened."""
    browser.get(library[0].as_uri())
    return browser


def names(page: Any) -> list[str]:
    return [
        str(text)
        for text in page.execute_script(
            "return [...document.querySelectorAll('.row .name')].map(name => name.firstChild.textContent)"
        )
    ]


def cells(page: Any, column: str) -> list[str]:
    """The texts of a column in the drawn rows."""
    names_ = [name.rstrip(" ▲▼") for name in texts(page, "#names > *")]
    return [
        str(text)
        for text in page.execute_script(
            "const text = cell => [...cell.childNodes].map(node => node.textContent.trim()).filter(Boolean).join(' ');"
            "return [...document.querySelectorAll(arguments[0])].map(text)",
            f".row > :nth-child({names_.index(column) + 1})",
        )
    ]


def count(page: Any) -> str:
    return str(page.find_element("id", "count").text)


def type_into_search(page: Any, text: str) -> None:
    field = page.find_element("id", "search")
    field.clear()
    field.send_keys(text)
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")  # rows are drawn


def test_many_rows_few_in_the_document(page: Any) -> None:
    assert count(page) == "2,000 tracks"
    assert 15 < len(names(page)) < 80
    page.execute_script("document.getElementById('table').scrollTop = 1e9")
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    assert names(page)[-1] == f"Title {MANY - 4}"
    assert len(names(page)) < 80


def test_search(page: Any) -> None:
    type_into_search(page, "ARTIST 123 title 1123 me")
    assert names(page) == []
    type_into_search(page, "title 1923 artist 423")
    assert names(page) == ["Title 1923"]
    assert count(page) == "1 of 2,000"
    type_into_search(page, "no such thing")
    assert names(page) == []


def test_search_without_accents(browser: Any, tmp_path: Path) -> None:
    """A Mac has the accents of file names as characters of their own; a keyboard types one character, or none."""
    names_ = [unicodedata.normalize(form, f"{form} Beyoncé Déjà Vu.mp3") for form in ("NFC", "NFD")]
    tracks = [page_track(tmp_path / name, Key.parse("Am"), None, TrackInfo(), "kept") for name in (*names_, "x.mp3")]
    save_page(tmp_path / "a.html", tracks)
    browser.get((tmp_path / "a.html").as_uri())
    for text in ("Beyoncé", unicodedata.normalize("NFD", "DÉJÀ"), "beyonce deja"):
        type_into_search(browser, text)
        assert count(browser) == "2 of 3"


def search_for(browser: Any, text: str) -> set[str]:
    """The names of the tracks that are found."""
    browser.execute_script(
        "const field = document.getElementById('search'); field.value = arguments[0];"
        "field.dispatchEvent(new Event('input'))",
        text,
    )
    return set(names(browser))


def test_search_for_a_key_finds_that_key_alone(browser: Any, tmp_path: Path) -> None:
    tracks = [
        page_track(tmp_path / f"{key.index}.mp3", key, None, TrackInfo(f"in {key.camelot}!"), "kept")
        for key in Key.all()
    ]
    save_page(tmp_path / "a.html", tracks)
    browser.get((tmp_path / "a.html").as_uri())
    for key in Key.all():
        spellings = [key.camelot, key.open_key, key.musical, key.name, key.camelot.lower(), key.name.upper()]
        for text in (*spellings, f"0{key.camelot}", f" {key.musical} kept"):
            assert search_for(browser, text) == {f"in {key.camelot}!"}, text


def test_search_for_a_key_knows_its_other_names(browser: Any, tmp_path: Path) -> None:
    tracks = [
        page_track(tmp_path / "12B.mp3", Key.parse(key), None, TrackInfo(title), "kept")
        for title, key in (
            ("one", "C#m"),
            ("two", "Am"),
            ("three", "Bbm"),
            ("Who I Am", "C"),
            ("Camel", "E"),
            ("", "E"),
        )
    ]
    save_page(tmp_path / "a.html", tracks)
    browser.get((tmp_path / "a.html").as_uri())
    for text in ("C#m", "c♯ minor", "Db min", "D♭m", "12a"):
        assert search_for(browser, text) == {"one"}, text
    for text in ("a#m", "Bb minor", "A♯-minor"):
        assert search_for(browser, text) == {"three"}, text
    assert search_for(browser, "am") == {"two", "Who I Am"}  # in a title as a whole word
    assert search_for(browser, "12b") == {"Camel", "12B.mp3"}  # by their key, not by their files' names
    assert search_for(browser, "ame") == {"Camel"}
    assert search_for(browser, "e") == {"Camel", "12B.mp3"}


def test_a_tilde_finds_compatible_keys_closest_first(browser: Any, tmp_path: Path) -> None:
    # The search also finds digits of the path, so it must not be below tmp_path, "pytest-9".
    tracks = [page_track(Path(f"/music/{key}.mp3"), key, None, TrackInfo(key.camelot), "kept") for key in Key.all()]
    save_page(tmp_path / "a.html", tracks)
    browser.set_window_size(1400, 1400)
    browser.get((tmp_path / "a.html").as_uri())
    for text in ("~8A", "~ am", "~1m", "~A minor", "~08a"):
        assert search_for(browser, text) == COMPATIBLE_WITH_8A, text
    assert names(browser)[0] == "8A"
    assert set(names(browser)[1:4]) == {"7A", "9A", "8B"}
    assert cells(browser, "Mix")[0] == "same key"
    assert browser.find_element("css selector", "#wheel .sum").text == "8A"
    assert search_for(browser, "~8A 9") == {"9A", "9B"}
    assert search_for(browser, "~13A") == set()
    assert search_for(browser, "") == {key.camelot for key in Key.all()}


def test_genres_are_shown_and_found(browser: Any, tmp_path: Path) -> None:
    genres = ("Techno", "Drum & Bass", "", "<b>House</b>")
    tracks = [
        page_track(tmp_path / f"{genre[:2]}.mp3", Key.parse("Am"), None, TrackInfo(genre[:4], genre=genre), "kept")
        for genre in genres
    ]
    save_page(tmp_path / "a.html", tracks)
    browser.set_window_size(1900, 900)
    browser.get((tmp_path / "a.html").as_uri())
    assert cells(browser, "Genre") == list(genres)
    type_into_search(browser, "bass")
    assert cells(browser, "Genre") == ["Drum & Bass"]
    browser.find_element("css selector", ".row").click()
    assert "Drum & Bass" in browser.find_element("css selector", "#more .facts").text


def test_a_key_among_other_words_may_be_part_of_a_title(browser: Any, tmp_path: Path) -> None:
    """ "A minor thing" is a title, unless no track is called so."""
    tracks = [
        page_track(tmp_path / f"{number}.mp3", Key.parse(key), None, TrackInfo(title, artist), "kept")
        for number, (title, artist, key) in enumerate(
            [("A Minor Thing", "", "C"), ("Some thing", "", "Am"), ("Prelude", "Bach", "Am"), ("In A-Minor", "", "C")]
        )
    ]
    save_page(tmp_path / "a.html", tracks)
    browser.get((tmp_path / "a.html").as_uri())
    assert search_for(browser, "a minor thing") == {"A Minor Thing"}
    assert search_for(browser, "a minor bach") == {"Prelude"}
    assert search_for(browser, "a minor") == {"A Minor Thing", "Some thing", "Prelude", "In A-Minor"}
    assert search_for(browser, "a minor (thing") == set()  # no regular expression


def test_a_selected_track_lights_compatible_keys(browser: Any, tmp_path: Path) -> None:
    tracks = [page_track(tmp_path / f"{key}.mp3", key, None, TrackInfo(key.camelot), "kept") for key in Key.all()]
    save_page(tmp_path / "a.html", tracks)
    browser.set_window_size(1400, 1400)
    browser.get((tmp_path / "a.html").as_uri())
    compatible = COMPATIBLE_WITH_8A

    def lit(what: str) -> set[str]:
        found = browser.find_elements("css selector", what)
        return {element.text.split()[0] for element in found}

    search_for(browser, "")
    browser.find_element("xpath", "//div[contains(@class, 'row')][.//span[text()='8A']]").click()
    assert lit("#wheel.lit g.mixes") == compatible
    assert lit("#wheel g.own") == {"8A"}
    assert lit(".row.mixes .chip") == compatible - {"8A"}
    assert lit("#wheel g.smooth") == {"8A", "9A", "7A", "8B"}
    assert lit("#more .keys .chip") == compatible
    relations = dict(zip(cells(browser, "Track"), cells(browser, "Mix"), strict=True))
    assert [next(text for name, text in relations.items() if name.startswith(key)) for key in ("9A", "11B", "2A")] == [
        *("one up", "parallel", "–"),
    ]
    browser.find_element("id", "close").click()
    assert lit("#wheel.lit g") == lit("#wheel g.mixes") == lit(".row.mixes") == set()


def test_a_kept_file_shows_both_keys(browser: Any, tmp_path: Path, estimate_of: EstimateOf) -> None:
    major, minor = Key.parse("C"), Key.parse("Dm")
    tracks = [
        page_track(tmp_path / "a.mp3", major, estimate_of("Dm"), TrackInfo("other"), "kept", None, "8B", major),
        page_track(tmp_path / "b.mp3", minor, estimate_of("Dm"), TrackInfo("same"), "kept", None, "Dm", minor),
        page_track(tmp_path / "c.mp3", major, estimate_of(None), TrackInfo("nothing"), "kept", None, "8B", major),
        page_track(tmp_path / "d.mp3", major, None, TrackInfo("unknown"), "kept", None, "8B", major),
        page_track(tmp_path / "e.mp3", minor, estimate_of("Dm"), TrackInfo("new"), "written", None, "8B", major),
        page_track(tmp_path / "f.mp3", None, estimate_of("Dm"), TrackInfo("odd"), "unreadable key", None, "\x1bloud"),
    ]
    save_page(tmp_path / "a.html", tracks)
    browser.set_window_size(1900, 900)
    browser.get((tmp_path / "a.html").as_uri())
    assert cells(browser, "Confidence") == ["7A 80%", "80%", "no key", "", "80%", "7A 80%"]
    assert cells(browser, "Tag key") == ["8B", "Dm", "8B", "8B", "8B", "\\x1bloud"]
    assert cells(browser, "Relation") == ["clash", "same", "", "", "clash", ""]
    assert browser.find_element("id", "unknown").text.startswith("1 track not analyzed")
    texts = []
    for row in range(len(tracks)):
        browser.find_elements("css selector", ".row")[row].click()
        texts.append(" ".join(browser.find_element("id", "more").text.split()))
    assert "8B C major, Open Key 1d" in texts[0]
    assert "Detected: 7A D minor, 80% Key in the file: 8B (clash)" in texts[0]
    assert "Candidates 7A Dm 80%" in texts[0]
    assert "Detected" not in texts[1]
    assert "Detected: no key" in texts[2]
    assert "stone has not analyzed this track" in texts[3]
    assert "Key in the file before: 8B" in texts[4]
    assert "stone cannot read the key that the file names." in texts[5]
    assert "Detected: 7A D minor, 80% Key in the file: \\x1bloud" in texts[5]
    assert all("not analyzed" not in text for text in (*texts[:3], *texts[4:]))


def test_a_key_from_a_collection_is_not_called_a_tag(browser: Any, tmp_path: Path, estimate_of: EstimateOf) -> None:
    major, estimates = Key.parse("C"), (estimate_of("Dm"), None)
    tracks = [
        page_track(tmp_path / "a.mp3", major, found, TrackInfo(), "kept", None, "8B", major, is_from_collection=True)
        for found in estimates
    ]
    save_page(tmp_path / "a.html", tracks)
    browser.get((tmp_path / "a.html").as_uri())
    for row in range(len(tracks)):
        browser.find_elements("css selector", ".row")[row].click()
        text = " ".join(browser.find_element("id", "more").text.split())
        assert "Key in the rekordbox XML: 8B" in text
        assert "Key in the file" not in text
        assert "its tags" not in text
    assert "the key is the one in the rekordbox XML." in text


def test_two_different_keys_of_a_file_are_shown(browser: Any, tmp_path: Path) -> None:
    minor, other = Key.parse("Am"), Key.parse("Em")
    save_page(
        tmp_path / "a.html",
        [page_track(tmp_path / "a.mp3", minor, None, TrackInfo(), "kept", None, "Am", minor, other_key=other)],
    )
    browser.get((tmp_path / "a.html").as_uri())
    browser.find_element("css selector", ".row").click()
    assert "Two different keys: the other one is 9A" in browser.find_element("id", "more").text


RELATIONS = {"Am": "same", "C": "relative", "Em": "fifth", "Dm": "fifth", "A": "parallel", "Bbm": "clash"}


@pytest.fixture
def compared(browser: Any, tmp_path: Path, estimate_of: EstimateOf) -> Any:
    """The page of tracks whose tag says A minor, with different detected keys, and of one without a tag."""
    tag = Key.parse("Am")
    tracks = [
        page_track(tmp_path / f"{key}.mp3", tag, estimate_of(key), TrackInfo(key, bpm=100 + n), "kept", None, "8A", tag)
        for n, key in enumerate(RELATIONS)
    ]
    tracks.append(page_track(tmp_path / "new.mp3", tag, estimate_of("Am"), TrackInfo("new"), "written"))
    save_page(tmp_path / "a.html", tracks)
    browser.get((tmp_path / "a.html").as_uri())
    return browser


def choose(page: Any, field: str, value: str) -> set[str]:
    """The names of the tracks after a choice in a list of the filters."""
    page.find_element("css selector", f"#{field} option[value='{value}']").click()
    return set(names(page))


def test_the_relation_of_both_keys_is_shown_and_filtered(compared: Any) -> None:
    assert cells(compared, "Relation") == [*RELATIONS.values(), ""]
    options = texts(compared, "#relation option")
    assert options == [
        *("any", "different (5)", "same (1)", "relative (1)", "fifth (2)", "parallel (1)"),
        *("clash (1)", "not compared (1)"),
    ]
    assert choose(compared, "relation", "clash") == {"Bbm"}
    assert choose(compared, "relation", "fifth") == {"Em", "Dm"}
    assert choose(compared, "relation", "different") == {"C", "Em", "Dm", "A", "Bbm"}
    assert choose(compared, "relation", "unknown") == {"new"}
    assert count(compared) == "1 of 7"
    compared.find_element("id", "reset").click()
    assert count(compared) == "7 tracks"


def test_the_status_filters(compared: Any) -> None:
    assert choose(compared, "status", "written") == {"new"}
    assert choose(compared, "status", "kept") == set(RELATIONS)


def test_a_range_of_tempos(compared: Any) -> None:
    low, high = compared.find_element("id", "low"), compared.find_element("id", "high")
    low.send_keys("101,5")
    assert names(compared) == ["Em", "Dm", "A", "Bbm"]  # the track without a tempo is not in any range
    high.send_keys("104")
    assert names(compared) == ["Em", "Dm", "A"]
    low.clear()
    low.send_keys("fast")
    assert low.get_attribute("aria-invalid") == "true"
    assert len(names(compared)) == 5  # only the highest tempo counts


def test_columns_without_values_are_not_shown(browser: Any, tmp_path: Path) -> None:
    save_page(tmp_path / "a.html", [page_track(tmp_path / f"{n}.mp3", None, None, TrackInfo(), "kept") for n in "ab"])
    browser.get((tmp_path / "a.html").as_uri())
    assert texts(browser, "#names > *") == ["Key", "Track", ""]
    assert not browser.find_element("id", "relation").is_displayed()
    assert not browser.find_element("id", "tempo").is_displayed()


def test_one_track_is_no_tracks(browser: Any, tmp_path: Path) -> None:
    save_page(tmp_path / "a.html", [page_track(tmp_path / "a.mp3", Key.parse("Am"), None, TrackInfo(), "kept")])
    browser.get((tmp_path / "a.html").as_uri())
    assert count(browser) == "1 track"
    group = browser.find_element("css selector", f"#wheel g[data-key='{Key.parse('Am').index}']")
    assert group.get_attribute("aria-label") == "8A Am, 1 track"
    assert browser.find_element("id", "legend").text == "Nothing on this page mixes with it."


def test_a_page_without_tracks_says_so(browser: Any, tmp_path: Path) -> None:
    save_page(tmp_path / "a.html", [])
    browser.get((tmp_path / "a.html").as_uri())
    assert browser.find_element("id", "nothing").text == "No tracks on this page."


def test_the_keyboard(page: Any) -> None:
    """Through the list, to what mixes, and back; a screen reader is told which row it is."""
    from selenium.webdriver import Keys

    def press(key: str) -> None:
        page.switch_to.active_element.send_keys(key)
        page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def focused() -> str:
        return str(page.switch_to.active_element.get_attribute("id"))

    def spoken() -> tuple[str, str, str]:
        """From the accessibility tree: role and name of the focused grid, and the number of its active row."""
        grid = page.switch_to.active_element
        row = page.find_element("id", grid.get_attribute("aria-activedescendant"))
        assert row.get_attribute("aria-selected") == "true"
        assert grid.get_attribute("aria-rowcount") == str(MANY + 1)
        return grid.aria_role, grid.accessible_name, row.get_attribute("aria-rowindex")

    page.execute_script("document.getElementById('table').focus()")
    press(Keys.ARROW_DOWN)
    press(Keys.ARROW_DOWN)
    assert spoken() == ("grid", "Tracks", "3")
    press(Keys.END)
    assert spoken()[2] == str(MANY + 1)
    assert names(page)[-1] == f"Title {MANY - 4}"
    page.find_element("css selector", ".near .open").send_keys(Keys.ENTER)
    assert focused() == "close"
    assert len(page.find_elements("css selector", ".row[aria-selected=true]")) == 1  # the table went there
    press(Keys.ENTER)
    assert focused() == "table"
    press(Keys.HOME)
    assert spoken()[2] == "2"
    page.find_element("id", "close").send_keys(Keys.ESCAPE)
    assert focused() == "table"
    assert not page.find_element("id", "more").is_displayed()
    press("/")
    assert focused() == "search"
    page.switch_to.active_element.send_keys("zz top", Keys.ENTER)  # selects the first track that is found
    assert focused() == "table"
    assert page.find_element("css selector", "#more h2").text == "Zz top"
    press("?")
    assert page.find_element("id", "keys").is_displayed()
    press(Keys.ESCAPE)
    assert not page.find_element("id", "keys").is_displayed()


def test_the_arrow_keys_walk_around_the_wheel(page: Any) -> None:
    from selenium.webdriver import Keys

    def press(*pressed: str) -> str:
        for key in pressed:
            page.switch_to.active_element.send_keys(key)
        return str(page.switch_to.active_element.accessible_name).split()[0]

    assert [
        group.accessible_name.split()[0] for group in page.find_elements("css selector", "#wheel [tabindex='0']")
    ] == ["8A"]
    page.execute_script("document.querySelector('#wheel [tabindex=\"0\"]').focus()")
    assert press(Keys.ARROW_RIGHT) == "9A"
    assert press(Keys.ARROW_UP) == "9B"
    assert press(*[Keys.ARROW_RIGHT] * 4) == "1B"
    assert press(Keys.ARROW_DOWN, Keys.ARROW_LEFT) == "12A"
    press(Keys.ENTER)
    assert set(cells(page, "Key")) == {"12A C#m"}


def test_sort(page: Any, library: tuple[Path, list[dict[str, Any]]]) -> None:
    def click(name: str) -> None:
        page.find_element("xpath", f"//button[text()='{name}']").click()

    click("Track")
    assert names(page)[0].startswith("<")
    assert names(page)[2:4] == ["Title 0", "Title 1"]  # by number, not by digit
    click("Track")
    assert names(page)[0] == "Zz top"
    click("Confidence")
    best = max(track["confidence"] or 0 for track in library[1])
    assert names(page)[0] in {track["title"] for track in library[1] if track["confidence"] == best}
    click("BPM")
    bpms = [float(text) for text in cells(page, "BPM")]
    assert bpms == sorted(bpms)
    header = page.find_element("css selector", "#names [aria-sort]")
    assert (header.text.split()[0], header.get_attribute("aria-sort")) == ("BPM", "ascending")


def test_the_wheel_counts_and_filters(page: Any, library: tuple[Path, list[dict[str, Any]]]) -> None:
    minor = Key.parse("Am").index
    wanted = sum(track["key"] == minor for track in library[1])
    group = page.find_element("css selector", f"#wheel g[data-key='{minor}']")
    assert group.get_attribute("aria-label") == f"8A Am, {wanted} tracks"
    group.find_element("css selector", "path").click()
    assert count(page) == f"{wanted} of 2,000"
    assert set(cells(page, "Key")) == {"8A Am"}
    page.find_element("id", "clear").click()
    assert count(page) == "2,000 tracks"


def test_names_are_text(page: Any) -> None:
    assert names(page)[0] == printable(EVIL)
    page.find_element("css selector", ".row").click()
    assert page.find_element("css selector", "#more h2").text == printable(EVIL)
    assert page.execute_script("return document.querySelectorAll('img').length") == 0
    assert page.execute_script("return document.querySelectorAll('script').length") == 2


def test_the_page_agrees_with_stone_mix(page: Any, library: tuple[Path, list[dict[str, Any]]]) -> None:
    type_into_search(page, "title 1925")
    page.find_element("css selector", ".row").click()
    shown = page.execute_script(
        "const texts = line => [...line.childNodes].map(node => node.textContent);"
        "return [...document.querySelectorAll('.near .open')].map(texts);"
    )

    def track(record: dict[str, Any]) -> Track:
        key, first, last = (Key.from_index(record[name]) for name in ("key", "in", "out"))
        return Track(Path(record["path"]), key, "tag", record["cents"], record["bpm"], first, last)

    chosen = next(record for record in library[1] if record["title"] == "Title 1925")
    assert chosen["out"] != chosen["key"]
    found = []
    for number, record in enumerate(library[1]):
        if record is not chosen and record["key"] >= 0:
            move = transition(track(chosen), track(record))
            if move.cost <= COMPATIBLE_COST and move.name != "clash":
                found.append((round(move.cost, 6), number, record["title"], move.name))
    assert f"Mixes with {len(found):,}" in page.find_element("id", "more").text
    assert len(shown) == 50
    assert [line[0] for line in shown] == [title for _, _, title, _ in sorted(found)[:50]]
    assert [line[1].split(" · ")[1] for line in shown] == [move for *_, move in sorted(found)[:50]]
    page.find_element("id", "reset").click()
    page.find_element("css selector", "#more .actions button:last-child").click()  # only what mixes
    assert count(page) == f"{len(found) + 1:,} of 2,000"
    assert names(page)[1:10] == [title for _, _, title, _ in sorted(found)[:9]]
    assert key_transition(Key.parse("Am"), Key.parse("Em")) == "one up"


def test_a_file_that_the_browser_reaches_is_played(page: Any) -> None:
    type_into_search(page, "zz top")
    page.find_element("css selector", ".row").click()
    seconds = page.execute_async_script(
        "const audio = document.querySelector('#more audio'), done = arguments[0];"
        "audio.addEventListener('loadedmetadata', () => done(audio.duration));"
        "audio.addEventListener('error', () => done(-1)); audio.preload = 'auto'; audio.load();"
    )
    assert seconds == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("width", "height"), [(390, 844), (820, 1180), (1280, 800), (1920, 1080)])
def test_nothing_is_wider_than_the_window(page: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.refresh()
    wide = "return [document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth, innerHeight]"
    page.find_element("css selector", ".row:nth-child(5)").click()
    assert page.execute_script(wide) == [width, width, width, height]
    assert page.execute_script("return document.getElementById('table').clientHeight") > 200
    shot(page, str(width))
    assert " · same key" in page.find_element("css selector", ".near .open").text
    page.find_element("id", "close").click()  # fails where something lies above it
    assert not page.find_element("id", "more").is_displayed()
    for button in page.find_elements("css selector", "nav button, #more-filters"):
        if button.is_displayed():
            button.click()
            assert page.execute_script(wide) == [width, width, width, height]


def test_a_phone_has_a_view_for_each_task(page: Any) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.refresh()

    def open_view(name: str) -> list[bool]:
        page.find_element("css selector", f"nav [data-view={name}]").click()
        return [page.find_element("id", part).is_displayed() for part in ("wheel", "set")]

    assert open_view("wheel") == [True, False]
    page.find_element("css selector", "#wheel g[data-key='21'] path").click()
    page.find_element("id", "show").click()
    assert set(cells(page, "Key")) == {"8A"}
    page.find_element("css selector", ".row .plus").click()
    assert open_view("set") == [False, True]
    assert page.find_element("css selector", "nav [data-view=set]").text == "Set (1)"
    assert len(page.find_elements("css selector", "#order .item")) == 1


FINGER = 40  # CSS pixels; WCAG 2.2, success criterion 2.5.8, asks for 24
SMALL_TARGETS = """
return [...document.querySelectorAll("button, input, select, audio")].filter(element => element.checkVisibility())
  .map(element => [element.id || element.className || element.textContent, element.getBoundingClientRect()])
  .filter(([, box]) => box.width && Math.min(box.width, box.height) < arguments[0] - 0.5)
  .map(([name, box]) => `${name} ${Math.round(box.width)} x ${Math.round(box.height)}`)
"""


def test_a_long_title_does_not_fill_the_sheet_of_a_track(browser: Any, tmp_path: Path) -> None:
    """The key and the buttons stay in view; the list has one line per track."""
    info = TrackInfo(title="word " * 600, artist="name " * 600, genre="genre " * 600)
    save_page(tmp_path / "a.html", [page_track(tmp_path / "a.mp3", Key.parse("Am"), None, info, "kept")])
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((tmp_path / "a.html").as_uri())
    browser.find_element("css selector", ".row .name").click()
    for element in ("h2", ".facts", ".actions", "#close"):
        box = browser.execute_script(
            "const { top, bottom, right } = document.querySelector('#more').querySelector(arguments[0])"
            ".getBoundingClientRect(); return [top, bottom, right]",
            element,
        )
        assert 0 < box[0] < box[1] < 844, element
        assert box[2] <= 390, element


def test_a_finger_hits_every_target_on_a_phone(page: Any) -> None:
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.refresh()
    page.find_element("id", "more-filters").click()
    for index in (4, 5):
        page.execute_script(f"document.querySelectorAll('.row .plus')[{index}].click()")
    page.find_elements("css selector", ".row")[1].click()
    small = page.execute_script(SMALL_TARGETS, FINGER)
    page.find_element("id", "close").click()
    for name in ("wheel", "set"):
        page.find_element("css selector", f"nav [data-view={name}]").click()
        if name == "set":
            page.find_element("css selector", "#order .open").click()
        small += page.execute_script(SMALL_TARGETS, FINGER)
        shot(page, f"finger-{name}")
    page.execute_script("document.getElementById('help').click()")
    assert small + page.execute_script(SMALL_TARGETS, FINGER) == []


def test_outlines_lie_above_the_sectors(page: Any) -> None:
    """Otherwise, the border of each sector covers half of the outline of the one before."""
    page.find_element("css selector", ".row").click()
    outlined = page.execute_script(
        "const wheel = document.getElementById('wheel'), smooth = [...wheel.querySelectorAll('g.smooth')];"
        "const shape = element => element.querySelector('path').getAttribute('d');"
        "const over = [...wheel.querySelectorAll('#outlines path')].map(path => path.getAttribute('d'));"
        "const last = [...wheel.querySelectorAll('g')].at(-1).id;"
        "return [smooth.length, over.length, smooth.every(group => over.includes(shape(group))), last]"
    )
    assert outlined == [4, 4, True, "outlines"]


def test_scrollbars_have_the_colors_of_the_page(page: Any) -> None:
    """Firefox draws white ones on a dark page otherwise."""
    color = "return getComputedStyle(document.getElementById(arguments[0])).scrollbarColor"
    assert all(
        page.execute_script(color, name).endswith(" rgba(0, 0, 0, 0)") for name in ("table", "more", "order-box")
    )


READABLE = 4.5  # WCAG 2.2, success criterion 1.4.3: contrast of text
# For all texts on the page: what it says, its class or tag, and the contrast to what is behind it.
CONTRASTS = """
const parts = text => { const [r, g, b, a = 1] = text.match(/[0-9.]+/g).map(Number); return [r, g, b, a]; };
const over = ([r, g, b, a], below) => [r, g, b].map((part, index) => part * a + below[index] * (1 - a));
const light = color => color.slice(0, 3).map(part => part / 255)
  .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
function behind(element) {
  if (!element) return [255, 255, 255];
  const style = getComputedStyle(element), [r, g, b, a] = parts(style.backgroundColor);
  return a === 1 ? [r, g, b] : over([r, g, b, a], behind(element.parentElement));
}
const found = [];
function add(element, text, color) {
  let below = behind(element);
  const shape = element.tagName === "text" && element.closest("g")?.querySelector("path");
  if (shape) {
    const style = getComputedStyle(shape);
    below = over([...parts(style.fill).slice(0, 3), Number(style.opacity)], below);
  }
  const [high, low] = [light(over(parts(color), below)), light(below)].sort((one, other) => other - one);
  found.push([text, element.getAttribute("class") || element.id || element.tagName, (high + 0.05) / (low + 0.05)]);
}
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
  if (!text || !element.checkVisibility() || element.tagName === "SCRIPT") continue;
  const style = getComputedStyle(element);
  add(element, text, element.tagName === "text" ? style.fill : style.color);
}
const search = document.getElementById("search");
add(search, search.placeholder, getComputedStyle(search, "::placeholder").color);
return found;
"""


def media(scheme: str) -> list[dict[str, str]]:
    """The color scheme, and no transitions, in which colors would be in between."""
    return [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(page: Any, scheme: str, width: int) -> None:
    """In both color schemes: the table, an error in it, a chosen track, the wheel and a set with a warning."""
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media(scheme)})
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(19, 20, 25)"}[scheme]
    for row in range(4, 16):  # some of them clash
        page.execute_script(f"document.querySelectorAll('.row')[{row}].querySelector('.plus').click()")
    page.find_elements("css selector", ".row")[3].click()
    seen = page.execute_script(CONTRASTS)
    shot(page, f"{scheme}-{width}-track")
    page.execute_script("document.querySelector('#more .actions button:last-child').click()")
    seen += page.execute_script(CONTRASTS)
    page.execute_script("document.getElementById('reset').click()")
    page.execute_script("document.getElementById('close')?.click()")
    page.execute_script("document.querySelector('#wheel g[data-key=\"3\"]').dispatchEvent(new Event('click'))")
    for name in ("wheel", "set", "tracks"):
        page.execute_script("document.body.dataset.view = arguments[0]", name)
        seen += page.execute_script(CONTRASTS)
        shot(page, f"{scheme}-{width}-{name}")
    page.execute_script("document.getElementById('reset').click()")
    seen += page.execute_script(CONTRASTS)
    assert {"chip", "error", "path", "count", "sum", "word", "between clash", "between", "faint"} <= {
        name for _, name, _ in seen
    }
    assert len(seen) > 200
    assert [text for text in seen if text[2] < READABLE] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_chosen_and_kept(page: Any, scheme: str) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media(scheme)})
    before = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    page.find_element("id", "theme").click()
    after = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert {before, after} == {"rgb(255, 255, 255)", "rgb(19, 20, 25)"}
    page.refresh()
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == after


def shot(page: Any, name: str) -> None:
    """A picture of the page, to be looked at."""
    if folder := os.environ.get("STONE_SCREENSHOTS"):
        page.save_screenshot(f"{folder}/{name}.png")


def test_the_page_of_one_track(browser: Any, tmp_path: Path, estimate_of: EstimateOf) -> None:
    estimate = estimate_of("Am", changes_to="Eb")
    save_page(
        tmp_path / "a.html", [page_track(tmp_path / "a.mp3", estimate.key, estimate, TrackInfo("One"), "detected")]
    )
    browser.get((tmp_path / "a.html").as_uri())
    assert texts(browser, ".time:not(.thin) span") == ["8A", "5B"]
    assert len(browser.find_elements("css selector", ".time.thin span")) == 2
    assert browser.find_element("css selector", ".candidates .chip").text == "8A"
    assert "Starts in 8A, ends in 5B" in browser.find_element("id", "more").text
    assert "A = 436.9 Hz (−12 cents)" in browser.find_element("id", "more").text
    assert "mixes with it" not in browser.find_element("id", "more").text  # there is nothing else
    assert len(browser.find_elements("css selector", "#more .keys .chip")) == 11
