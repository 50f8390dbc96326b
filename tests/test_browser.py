"""The page in a real browser: nothing goes wrong, every picture is there, and what one touches answers with the numbers of the
arrays. Skipped where there is no Chromium (Debian: apt-get install chromium chromium-driver)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

BROWSER = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER), reason="no Chromium here: apt-get install chromium chromium-driver"
)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SIZES = {"wide": (1400, 1000), "narrow": (390, 844)}


@pytest.fixture(scope="module", params=SIZES)
def browser(
    request: pytest.FixtureRequest, reported: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[webdriver.Chrome]:
    """Chromium with the page of the fixture `reported`, on a wide screen and on a phone's."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
    width, height = SIZES[request.param]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions",
        {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1},
    )
    driver.get((reported / "report" / "index.html").as_uri())
    driver.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
    WebDriverWait(driver, 60).until(lambda d: read(d, "probability") != "")
    yield driver
    driver.quit()


def read(driver: webdriver.Chrome, name: str) -> str:
    """The value that the Fig. 7 explorer shows."""
    found = driver.find_element(By.CSS_SELECTOR, f"[data-read={name}]")
    return found.get_dom_attribute("data-value") or ""


def point(driver: webdriver.Chrome, node: WebElement, x: float, y: float) -> None:
    """Move the mouse to a place of an element, given as shares of its width and height."""
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", node)
    box = node.size
    ActionChains(driver, duration=0).move_to_element_with_offset(
        node, round((x - 0.5) * (box["width"] - 1)), round((y - 0.5) * (box["height"] - 1))
    ).perform()


def test_loads_without_errors(browser: webdriver.Chrome) -> None:
    assert [line for line in browser.get_log("browser") if line["level"] in ("SEVERE", "WARNING")] == []
    assert browser.execute_script("return document.documentElement.dataset.ready") == "true"
    entries = "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
    assert browser.execute_script(entries) == []


def test_every_picture_is_there(browser: webdriver.Chrome) -> None:
    script = """
        const done = arguments[arguments.length - 1], images = [...document.images];
        Promise.all(images.map((i) => i.decode().then(() => i.naturalWidth, () => 0))).then(done);
    """
    widths = browser.execute_async_script(script)
    assert len(widths) > 20 and min(widths) > 0


def test_nothing_is_wider_than_the_screen(browser: webdriver.Chrome) -> None:
    for tab in browser.find_elements(By.CSS_SELECTOR, "[id^=features-tab]"):
        browser.execute_script("arguments[0].click()", tab)
        wide, screen = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide <= screen


def test_explorer_shows_the_arrays(browser: webdriver.Chrome, reported: Path) -> None:
    with np.load(reported / "fig7_occlusion" / "arrays.npz") as file:
        arrays = dict(file)
    browser.execute_script("arguments[0].click()", browser.find_element(By.ID, "explorer-tab1"))
    canvas = browser.find_element(By.CSS_SELECTOR, "canvas.image")
    size, square = arrays["images"].shape[1], int(arrays["square"])
    ys, xs = arrays["ys"], arrays["xs"]
    for p, q in ((0, 0), (len(ys) // 2, len(xs) - 1), (len(ys) - 1, 1)):
        point(browser, canvas, (xs[q] + square / 2) / size, (ys[p] + square / 2) / size)
        assert float(read(browser, "probability")) == pytest.approx(arrays["probability"][1, p, q], rel=1e-4)
        assert float(read(browser, "activity")) == pytest.approx(arrays["activity"][1, p, q], rel=1e-4)
        assert read(browser, "top") == arrays["class_names"][arrays["top_class"][1, p, q]]
        shown = browser.find_element(By.CSS_SELECTOR, "[data-read=probability]").text
        assert shown.startswith(f"{100 * arrays['probability'][1, p, q]:.1f} %")
    heat = browser.find_elements(By.CSS_SELECTOR, "canvas.heat")[0]
    point(browser, heat, 1.5 / len(xs), 2.5 / len(ys))
    assert float(read(browser, "probability")) == pytest.approx(arrays["probability"][1, 2, 1], rel=1e-4)
    canvas.send_keys(Keys.ARROW_RIGHT)
    assert float(read(browser, "probability")) == pytest.approx(arrays["probability"][1, 2, 2], rel=1e-4)


def test_a_patch_shows_its_projection(browser: webdriver.Chrome, reported: Path) -> None:
    browser.execute_script("arguments[0].click()", browser.find_element(By.ID, "features-tab2"))
    panel = browser.find_element(By.ID, "features-layer2")
    assert panel.is_displayed() and not browser.find_element(By.ID, "features-layer1").is_displayed()
    with np.load(reported / "fig2_features" / "layer2.npz") as arrays:
        numbers, activations, patches = arrays["maps"], arrays["activations"], arrays["patches"]
    mosaic = panel.find_elements(By.CSS_SELECTOR, ".mosaic")[1]
    point(browser, mosaic, 0.93, 0.5)  # the right-hand block, last column, middle row: the sixth patch
    said = panel.find_element(By.TAG_NAME, "output").text
    assert f"map {numbers[1]}:" in said and "image 6 of" in said
    assert f"{activations[1, 5]:.2f}"[:3] in said
    script = """
        const c = arguments[0].querySelectorAll('.loupe canvas')[1];
        return [c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data];
    """
    side, *pixels = browser.execute_script(script, panel)
    assert side == patches.shape[2]
    shown = np.array(pixels).reshape(side, side, 4)[..., :3]
    assert np.abs(shown - patches[1, 5].astype(int)).max() == 0
    mosaic.send_keys(Keys.ARROW_LEFT)
    assert "image 5 of" in panel.find_element(By.TAG_NAME, "output").text


def test_epochs(browser: webdriver.Chrome) -> None:
    slider, text = (
        browser.find_element(By.ID, "evolution-epoch"),
        browser.find_element(By.CSS_SELECTOR, ".epochs output"),
    )
    assert text.text == "epoch 2"
    slider.send_keys(Keys.ARROW_LEFT)
    assert text.text == "epoch 1"
    frame = browser.find_element(By.CSS_SELECTOR, ".frame")
    assert frame.value_of_css_property("background-position").startswith("0%")


def test_tables_sort(browser: webdriver.Chrome) -> None:
    table = browser.find_element(By.CSS_SELECTOR, "#table2 table")
    head = table.find_elements(By.CSS_SELECTOR, "th button")[1]  # a column with empty cells

    def column() -> list[float | None]:
        cells = table.find_elements(By.CSS_SELECTOR, "tbody td:nth-child(2)")
        return [float(cell.text) if cell.text else None for cell in cells]

    before = column()
    values = sorted(value for value in before if value is not None)
    blanks = [None] * (len(before) - len(values))
    assert len(values) > 3 and blanks
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", head)
    head.send_keys(Keys.ENTER)
    assert column() == [*values, *blanks]
    assert table.find_elements(By.TAG_NAME, "th")[1].get_dom_attribute("aria-sort") == "ascending"
    head.click()
    assert column() == [*reversed(values), *blanks]


def test_pictures_enlarge(browser: webdriver.Chrome) -> None:
    button = browser.find_element(By.CSS_SELECTOR, "#fig7 .picture button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()
    dialog = browser.find_element(By.CSS_SELECTOR, "dialog.zoom")
    assert dialog.is_displayed()
    assert dialog.find_element(By.TAG_NAME, "img").get_dom_attribute("alt") == button.find_element(
        By.TAG_NAME, "img"
    ).get_dom_attribute("alt")
    ActionChains(browser).send_keys(Keys.ESCAPE).perform()
    assert not dialog.is_displayed()
