"""The set that is built on the page, in Chromium: dragging, keyboard, touch, warnings, export, reloading."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from stonecli.detection.estimate import KeyEstimate
from stonecli.key import Key
from stonecli.library.crates import read_crate
from stonecli.mixing.transitions import Track, cost_matrix
from stonecli.output.page import page_track, save_page
from stonecli.tags.track_info import TrackInfo
from tests.page_texts import texts

EVIL = '<img src=x onerror="alert(1)">\u202e\n#EXTINF:1,'
KEYS = {
    "One": ("Am", 124.0),
    "Two": ("Em", 125.0),
    "Three": ("C", 124.0),
    "Four": ("Bbm", 124.0),
    "Five": ("Am", 174.0),
}

NewPage = Callable[..., Any]


@pytest.fixture
def new_page(browser: Any, tmp_path: Path) -> NewPage:
    """Opens a page of these tracks, by title their key and tempo."""

    def opened(keys: dict[str, tuple[str, float]] = KEYS, folder: Path | None = None) -> Any:
        folder = folder or tmp_path
        tracks = []
        for title, (key, bpm) in keys.items():
            info = TrackInfo(title, f"{title}'s artist", bpm=bpm, seconds=200.0)
            tracks.append(page_track(folder / f"{title}.mp3", Key.parse(key), None, info, "kept"))
        tracks.append(page_track(folder / "broken.mp3", None, None, TrackInfo(), "error", "cannot be decoded"))
        save_page(tmp_path / "page.html", tracks)
        browser.get((tmp_path / "page.html").as_uri())
        return browser

    return opened


def order(page: Any) -> list[str]:
    """The titles in the set, in their order."""
    return [name.split("\n")[0] for name in texts(page, "#order .open")]


def row(page: Any, title: str) -> Any:
    return page.find_element("xpath", f"//*[@id='space']//*[contains(@class, 'name')][starts-with(., '{title}')]")


def item(page: Any, title: str) -> Any:
    return page.find_element("xpath", f"//*[@id='order']//*[contains(@class, 'open')][starts-with(., '{title}')]")


def add(page: Any, *titles: str) -> None:
    """Click the + of these tracks; in one call each, because the page may replace its rows between two."""
    click = (
        "[...document.querySelectorAll('#space .name')].find(name => name.textContent.startsWith(arguments[0]))"
        ".parentElement.querySelector('.plus').click()"
    )
    for title in titles:
        page.execute_script(click, title)


def drag(page: Any, start: Any, end: Any, *, below: bool = True, kind: str = "mouse") -> None:
    """Press on an element, move to the lower or upper edge of another one, and release."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    pointer = PointerInput(kind, kind)
    actions = ActionChains(page, 50)
    actions.w3c_actions = ActionBuilder(page, mouse=pointer, duration=50)
    actions.click_and_hold(start).move_by_offset(0, 20)
    edge = (end.size["height"] // 2 - 1) * (1 if below else -1)
    actions.move_to_element_with_offset(end, 0, edge).release().perform()


def announced(page: Any) -> str:
    return str(page.find_element("id", "announcement").get_attribute("textContent"))


def between(page: Any) -> list[str]:
    return texts(page, ".between")


def test_tracks_are_dragged_into_the_set(new_page: NewPage) -> None:
    page = new_page()
    box = page.find_element("id", "order-box")
    drag(page, row(page, "One"), box)
    drag(page, row(page, "Two"), box)
    assert order(page) == ["One", "Two"]
    drag(page, row(page, "Three"), item(page, "Two"), below=False)
    assert order(page) == ["One", "Three", "Two"]
    drag(page, row(page, "Two"), item(page, "One"), below=False)  # is in it, so it is moved
    assert order(page) == ["Two", "One", "Three"]
    assert not page.find_element("id", "more").is_displayed()  # dragging selects nothing
    drag(page, row(page, "Four"), row(page, "One"))  # not into the set
    drag(page, row(page, "broken"), box)
    assert order(page) == ["Two", "One", "Three"]
    assert page.find_elements("css selector", "#ghost, .dragging") == []


def test_tracks_of_the_set_are_dragged_to_another_position(new_page: NewPage) -> None:
    page = new_page()
    add(page, "One", "Two", "Three", "Four")
    drag(page, item(page, "Four"), item(page, "One"), below=False)
    assert order(page) == ["Four", "One", "Two", "Three"]
    drag(page, item(page, "Four"), item(page, "Two"))
    assert order(page) == ["One", "Two", "Four", "Three"]
    assert announced(page).startswith("Four: moved, number 3 of 4, warning: clash")


def test_escape_ends_a_drag(new_page: NewPage) -> None:
    from selenium.webdriver import ActionChains, Keys

    page = new_page()
    add(page, "One", "Two")
    actions = ActionChains(page, 50).click_and_hold(item(page, "Two")).move_by_offset(0, -20)
    actions.move_to_element(item(page, "One")).send_keys(Keys.ESCAPE).release().perform()
    assert order(page) == ["One", "Two"]


def test_a_finger_adds_with_plus_and_drags_the_handle(new_page: NewPage) -> None:
    page = new_page()
    metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.refresh()
    add(page, "One", "Two", "Three")
    page.find_element("css selector", "nav [data-view=set]").click()
    handles = page.find_elements("css selector", ".handle")
    drag(page, handles[2], handles[0], below=False, kind="touch")
    assert order(page) == ["Three", "One", "Two"]
    item(page, "Two").click()  # without dragging: its buttons
    page.find_element("css selector", "#order [aria-label='Move Two up']").click()
    assert order(page) == ["Three", "Two", "One"]
    page.find_element("css selector", "#order [aria-label='Remove Three from the set']").click()
    assert order(page) == ["Two", "One"]


def test_the_keyboard_builds_a_set(new_page: NewPage) -> None:
    from selenium.webdriver import ActionChains, Keys

    page = new_page()

    def press(*pressed: str) -> str:
        for key in pressed:
            page.switch_to.active_element.send_keys(key)
        return str(page.switch_to.active_element.text.split("\n")[0])

    page.execute_script("document.getElementById('table').focus()")
    press(Keys.ARROW_DOWN, Keys.ENTER, Keys.ARROW_DOWN, Keys.ENTER, Keys.ARROW_DOWN, Keys.ENTER, Keys.ENTER)
    assert order(page) == ["One", "Two", "Three"]
    assert announced(page) == "Three is already number 3 of 3"
    page.execute_script("document.querySelector('#order .open').focus()")
    assert press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN) == "Three"
    ActionChains(page).key_down(Keys.ALT).send_keys(Keys.ARROW_UP).key_up(Keys.ALT).perform()
    assert order(page) == ["One", "Three", "Two"]
    assert announced(page) == "Three: moved, number 2 of 3"
    assert press() == "Three"  # it still has the focus
    assert press(Keys.DELETE) == "Two"
    assert order(page) == ["One", "Two"]
    ActionChains(page).key_down(Keys.CONTROL).send_keys("zz").key_up(Keys.CONTROL).perform()
    assert order(page) == ["One", "Two", "Three"]
    label = page.find_element("css selector", "#order .act").accessible_name
    assert label == "Remove One from the set"


