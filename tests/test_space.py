"""The Space in a real browser, which has no network but this machine."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import itertools
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import RepoCard
from PIL import Image
from transformers import AutoConfig

from hf_video_tome import token_counts
from hf_video_tome.checkpoints import checkpoint_path
from hf_video_tome.data.moving_digits import write_clips
from hf_video_tome.data.video.decoding import read_frames
from hf_video_tome.data.video.encoding import write_video
from hf_video_tome.hub import save_checkpoint
from hf_video_tome.loading import load_classifier
from tests.scripts import load_script

if find_spec("gradio") is None:  # which takes seconds to import: `app` does when it is needed
    pytest.skip('the Space needs gradio: pip install "hf-video-tome[space]"', allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="the browser is driven by selenium: pip install selenium")

import httpx  # noqa: E402
from selenium.common.exceptions import (  # noqa: E402
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "examples" / "space"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
PATIENCE = 3000  # questions to the page, at least a tenth of a second apart: machines that test are busy
HOUR = 3600.0  # seconds: what ends sooner by itself than it should, is no finding about the page
NOT_YET = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
    StopIteration,
)
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="no chromium and chromedriver here: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def app() -> Iterator[ModuleType]:
    module = load_script("space/app")
    yield module
    del sys.modules[module.__name__]


@pytest.fixture(scope="module")
def address(app: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is served."""
    page = app.build(tmp_path_factory.mktemp("clips"))
    _, url, _ = app.launch(page, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield url
    page.close()


class Visitor:
    """What a person does with the page.

    Nothing is done or read once and for all: the page may not be there yet, or be drawn anew at that moment.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Asks until the answer is true.

        Questions are counted, not seconds: where everything is stopped for minutes, so is the page.
        """
        for _ in range(PATIENCE):
            with contextlib.suppress(*NOT_YET):
                found = condition()
                if found:
                    return found
            time.sleep(0.1)
        return pytest.fail(f"the page did not show {what}")

    def one(self, selector: str) -> Any:
        """An element; may only be used inside `wait`."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """What is written in each of the elements that are there now."""
        return self.driver.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map(it => it.innerText)", selector
        )

    def text(self, selector: str) -> str:
        return self.wait(lambda: self.texts(selector), selector)[0]

    def value(self, selector: str) -> str:
        return self.wait(lambda: [self.one(selector).get_property("value")], selector)[0]

    def click(self, selector: str) -> None:
        def click() -> bool:
            self.one(selector).click()
            return True

        self.wait(click, f"{selector} to click on")

    def facts(self) -> list[str]:
        """The values of the three cards."""
        return self.texts("#facts .value")

    def classify(self) -> list[str]:
        """Presses the button and waits for the answer: old numbers are taken away first."""
        self.driver.execute_script("document.querySelectorAll('#facts .facts').forEach(it => it.remove())")
        self.click("#classify")
        return self.wait(self.facts, "numbers")

    def enter(self, selector: str, text: str) -> None:
        def enter() -> bool:
            field = self.one(selector)
            field.click()
            field.send_keys(Keys.CONTROL, "a")
            field.send_keys(text)
            field.send_keys(Keys.ENTER)
            field.send_keys(Keys.TAB)
            return field.get_property("value") == text

        self.wait(enter, f"{text!r} in {selector}")

    def choose(self, selector: str, name: str) -> None:
        """Picks an option of a list."""

        def choose() -> bool:
            if not any(it.get_attribute("aria-label") == name for it in self.all("[role=option]")):
                self.one(f"{selector} input").click()
            next(it for it in self.all("[role=option]") if it.get_attribute("aria-label") == name).click()
            return True

        self.wait(choose, f"the option {name}")
        self.wait(lambda: self.value(f"{selector} input") == name, f"{name} as chosen")

    def upload(self, path: Path) -> None:
        """Takes the clip that is there away and uploads another."""
        self.click("#clip button[aria-label='Clear'], #clip button[title='Clear']")

        def upload() -> bool:
            self.one("#clip input[type=file]").send_keys(str(path))
            return True

        self.wait(upload, "a place for an upload")
        self.shown(path.stem)

    def shown(self, name: str) -> None:
        """Waits for a clip whose file is called that."""
        self.wait(lambda: name in str(self.one("#clip video").get_attribute("src")), f"the clip {name}")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--window-size=1240,1300",
    ):
        options.add_argument(argument)
    # No server but that of the page can be reached.
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=CHROMEDRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(HOUR)
    driver.set_script_timeout(HOUR)
    yield driver
    driver.quit()


def steady_stopwatch(seconds: float) -> Callable[[Callable[[], object]], float]:
    """Of a machine that is never busy, which the page would say in one more line."""

    def timer(run: Callable[[], object]) -> float:
        run()
        return seconds

    return timer


@pytest.fixture
def small_films(app: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Films take most of the time of an answer, and most tests do not look at them."""
    monkeypatch.setattr(app, "save_tokens", functools.partial(app.save_tokens, scale=2))


@pytest.fixture
def quick_answers(app: ModuleType, small_films: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the speed matter to them."""
    monkeypatch.setattr(app, "SECONDS_OF_TIMING", 0.0)


def open_page(driver: Any, app: ModuleType, address: str, monkeypatch: pytest.MonkeyPatch) -> Visitor:
    """Somebody who just opened the page, which answers for the first clip by itself."""
    if "SPACE_PICTURE" not in os.environ:  # which is to show what people see
        monkeypatch.setattr(app, "SECONDS_OF_TIMING", 0.0)
        milliseconds = itertools.count(50)  # no two answers are alike: the browser would not draw the second one
        monkeypatch.setattr(app, "stopwatch", lambda: steady_stopwatch(next(milliseconds) / 1000))
    driver.get("about:blank")
    driver.get_log("browser")  # what an earlier test left behind
    driver.get(address)
    visitor = Visitor(driver)
    visitor.wait(visitor.facts, "the first answer")
    return visitor


@pytest.fixture
def visitor(driver: Any, app: ModuleType, address: str, small_films: None, monkeypatch: pytest.MonkeyPatch) -> Visitor:
    return open_page(driver, app, address, monkeypatch)


@pytest.fixture
def viewer(driver: Any, app: ModuleType, address: str, monkeypatch: pytest.MonkeyPatch) -> Visitor:
    """Who looks at the film."""
    return open_page(driver, app, address, monkeypatch)


def percentages(visitor: Visitor, selector: str) -> list[str]:
    """The lines of a list of labels that say how likely they are."""
    return [line for line in visitor.text(selector).split("\n") if line.endswith("%")]


@needs_browser
def test_the_first_visit_shows_a_whole_answer(visitor, app):
    tokens, speed, answer = visitor.facts()
    assert tokens == "288 → 60"
    assert re.fullmatch(r"\d+\.\d\dx", speed)
    assert answer == "shrink 9"
    assert "79% removed" in visitor.text("#facts")
    assert "rounds in turn" in visitor.text("#facts")
    assert visitor.texts("#facts .layers div") == ["288", "250", "212", "174", "136", "98", "60"]
    for selector in ("#unmerged", "#merged"):
        visitor.wait(lambda shown=selector: len(percentages(visitor, shown)) == 5, f"five labels in {selector}")
        assert "shrink 9" in visitor.text(selector).split("\n")


@needs_browser
def test_the_film_plays_and_the_picture_in_the_docs_is_of_this_page(viewer, tmp_path):
    """`SPACE_PICTURE=docs/space.png` in the environment takes it anew."""

    def film(name: str) -> Any:
        return viewer.one("#film video").get_property(name)

    viewer.wait(lambda: film("readyState") >= 2, "a film that can be played")
    # two pictures of 48 pixels, each shown 8 times as large, with a title above and captions below
    assert film("videoWidth") == 2 * 48 * 8 + 3 * 12
    assert film("videoHeight") > 48 * 8 + 2 * 12
    assert film("duration") == pytest.approx(16 / 6, abs=0.2)

    taken, shown = Path(os.environ.get("SPACE_PICTURE", tmp_path / "space.png")), ROOT / "docs" / "space.png"
    viewer.wait(lambda: len(percentages(viewer, "#merged")) == 5, "the labels")
    viewer.driver.execute_script("""
        const film = document.querySelector("#film video");
        film.pause();
        film.currentTime = 1.1;
        document.activeElement.blur();
    """)
    viewer.wait(lambda: not viewer.one("#film video").get_property("seeking"), "one frame of the film")
    # All of the page, whatever the size of the window.
    content = viewer.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": content["width"], "height": content["height"], "scale": 1}
    picture = viewer.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    with Image.open(io.BytesIO(base64.b64decode(picture["data"]))) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(taken, optimize=True)
    with Image.open(taken) as now, Image.open(shown) as before:
        assert now.size == pytest.approx(before.size, rel=0.02)


@needs_browser
def test_settings_are_followed_and_nothing_comes_from_elsewhere_or_goes_wrong(visitor, address):
    visitor.enter("#r input[type=number]", "0")
    assert visitor.classify()[:2] == ["288 → 288", "1.00x"]
    visitor.enter("#r input[type=number]", "24")
    assert visitor.classify()[0] == "288 → 144"
    config = AutoConfig.from_pretrained(checkpoint_path(), token_merging_r=24, token_merging_schedule="decreasing")
    counts = token_counts(config)
    assert counts[1] == 240  # 2r at first
    visitor.choose("#schedule", "decreasing")
    assert visitor.classify()[0] == f"288 → {counts[-1]}"
    assert visitor.text("#facts .layers").split() == list(map(str, counts))
    assert not visitor.all("#threshold input")
    visitor.choose("#mode", "hybrid")
    visitor.value("#threshold input")
    assert visitor.classify()[0] == f"288 → {counts[-1]}"
    names = visitor.driver.execute_script("return performance.getEntriesByType('resource').map(it => it.name)")
    assert names
    assert [name for name in names if not name.startswith((address, "data:", "blob:"))] == []
    assert [entry for entry in visitor.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


@needs_browser
def test_another_checkpoint_brings_its_own_r(visitor):
    visitor.choose("#checkpoint", "timesformer-moving-digits")
    visitor.wait(lambda: visitor.value("#r input[type=number]") == "5", "r = 5")
    tokens, _, answer = visitor.classify()
    assert (tokens, answer) == ("289 → 49", "shrink 9")


@needs_browser
def test_a_video_of_ones_own(visitor, tmp_path):
    clip = write_clips(tmp_path, "test", [3])[0]
    visitor.upload(clip.path)
    assert visitor.classify()[2] == clip.path.stem.rpartition("-")[0].rpartition("-")[2] + " " + clip.path.stem[-1]
    # and one of another shape, length and rate
    frames = np.random.default_rng(0).integers(0, 256, (50, 90, 160, 3), dtype=np.uint8)
    visitor.upload(write_video(tmp_path / "noise.mp4", frames, fps=25))
    assert visitor.classify()[0] == "288 → 60"


@needs_browser
def test_a_sample_can_be_chosen(visitor):
    visitor.wait(lambda: len(visitor.all("#clips .gallery-item")) == 8, "the sample clips")

    def choose() -> bool:
        visitor.all("#clips .gallery-item")[3].click()
        return True

    visitor.wait(choose, "the fourth clip")
    visitor.shown("up-5")
    assert visitor.classify()[2] == "up 5"


@needs_browser
def test_what_goes_wrong_is_said(visitor):
    # Errors go away by themselves after some seconds: all that were shown are kept.
    visitor.driver.execute_script("""
        window.errors = [];
        const keep = () => document.querySelectorAll(".toast-body").forEach(it => window.errors.push(it.innerText));
        new MutationObserver(keep).observe(document.body, {childList: true, subtree: true, characterData: true});
    """)
    visitor.enter("#checkpoint input", "no such checkpoint")
    visitor.wait(
        lambda: "no such folder" in "".join(visitor.driver.execute_script("return window.errors")), "an error"
    )


class KnownSpeed:
    """Stands in for a stopwatch: what it times takes as long as is known, and a hundred times that at first.

    Args:
        seconds: From the r of the model to what a pass takes then.
        busy: From round to round, how many times slower the machine is just then.
    """

    def __init__(self, seconds: dict[int, float], busy: tuple[float, ...] = (1.0,)) -> None:
        self.seconds = seconds
        self.busy = busy
        self.timed: list[int] = []

    def __call__(self, run: Callable[[], object]) -> float:
        r = self.r_of(run)
        first = r not in self.timed
        slower = self.busy[self.timed.count(r) % len(self.busy)]
        self.timed.append(r)
        return self.seconds[r] * slower * (100 if first else 1)

    def r_of(self, run: Callable[[], Any]) -> int:
        return run()


def test_speed_is_the_time_without_merging_over_that_with_it(app):
    timer = KnownSpeed({0: 0.3, 8: 0.1})
    timing = app.measure(lambda r: lambda: r, 8, 4, timer)
    assert timing.speed == pytest.approx((3, 3, 3))
    assert (timing.without, timing.merging) == pytest.approx((300, 100))
    assert (timing.rounds, timing.batch_size) == (10, 4)  # 4 seconds of 0.4
    # one round that loads and compiles, one that says how many there is time for
    assert timer.timed == [0, 8] * (1 + 1 + 10)


@pytest.mark.parametrize(("seconds", "rounds"), [(30.0, 3), (0.4, 5), (0.001, 15)])
def test_slow_models_are_timed_less_often_but_more_than_once(app, seconds, rounds):
    timing = app.measure(lambda r: lambda: r, 8, 1, KnownSpeed({0: seconds, 8: seconds}))
    assert timing.rounds == rounds
    assert timing.speed.median == 1


def test_a_machine_that_is_busy_for_some_rounds_does_not_change_the_speed(app):
    timing = app.measure(lambda r: lambda: r, 8, 1, KnownSpeed({0: 0.3, 8: 0.1}, busy=(1.0, 1.0, 5.0)))
    assert timing.speed == pytest.approx((3, 3, 3))


@pytest.mark.usefixtures("small_films")
def test_the_page_tells_the_speed_of_the_model_at_its_r(app, tmp_path, monkeypatch):
    class OfTheModel(KnownSpeed):
        def r_of(self, run: Any) -> int:
            """The model and the clips of a pass are inside what is timed."""
            (batch,) = run.args
            assert len(batch) == 8
            return run.func.config.token_merging_r

    monkeypatch.setattr(app, "stopwatch", lambda: OfTheModel({0: 0.3, 38: 0.1}))
    clip = write_clips(tmp_path, "test", [4])[0]
    shown, *_ = app.classify(str(clip.path), "videomae-moving-digits", 38, "merge", "constant", 0.8)
    assert ">3.00x<" in shown
    assert "300 → 100 ms for a batch of 8" in shown
    assert "3.00x to 3.00x in the middle half of 10 rounds in turn" in shown


@pytest.mark.parametrize(("quartiles", "rough"), [((1.6, 2.0), False), ((1.5, 2.0), True)])
def test_numbers_of_a_busy_machine_are_called_rough(app, quartiles, rough):
    timing = app.Timing(app.Ratio(1.8, *quartiles), rounds=9, batch_size=1, without=18.4, merging=10.4)
    shown = app.facts([8, 4], timing, [app.Answer("a", {"a": 1.0})] * 2, "cpu")
    assert ">1.80x<" in shown
    assert "18 → 10 ms for this clip" in shown
    assert ("rough, as this machine is busy" in shown) is rough


def test_errors_are_for_people(app, tmp_path):
    with pytest.raises(app.gr.Error, match="Choose one of the clips, or upload a video"):
        app.classify(None, "videomae-moving-digits", 38, "merge", "constant", 0.8)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(app.gr.Error, match="This video cannot be read"):
        app.classify(str(tmp_path / "text.mp4"), "videomae-moving-digits", 38, "merge", "constant", 0.8)
    with pytest.raises(
        app.gr.Error, match=r"^'Checkpoint no such checkpoint: no such folder; a checkpoint is a folder"
    ):
        app.classify("x.mp4", "no such checkpoint", 38, "merge", "constant", 0.8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint_that_gives_no_answer_says_so(app, tmp_path, monkeypatch, value):
    classifier = load_classifier("videomae-moving-digits", r=0)
    torch.nn.init.constant_(classifier.model.classifier.bias, value)
    monkeypatch.setattr(app, "load", lambda name: classifier)
    clip = write_clips(tmp_path, "test", [4])[0]
    with pytest.raises(app.gr.Error, match="This checkpoint gives no answer for the clip: the logits are not finite"):
        app.classify(str(clip.path), "videomae-moving-digits", 38, "merge", "constant", 0.8)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"MAX_MEGABYTES": 0.01}, r"This video is too large: it must have at most 0\.01 MB, got 0 MB"),
        ({"MAX_MINUTES": 0.02}, r"This video is too long: it must have at most 0\.02 minutes, got 0\.1 minutes"),
        ({"MAX_PIXELS": 2000}, r"The frames of this video are too large: .* at most 2,000 pixels, got 64 x 48"),
    ],
)
def test_videos_that_are_too_large_are_refused_before_they_are_decoded(app, tmp_path, monkeypatch, limit, message):
    for name, value in limit.items():
        monkeypatch.setattr(app, name, value)
    monkeypatch.setattr(app, "read_clips", None)
    noise = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    video = write_video(tmp_path / "noise.mp4", noise, fps=10)
    with pytest.raises(app.gr.Error) as caught:
        app.classify(str(video), "videomae-moving-digits", 38, "merge", "constant", 0.8)
    assert re.fullmatch(message, caught.value.message)


def test_an_upload_that_is_too_large_is_not_taken(app, address):
    for size, status in ((2**10, 200), (app.MAX_MEGABYTES * 2**20 + 1, 413)):
        answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("a.mp4", bytes(size))}, timeout=HOUR)
        assert answer.status_code == status
    assert "maximum allowed size of 104857600 bytes" in answer.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": None}, r"Checkpoint must be a folder, a model id on the Hub, or one of: .*, got None"),
        ({"checkpoint": " "}, r"Checkpoint must be .*, got ' '"),
        ({"checkpoint": 5}, r"Checkpoint must be .*, got 5"),
        ({"r": None}, r"r must be an int >= 0, .*, got None"),
        ({"r": -1}, r"r must be .*got -1"),
        ({"r": 1.5}, r"r must be .*got 1\.5"),
        ({"r": float("nan")}, r"r must be .*got nan"),
        ({"r": "many"}, r"r must be .*got 'many'"),
        ({"mode": "foo"}, r"mode must be one of .*'merge'.*got 'foo'"),
        ({"mode": None}, r"mode must be one of .*'merge'.*got None"),
        ({"schedule": "sideways"}, r"schedule must be one of .*'decreasing'.*got 'sideways'"),
        ({"schedule": None}, r"schedule must be one of .*got None"),
        ({"threshold": 3}, r"threshold must be a cosine similarity in \[-1, 1\].*got 3"),
        (
            {"mode": "hybrid", "threshold": None},
            r"threshold must be a cosine similarity in \[-1, 1\] with mode='hybrid', got None",
        ),
    ],
)
def test_values_that_the_page_does_not_offer_are_refused_by_name(app, tmp_path, changes, message):
    """They come through the API, and from fields that were emptied."""
    clip = write_clips(tmp_path, "test", [4])[0]
    arguments = {"r": 38, "mode": "merge", "schedule": "constant", "threshold": 0.8}
    arguments |= {"video": str(clip.path), "checkpoint": "videomae-moving-digits"}
    with pytest.raises(app.gr.Error) as caught:
        app.classify(**{**arguments, **changes})
    assert re.fullmatch(message, caught.value.message)


@pytest.mark.usefixtures("quick_answers")
def test_films_and_uploads_do_not_pile_up(app, tmp_path, monkeypatch):
    """When the page ends, all that came after its start is gone; while it is served, Gradio does so by age."""
    import gradio_client

    cache, elsewhere = tmp_path / "cache", tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(cache))
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    page = app.build(tmp_path / "clips")
    _, url, _ = app.launch(page, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")

    def files() -> set[Path]:
        return {path for path in cache.rglob("*") if path.is_file()}

    try:
        before = files()
        client = gradio_client.Client(url, download_files=False, verbose=False, httpx_kwargs={"timeout": HOUR})
        upload = gradio_client.handle_file(str(write_clips(tmp_path / "own", "test", [3])[0].path))
        films = []
        for r in (38, 24):
            *_, film = client.predict(
                upload, "videomae-moving-digits", r, "merge", "constant", 0.8, api_name="/classify"
            )
            films.append(Path(film["path"]))
            assert httpx.get(film["url"], timeout=HOUR).content == films[-1].read_bytes()
        assert set(films) < files() - before  # and what was uploaded
        assert list(elsewhere.rglob("*")) == []
    finally:
        page.close()
    for _ in range(PATIENCE):
        if files() == before:
            break
        time.sleep(0.1)
    assert files() == before
    every, age = page.delete_cache
    assert every <= age
    assert age >= 3600  # somebody may still look at it


def test_a_film_that_cannot_be_made_leaves_nothing_behind(app, tmp_path, monkeypatch):
    def broken(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError("no space left")

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(app, "save_tokens", broken)
    with pytest.raises(OSError, match="no space left"):
        app.save_film(None)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("quick_answers")
def test_numbers_on_the_page_are_those_of_the_model(app, tmp_path):
    clip = write_clips(tmp_path, "test", [4])[0]
    html, stock, merged, film = app.classify(str(clip.path), "vivit-moving-digits", 24, "drop", "constant", 0.8)
    classifier = app.load("vivit-moving-digits")
    pixel_values = classifier.transform(read_frames(clip.path, range(16)))[None]
    for settings, shown in (({"r": 0}, stock), ({"r": 24, "mode": "drop"}, merged)):
        classifier.model.set_token_merging(**settings)
        with torch.inference_mode():
            probabilities = classifier.model(pixel_values).logits[0].softmax(-1)
        best = probabilities.topk(5)
        assert list(shown) == [classifier.model.config.id2label[index] for index in best.indices.tolist()]
        assert list(shown.values()) == pytest.approx(best.values.tolist())
    assert stock != merged
    assert "289 → 145" in html
    assert Path(film).is_file()


@pytest.mark.usefixtures("quick_answers")
def test_a_head_with_two_tasks_is_asked_for_each(app, tmp_path):
    """All nouns are made likelier than any verb: one answer over all outputs would be a noun."""
    names = [f"verb {index}" for index in range(20)] + [f"noun {index}" for index in range(100)]
    classifier = load_classifier("videomae-moving-digits")
    with torch.no_grad():
        classifier.model.classifier.bias[20:] += 1000
    classifier.model.config.id2label = dict(enumerate(names))
    classifier.model.config.label_groups = {"verb": [0, 20], "noun": [20, 120]}
    save_checkpoint(classifier.model, tmp_path / "two", processor=classifier.location)
    clip = write_clips(tmp_path, "test", [4])[0]
    with torch.no_grad():
        logits = classifier.model(classifier.transform(read_frames(clip.path, range(16)))[None]).logits[0]
    page, stock, _, _ = app.classify(str(clip.path), str(tmp_path / "two"), 0, "merge", "constant", 0.8)
    assert f">verb {logits[:20].argmax()}, noun {logits[20:].argmax()}<" in page
    for task, outputs in (("verb", logits[:20]), ("noun", logits[20:])):
        best = outputs.softmax(-1).topk(5)
        assert {name: value for name, value in stock.items() if name.startswith(f"{task}: ")} == pytest.approx(
            {f"{task}: {task} {index}": value for value, index in zip(*map(torch.Tensor.tolist, best), strict=True)},
            abs=1e-5,
        )
    assert len(stock) == 10


def test_on_a_public_space_no_folders_are_read(app, tmp_path, monkeypatch):
    checkpoint = shutil.copytree(checkpoint_path("videomae-moving-digits"), tmp_path / "mine" / "model")
    monkeypatch.chdir(tmp_path)
    assert app.load_or_explain(str(checkpoint)).name == str(checkpoint)
    monkeypatch.setenv("SPACE_ID", "me/space")
    assert app.load_or_explain("videomae-moving-digits").name == "videomae-moving-digits"
    for name in (str(checkpoint), "mine/model", "./mine/model", "/etc/passwd", "~", "a/b/c"):
        with pytest.raises(app.gr.Error) as refusal:
            app.load_or_explain(name)
        # The same words, whatever is there.
        assert str(refusal.value.message).startswith("Checkpoint must be a model id on the Hub, or one of: ")


def test_labels_cannot_bring_markup(app):
    answers = [app.Answer("<b>x</b>", {"<b>x</b>": 0.9}), app.Answer("<b>y</b>", {"<b>y</b>": 0.9})]
    shown = app.facts([8, 4], None, answers, "cpu")
    assert "<b>" not in shown
    assert "&lt;b&gt;x&lt;/b&gt; → &lt;b&gt;y" in shown


def test_the_files_of_the_space_agree():
    data = RepoCard.load(SPACE / "README.md").data.to_dict()
    assert (SPACE / data["app_file"]).is_file()
    assert data["sdk"] == "gradio"
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert data["sdk_version"] == pins["gradio"]
    assert "hf-video-tome[space]" in (SPACE / "requirements.txt").read_text()


@pytest.mark.parametrize("name", ["VideoMAE", "ViViT", "TimeSformer", "V-JEPA 2", "VideoPrism", "Motionformer"])
def test_page_and_readme_say_where_checkpoints_of_each_architecture_come_from(app, name):
    assert name in app.ABOUT
    assert name in (SPACE / "README.md").read_text()
