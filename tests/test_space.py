"""The Space in a real browser, which has no network but this machine."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import RepoCard
from transformers import AutoConfig

from hf_video_tome import token_counts
from hf_video_tome.checkpoints import checkpoint_path
from hf_video_tome.data.decoding import read_frames
from hf_video_tome.data.encoding import write_video
from hf_video_tome.data.moving_digits import write_clips

gradio = pytest.importorskip("gradio", reason='the Space needs gradio: pip install "hf-video-tome[space]"')
webdriver = pytest.importorskip("selenium.webdriver", reason="the browser is driven by selenium: pip install selenium")

from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "examples" / "space"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
PATIENCE = 120  # seconds: machines that test are busy
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="no chromium and chromedriver here: apt-get install chromium chromium-driver",
)


@pytest.fixture(scope="module")
def app() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def address(app: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is served."""
    page = app.build(tmp_path_factory.mktemp("clips"))
    _, url, _ = app.launch(page, prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
    yield url
    page.close()


class Visitor:
    """What a person does with the page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        ignored = [StaleElementReferenceException]
        waiting = WebDriverWait(self.driver, PATIENCE, ignored_exceptions=ignored)
        return waiting.until(lambda _: condition(), f"the page did not show {what}")

    def find(self, selector: str) -> Any:
        return self.wait(lambda: next(iter(self.driver.find_elements(By.CSS_SELECTOR, selector)), None), selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def facts(self) -> list[str]:
        """The values of the three cards."""
        return [fact.text for fact in self.driver.find_elements(By.CSS_SELECTOR, "#facts .value")]

    def classify(self) -> list[str]:
        """Presses the button and waits for the answer: old numbers are taken away first."""
        self.driver.execute_script("document.querySelectorAll('#facts .facts').forEach(it => it.remove())")
        self.find("#classify").click()
        return self.wait(lambda: self.facts() or None, "numbers")

    def enter(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.click()
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)
        field.send_keys(Keys.ENTER)
        field.send_keys(Keys.TAB)

    def choose(self, selector: str, name: str) -> None:
        """Picks an option of a list."""
        self.find(f"{selector} input").click()

        def option() -> Any:
            options = self.driver.find_elements(By.CSS_SELECTOR, "[role=option]")
            return next((it for it in options if it.get_attribute("aria-label") == name), None)

        self.wait(option, f"the option {name}").click()

    def upload(self, path: Path) -> None:
        """Takes the clip that is there away and uploads another."""
        self.find("#clip button[aria-label='Clear'], #clip button[title='Clear']").click()
        self.find("#clip input[type=file]").send_keys(str(path))
        self.wait(lambda: path.stem in str(self.find("#clip video").get_attribute("src")), f"the upload {path.name}")


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1240,1300"):
        options.add_argument(argument)
    # No server but that of the page can be reached.
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=CHROMEDRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def visitor(driver: Any, address: str) -> Visitor:
    """Somebody who just opened the page, which answers for the first clip by itself."""
    driver.get("about:blank")
    driver.get(address)
    visitor = Visitor(driver)
    visitor.wait(lambda: visitor.facts() or None, "the first answer")
    return visitor


@needs_browser
def test_the_first_visit_shows_a_whole_answer(visitor, app):
    tokens, speed, answer = visitor.facts()
    assert tokens == "288 → 60"
    assert re.fullmatch(r"\d\.\d\dx", speed)
    assert answer == "shrink 9"
    assert "79% removed" in visitor.text("#facts")
    assert "rounds in turn" in visitor.text("#facts")
    assert [bar.text for bar in visitor.driver.find_elements(By.CSS_SELECTOR, "#facts .layers div")] == (
        ["288", "250", "212", "174", "136", "98", "60"]
    )
    for name in ("unmerged", "merged"):
        labels = visitor.text(f"#{name}").split("\n")
        assert sum(line.endswith("%") for line in labels) == 5
        assert "shrink 9" in labels


@needs_browser
def test_the_film_plays(visitor):
    film = visitor.find("#film video")
    visitor.wait(lambda: film.get_property("readyState") >= 2, "a film that can be played")
    # two pictures of 48 pixels, each shown 8 times as large, with a title above and captions below
    assert film.get_property("videoWidth") == 2 * 48 * 8 + 3 * 12
    assert film.get_property("videoHeight") > 48 * 8 + 2 * 12
    assert film.get_property("duration") == pytest.approx(16 / 6, abs=0.2)


@needs_browser
def test_nothing_comes_from_elsewhere_and_nothing_goes_wrong(visitor, address):
    visitor.classify()
    names = visitor.driver.execute_script("return performance.getEntriesByType('resource').map(it => it.name)")
    assert names
    assert [name for name in names if not name.startswith((address, "data:", "blob:"))] == []
    assert [entry for entry in visitor.driver.get_log("browser") if entry["level"] == "SEVERE"] == []


@needs_browser
def test_settings_are_followed(visitor):
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
    assert not visitor.driver.find_elements(By.CSS_SELECTOR, "#threshold input")
    visitor.choose("#mode", "hybrid")
    visitor.find("#threshold input")
    assert visitor.classify()[0] == f"288 → {counts[-1]}"


@needs_browser
def test_another_checkpoint_brings_its_own_r(visitor):
    visitor.choose("#checkpoint", "timesformer-moving-digits")
    visitor.wait(lambda: visitor.find("#r input[type=number]").get_attribute("value") == "5", "r = 5")
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
    visitor.driver.find_elements(By.CSS_SELECTOR, "#clips .gallery-item")[3].click()
    visitor.wait(lambda: "up-5" in str(visitor.find("#clip video").get_attribute("src")), "the chosen clip")
    assert visitor.classify()[2] == "up 5"


@needs_browser
def test_what_goes_wrong_is_said(visitor):
    visitor.enter("#checkpoint input", "no such checkpoint")
    visitor.wait(lambda: "no such folder" in visitor.text(".toast-body"), "an error")


def test_errors_are_for_people(app, tmp_path):
    with pytest.raises(gradio.Error, match="Choose one of the clips, or upload a video"):
        app.classify(None, "videomae-moving-digits", 38, "merge", "constant", 0.8)
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(gradio.Error, match="This video cannot be read"):
        app.classify(str(tmp_path / "text.mp4"), "videomae-moving-digits", 38, "merge", "constant", 0.8)
    with pytest.raises(gradio.Error, match="no such folder"):
        app.classify("x.mp4", "no such checkpoint", 38, "merge", "constant", 0.8)


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


def test_labels_cannot_bring_markup(app):
    answers = [{"<b>x</b>": 0.9}, {"<b>y</b>": 0.9}]
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