def test_transitions_are_shown_and_clashes_warned_of(new_page: NewPage) -> None:
    page = new_page()
    add(page, "One", "Two", "Three", "Four", "Five")
    assert between(page) == [
        "↓ one up · +0.8%",
        "↓ diagonal · −0.8%",
        "⚠ 8B → 3A clash · same tempo",
        "⚠ energy drop · +40.3%",
    ]
    assert page.find_element("id", "set-facts").text == "5 tracks · 16:40 · 2 warnings"
    assert announced(page) == "Five: added, number 5 of 5, warning: energy drop · +40.3%"
    starts = [name.split("\n")[1].split(" · ")[0] for name in texts(page, "#order .open")]
    assert starts == ["0:00", "3:20", "6:40", "10:00", "13:20"]


def test_half_tempo_and_tuning_are_named(browser: Any, tmp_path: Path, estimate_of: Callable[..., KeyEstimate]) -> None:
    flat, estimate = estimate_of("Am"), estimate_of("Am")
    object.__setattr__(estimate, "tuning_cents", 7.0)
    tracks = [
        page_track(tmp_path / "a.mp3", flat.key, flat, TrackInfo("a", bpm=87.0), "detected"),
        page_track(tmp_path / "b.mp3", estimate.key, estimate, TrackInfo("b", bpm=174.0), "detected"),
        page_track(tmp_path / "c.mp3", None, None, TrackInfo("c", bpm=174.0), "no key"),
    ]
    save_page(tmp_path / "page.html", tracks)
    browser.get((tmp_path / "page.html").as_uri())
    add(browser, "a", "b", "c")
    assert between(browser) == ["↓ same key · half or double tempo · 19 cents sharper", "↓ key unknown · same tempo"]


