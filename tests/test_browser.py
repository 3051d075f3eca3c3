"""The notebooks as a reader sees them: JupyterLab in headless Chromium.

All cells are run, and the widgets are moved by keyboard and mouse.
"""

import io
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import HUNG, until

ROOT = Path(__file__).parent.parent
CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
WIDTH, HEIGHT = 1280, 800
GUARD = 1000 * HUNG  # milliseconds
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[test]'"
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"
    ),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on 127.0.0.1 over copies of the notebooks, with an empty runs folder.

    Returns its (URL, token).
    """
    home, token = tmp_path_factory.mktemp("lab"), secrets.token_hex(16)
    (home / "notebooks").mkdir()
    for name in ("02_scores", "03_class_balance"):
        (home / f"notebooks/{name}.ipynb").write_text(
            _cleared((ROOT / f"notebooks/{name}.ipynb").read_text())
        )
    for name, values in SETTINGS.items():
        file = home / f"settings/@jupyterlab/{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    inside = {
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "YOCO_RUNS": "runs",
    }
    folders = {name: str(home / folder) for name, folder in inside.items()}
    environment = {**os.environ, **folders, "JUPYTER_NO_CONFIG": "1", "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--ServerApp.port=0",
    ]
    command += [
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={home}",
        "--LabApp.extension_manager=readonly",
    ]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield _url(server, home), token
    finally:
        server.terminate()
        server.wait(HUNG)


def _cleared(notebook: str) -> str:
    """A notebook up to its last explorer, without outputs, numbers or widget state.

    What is seen was thus made in this run.
    """
    content = json.loads(notebook)
    content["metadata"].pop("widgets", None)
    explorers = ["explore." in "".join(cell["source"]) for cell in content["cells"]]
    del content["cells"][len(explorers) - explorers[::-1].index(True) :]
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
    return json.dumps(content)


def _url(server: subprocess.Popen, home: Path) -> str:
    """Return where the server listens, once it does."""
    found = lambda: [
        file
        for file in (home / "runtime").glob("jpserver-*.json")
        if file.read_text().endswith("}")
    ]
    until(lambda: found() or server.poll() is not None)
    assert server.poll() is None, (home / "log").read_text()
    return json.loads(found()[0].read_text())["url"]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        playwright.expect.set_options(timeout=GUARD)
        started = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield started
        started.close()


@pytest.fixture
def page(browser, lab, request, tmp_path):
    """The notebook that the test names, after all its cells have run without an error.

    It is named by `@pytest.mark.parametrize("page", …, indirect=True)`.
    """
    opened = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    opened.set_default_timeout(GUARD)
    opened.goto(f"{lab[0]}doc/tree/notebooks/{request.param}.ipynb?reset&token={lab[1]}")
    opened.locator(".jp-Notebook .jp-Cell").first.wait_for()
    opened.locator(".jp-StatusBar-Widget").get_by_text("| Idle").wait_for()
    opened.get_by_role("menuitem", name="Run", exact=True).click()
    opened.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
    opened.wait_for_function(
        r"() => [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].every(p => "
        r"/^\[\d+\]:$/.test(p.textContent.trim()))"
    )
    assert opened.locator(".jp-CodeCell .jp-InputArea-prompt").count() >= 4
    assert opened.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0, (
        "a cell raised"
    )
    assert opened.get_by_text("javascript error").count() == 0, "a widget could not be drawn"
    yield opened
    opened.close()


def explorer(page, call: str):
    """Return the widget of the cell with this call, its controls scrolled to the top."""
    found = (
        page.locator(".jp-CodeCell")
        .filter(has_text=call)
        .locator(".jupyter-widgets.widget-vbox")
        .first
    )
    found.wait_for()
    found.evaluate("element => element.scrollIntoView({block: 'start'})")
    return found


def seen(page, folder: Path, name: str) -> np.ndarray:
    """Return the window as uint8 [H, W, 3]; it is also saved as a file."""
    page.mouse.move(WIDTH - 2, HEIGHT - 2)
    page.evaluate(
        "() => Promise.all([...document.images].map(image => image.decode().catch(() => null)))"
    )
    page.wait_for_timeout(500)  # for tooltips, which nothing below depends on
    shot = page.screenshot(path=os.environ.get("YOCO_SCREENSHOTS", str(folder)) + f"/{name}.png")
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))


def source(widget) -> str:
    """Return the picture of a widget, as it is in the page."""
    return widget.locator("img").first.get_attribute("src")


def wait_for_another(widget, before: str) -> None:
    """Wait until the picture of a widget differs from `before`."""
    playwright.expect(widget.locator("img").first).not_to_have_attribute("src", before)


def step_right(page, widget, text: str) -> None:
    """Move a widget's slider by one with the keyboard, and wait for the new text and picture."""
    drawn = source(widget)
    widget.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    playwright.expect(widget).to_contain_text(text)
    wait_for_another(widget, drawn)


def changed(before: np.ndarray, after: np.ndarray) -> float:
    """Return the share of the window's pixels that differ."""
    return float((before != after).any(-1).mean())


def fits(widget) -> bool:
    """Return whether no part of a widget extends beyond the window or needs sideways scrolling."""
    parts = [
        box
        for part in widget.locator("img, select, .noUi-base, button:visible").all()
        if (box := part.bounding_box())
    ]
    return bool(parts) and all(box["x"] >= 0 and box["x"] + box["width"] <= WIDTH for box in parts)


def at_first(page, tmp_path, call: str, says: str):
    """Return a widget in its initial state, within the window, and what is seen of it."""
    widget = explorer(page, call)
    playwright.expect(widget).to_contain_text(says)
    assert fits(widget)
    return widget, seen(page, tmp_path, f"{call.strip('(')}-before")


@pytest.mark.parametrize("page", ["03_class_balance"], indirect=True)
def test_the_budget_is_moved_by_the_keyboard(page, tmp_path):
    widget, first = at_first(page, tmp_path, "explore.budgets(", "IPC_T 1: 4 of 40")
    step_right(page, widget, "IPC_T 2: 8 of 40 formed images")
    second, drawn = seen(page, tmp_path, "03-after"), source(widget)
    assert changed(first, second) > 0.02
    widget.locator("select").first.select_option(label="cat")
    wait_for_another(widget, drawn)
    third = seen(page, tmp_path, "03-class")
    assert changed(second, third) > 0.02 and fits(widget)


@pytest.mark.parametrize("page", ["02_scores"], indirect=True)
def test_images_are_browsed_by_keyboard_and_mouse(page, tmp_path):
    widget, first = at_first(page, tmp_path, "explore.browse(", "rank 1 of 400 by lbpe")
    step_right(page, widget, "rank 2 of 400 by lbpe")
    assert changed(first, seen(page, tmp_path, "02-after")) > 0.01
    images = widget.locator("button")
    images.nth(6).click()
    playwright.expect(widget).to_contain_text("rank 7 of 400")
    images.nth(6).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    playwright.expect(widget).to_contain_text("rank 8 of 400")
    widget.locator("select").nth(0).select_option(label="cat")
    playwright.expect(widget).to_contain_text(
        re.compile(r"rank 8 of 40 by lbpe: formed image \d+, " r"cat")
    )
    seen(page, tmp_path, "02-class")
    scores = explorer(page, "explore.compare(")
    before, drawn = seen(page, tmp_path, "02-scores-before"), source(scores)
    scores.locator("select").nth(1).select_option(label="forgetting")
    wait_for_another(scores, drawn)
    assert changed(before, seen(page, tmp_path, "02-scores-after")) > 0.02 and fits(scores)