def test_best_order_keeps_the_start_and_saves_cost(new_page: NewPage) -> None:
    keys = ["Am", "Bbm", "Em", "Fm", "Bm", "Cm", "C", "Gm", "Dm", "F#m"]
    page = new_page({f"Track {n}": (key, 120.0 + n % 3) for n, key in enumerate(keys)})
    titles = [f"Track {n}" for n in range(len(keys))]
    add(page, *titles)
    page.find_element("id", "best").click()
    after = order(page)
    costs = cost_matrix([Track(Path(), Key.parse(key), bpm=120.0 + n % 3) for n, key in enumerate(keys)])

    def cost(path: list[str]) -> float:
        indices = [titles.index(title) for title in path]
        return float(sum(costs[one, other] for one, other in pairwise(indices)))

    assert after[0] == "Track 0"
    assert sorted(after) == titles
    assert cost(after) < cost(titles) / 2
    page.find_element("id", "undo").click()
    assert order(page) == titles


def test_a_track_of_the_set_lights_the_keys_that_mix(new_page: NewPage) -> None:
    page = new_page()
    add(page, "One", "Four")
    item(page, "Four").click()
    assert page.find_element("css selector", "#more h2").text == "Four"
    assert page.find_element("css selector", "#wheel .sum").text == "3A"
    classes = [box.get_attribute("class") for box in page.find_elements("css selector", ".item")]
    assert classes == ["item", "item chosen"]


def test_the_next_track_is_chosen_from_those_that_mix(new_page: NewPage) -> None:
    page = new_page()
    assert not page.find_element("id", "next").is_displayed()
    add(page, "Two", "One")
    page.find_element("id", "next").click()
    names = [name.split("\n")[0] for name in texts(page, ".row .name")]
    assert names == ["One", "Three", "Two", "Four"]  # the last track, then by cost
    assert page.find_element("css selector", "#pin span").text == "Mixes with One's artist – One (8A)"
    page.find_element("css selector", "#pin button").click()
    assert page.find_element("id", "count").text == "6 tracks"


def exported(page: Any, folder: Path) -> Path:
    """Click on export, and wait for the file."""
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    page.find_element("id", "export").click()
    deadline = time.monotonic() + 30
    while not (found := list(folder.glob("*.m3u8"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(found) == 1, list(folder.iterdir())
    return found[0]


def test_the_export_is_a_playlist_of_the_files(new_page: NewPage, tmp_path: Path) -> None:
    music, downloads = tmp_path / "My müsic #1 100%", tmp_path / "downloads"
    music.mkdir()
    downloads.mkdir()
    page = new_page(folder=music)
    page.find_element("id", "set-name").send_keys("Saturday / late")
    add(page, "Two", "One")
    path = exported(page, downloads)
    assert path.name == "Saturday late.m3u8"
    assert path.read_bytes().decode() == (
        "#EXTM3U\n#PLAYLIST:Saturday / late\n"
        f"#EXTINF:200,Two's artist - Two\n{music / 'Two.mp3'}\n#EXTINF:200,One's artist - One\n{music / 'One.mp3'}\n"
    )


def test_hostile_names_stay_text_in_set_and_export(browser: Any, tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    folder.mkdir()
    names = [EVIL + "1.mp3", "line\nbreak.mp3", "\udcff.mp3", " space.mp3", "javascript:alert(1).mp3"]
    tracks = [page_track(tmp_path / name, Key.parse("Am"), None, TrackInfo(EVIL, EVIL), "kept") for name in names]
    save_page(tmp_path / "page.html", tracks)
    browser.get((tmp_path / "page.html").as_uri())
    for plus in range(len(names)):
        browser.find_elements("css selector", ".row .plus")[plus].click()
    browser.find_elements("css selector", ".row")[0].click()
    browser.find_element("css selector", "#more .actions button:last-child").click()
    browser.find_element("id", "set-name").send_keys('<script>alert(1)</script>"')
    assert len(order(browser)) == len(names)
    added = "return document.querySelectorAll('img, #order script, #set-head script').length"
    assert browser.execute_script(added) == 0
    assert browser.execute_script("return document.querySelectorAll('script').length") == 2
    path = exported(browser, folder)
    assert path.name == "script alert(1) script.m3u8"
    assert {entry.location for entry in read_crate(path)} == {tmp_path / name for name in names}
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) == 2 + 2 * len(names)  # no name breaks its line
    entries = [line for line in lines if not line.startswith("#")]
    uris = {entry for entry in entries if entry.startswith("file://")}
    assert len(uris) == 3  # two with line breaks, and one that is not UTF-8
    assert {entry for entry in entries if entry not in uris} == {
        str(tmp_path / " space.mp3"),
        str(tmp_path / "javascript:alert(1).mp3"),
    }


def test_the_set_survives_a_reload_and_a_new_page(new_page: NewPage) -> None:
    page = new_page()
    page.find_element("id", "set-name").send_keys("Saturday")
    add(page, "Two", "One", "Five")
    page.find_element("id", "search").send_keys("thr")
    page.refresh()
    assert order(page) == ["Two", "One", "Five"]
    assert page.find_element("id", "set-name").get_attribute("value") == "Saturday"
    assert page.find_element("id", "search").get_attribute("value") == "thr"
    assert page.find_element("id", "count").text == "1 of 6"
    new_page({title: KEYS[title] for title in ("Four", "One", "Two")})  # a later run, without Five
    assert order(page) == ["Two", "One"]
    assert page.find_element("id", "lost").text == "1 track of the saved set is not on this page."
    page.find_element("id", "empty-set").click()
    assert not page.find_element("id", "lost").is_displayed()
    page.find_element("id", "undo").click()
    assert page.find_element("id", "lost").is_displayed()
    add(page, "Four")
    new_page()  # it is back
    assert order(page) == ["Two", "One", "Four", "Five"]


def test_without_storage_the_set_is_in_the_address(browser: Any, new_page: NewPage) -> None:
    blocked = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('blocked'); } });"
    script = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": blocked})
    try:
        page = new_page()
        add(page, "Three", "One")
        assert "#" in page.current_url
        page.refresh()
        assert order(page) == ["Three", "One"]
    finally:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


@pytest.mark.parametrize("saved", ["{", "null", "[1]", '{"tracks": "x"}', '{"tracks": [1, {}], "name": 5}'])
def test_a_damaged_saved_set_is_ignored(new_page: NewPage, saved: str) -> None:
    page = new_page()
    page.execute_script("localStorage.setItem('stone ' + location.pathname, arguments[0])", saved)
    page.refresh()
    assert order(page) == []
    add(page, "One")
    assert order(page) == ["One"]


def test_clearing_can_be_undone(new_page: NewPage) -> None:
    page = new_page()
    add(page, "One", "Two")
    page.find_element("id", "empty-set").click()
    assert order(page) == []
    assert page.find_element("id", "empty").is_displayed()
    assert not page.find_element("id", "export").is_enabled()
    page.find_element("id", "undo").click()
    assert order(page) == ["One", "Two"]


def test_enter_adds_no_track_that_the_filter_hides(new_page: NewPage) -> None:
    from selenium.webdriver import Keys

    page = new_page()
    row(page, "One").click()
    table, search = page.find_element("id", "table"), page.find_element("id", "search")
    search.send_keys("no such track")
    table.send_keys(Keys.ENTER)
    assert order(page) == []
    search.clear()
    search.send_keys("one")
    table.send_keys(Keys.ENTER)
    assert order(page) == ["One"]


def test_clearing_in_one_window_clears_in_the_other(new_page: NewPage) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    page = new_page()
    add(page, "One", "Two")
    first, address = page.current_window_handle, page.current_url
    page.switch_to.new_window("window")
    try:
        page.get(address)
        page.find_element("id", "empty-set").click()
    finally:
        page.close()
        page.switch_to.window(first)
    WebDriverWait(page, 10).until(lambda page: not order(page))
    add(page, "Three")
    page.refresh()
    assert order(page) == ["Three"]


@pytest.mark.skipif(os.sep != "/", reason="paths of other systems")
def test_paths_of_windows_have_backslashes(new_page: NewPage) -> None:
    page = new_page()
    script = "data.separator = '\\\\'; return arguments[0].map(playlistPath)"
    uris = ["file:///C:/Music/a%20b.mp3", "file:////server/share/a.mp3"]
    assert page.execute_script(script, uris) == ["C:\\Music\\a b.mp3", "\\\\server\\share\\a.mp3"]
