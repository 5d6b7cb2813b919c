"""The page of each service in a browser: models, an inference from the file to the predictions, progress, charts, text that stays text."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from he_backend import zoo
from he_backend.api import HEClient, HEServer
from he_backend.graph import Reference
from he_backend.web import page
from tests import processes
from tests.processes import get, wait_until

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium that can reach nothing but loopback."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -r requirements/dev.txt")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium here (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1280,1000"):
        options.add_argument(f"--{argument}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_script_timeout(30)
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    service = processes.server(tmp_path_factory.mktemp("server"))
    HEServer(service.http).load("MLP")
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    service = processes.client(tmp_path_factory.mktemp("client"), server.http, "--memory", 12 << 20)
    yield service
    assert service.stop() == 0


@pytest.fixture
def shown(browser):
    """Opens a page; afterwards the browser must have had nothing to complain about."""
    browser.get_log("browser")

    def open_page(http):
        browser.get(f"http://{http}/")
        wait_until(lambda: count(browser, "#models tbody tr") and "…" not in text(browser, "#models"), 20)
        return browser

    yield open_page
    browser.execute_script("sessionStorage.clear()")
    complaints = [entry["message"] for entry in browser.get_log("browser")]
    assert not [one for one in complaints if not re.search(r"status of (401|502)", one)]


def one(browser, selector):
    return browser.find_element("css selector", selector)


def text(browser, selector):
    return browser.execute_script("return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText).join('\\n')", selector)


def count(browser, selector):
    return browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector)


def infer(browser, path):
    one(browser, "#infer-file").send_keys(str(path))
    one(browser, "#infer-form button").click()


def rows(number):
    x = zoo.shipped("MLP").load_test()[0]
    return np.resize(x, (number, *x.shape[1:]))


def test_an_upload_is_inferred_encrypted_and_its_result_shown(shown, client, server, tmp_path):
    np.save(tmp_path / "my digits (1).npy", rows(12))
    plain = next(iter(Reference(str(zoo.shipped("MLP").onnx_path)).run(rows(12)).values()))
    browser = shown(client.http)

    infer(browser, tmp_path / "my digits (1).npy")
    wait_until(lambda: "Predictions" in text(browser, "#detail"), 30)

    cells = text(browser, "#predictions tbody tr td:nth-child(2)").split()
    assert [int(cell) for cell in cells] == plain.argmax(axis=1).tolist()
    assert count(browser, "#detail .chart") == 2 and count(browser, "#detail g.round") == 6
    assert count(browser, "#detail rect.bytes_down") >= 3 and "Time per round" in text(browser, "#detail")
    assert "N11_L1" in text(browser, "#detail") and "finished" in text(browser, "#inferences")
    record = HEClient(client.http).get_inferences()[0]
    assert record.data["inference_file"].endswith("my_digits__1_.npy") and record.data["is_encryption"] == "yes"
    assert not HEServer(server.http).get_inferences()


def test_progress_is_seen_and_a_stop_stops(shown, client, tmp_path):
    np.save(tmp_path / "many.npy", rows(200_000))
    browser = shown(client.http)

    infer(browser, tmp_path / "many.npy")
    wait_until(lambda: count(browser, "#inferences progress") and re.search(r"[1-9]\d* of \d\d", text(browser, "#inferences")), 30)
    one(browser, "#inferences tbody button").click()
    wait_until(lambda: "stopped on request" in text(browser, "#detail"), 30)

    assert "stopped" in text(browser, "#inferences tbody tr:first-child") and not count(browser, "#inferences progress")


def test_a_wrong_file_is_told_and_the_page_goes_on(shown, client, tmp_path):
    (tmp_path / "wrong.npy").write_bytes(b"no array")
    browser = shown(client.http)

    one(browser, "#infer-file").send_keys(str(tmp_path / "wrong.npy"))
    one(browser, "#infer-form button").click()
    wait_until(lambda: "not an .npy file" in text(browser, "#alert"), 20)

    assert one(browser, "#infer-form button").is_enabled()
    with suppress(IndexError):  # the browser notes the refusal itself
        browser.get_log("browser")


def test_rows_that_would_go_in_the_clear_are_warned_of(shown, client):
    browser = shown(client.http)
    before = text(browser, "#infer-note")

    one(browser, "#infer-encrypted").click()

    assert "not passed on" in before and "NOT encrypted" in text(browser, "#infer-note")


def test_the_server_s_page_registers_shows_and_evaluates(shown, server):
    browser = shown(server.http)
    assert not one(browser, "#infer-form").is_displayed()

    one(browser, "#load-type").send_keys("CNN")
    one(browser, "#load-form button").click()
    wait_until(lambda: "CNN" in text(browser, "#models td:nth-child(2)") and "…" not in text(browser, "#models"), 30)
    one(browser, "#models tbody tr:last-child").click()
    wait_until(lambda: "Client computes" in text(browser, "#detail"), 20)
    model = text(browser, "#detail")
    one(browser, "#test-form button").click()
    wait_until(lambda: "Evaluation of" in text(browser, "#detail"), 60)

    assert re.search(r"2\s+Relu\s+64\s+64", model) and "scores float32 [rows, 10]" in model
    assert count(browser, "#detail g.round") == 6 and re.search(r"Accuracy\s+0\.9\d", text(browser, "#detail"))


def test_the_evaluation_of_a_regression_shows_its_errors(shown, server):
    browser = shown(server.http)
    done = {"model_id": "1", "model_name": "1Score", "test_acc": None, "batch_size": 8, "is_enc": False, "time_cost": "0.1s", "log": ""}

    browser.execute_async_script(
        "const [done, ready] = arguments; import('/page/detail.js').then((page) => { page.showEvaluation(done); ready(); });",
        {**done, "figures": {"rmse": 0.25, "r2": 0.5}},
    )

    shown_text = text(browser, "#detail")
    assert re.search(r"Root mean squared error\s+0\.2500", shown_text) and re.search(r"Variance explained\s+0\.5000", shown_text)
    assert "Accuracy" not in shown_text


class Imitation(BaseHTTPRequestHandler):
    """A service whose texts are markup, and which wants a token."""

    def do_GET(self):
        files = {"/": page._index("HE-client", "an imitation").encode(), **{f"/page/{name}": data for name, data in page._files().items()}}
        path = self.path.partition("?")[0]
        if path in files:
            kind = "text/css" if path.endswith(".css") else "text/javascript" if path.endswith(".js") else "text/html; charset=utf-8"
            self.reply(200, files[path], {**page._HEADERS, "Content-Type": kind})
        else:
            self.answer({"pending": MARKUP, "most_pending": 1, "server_url": MARKUP})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append(self.headers.get("Authorization"))
        model = {"model_id": "1", **dict.fromkeys(("model_name", "model_type", "created"), MARKUP), "meta": {"rounds": MARKUP}}
        record = {"inference_id": MARKUP, "state": "failed", "model_name": MARKUP, "message": MARKUP, "start_time": MARKUP, "figures": {}}
        if self.headers.get("Authorization") != "Bearer the-token":
            self.answer({}, 401, f"a token is needed {MARKUP}")
        else:
            self.answer({"model_list": [model], "inference_list": [record]})

    def answer(self, data, code=200, message="success"):
        self.reply(code, json.dumps({"code": code, "data": data, "message": message}).encode(), {"Content-Type": "application/json"})

    def reply(self, code, body, headers):
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Silent."""


@pytest.fixture
def imitation():
    service = ThreadingHTTPServer(("127.0.0.1", 0), Imitation)
    service.seen = []
    thread = threading.Thread(target=service.serve_forever)
    thread.start()
    yield service
    service.shutdown()
    thread.join()
    service.server_close()


def test_a_token_is_asked_for_sent_and_forgotten_and_text_is_never_markup(browser, imitation):
    browser.get(f"http://127.0.0.1:{imitation.server_port}/")
    wait_until(lambda: one(browser, "#token").is_displayed(), 20)
    refused = text(browser, "#alert")

    one(browser, "#token").send_keys("the-token")
    one(browser, "#token-form button").click()
    wait_until(lambda: MARKUP in text(browser, "#models"), 20)
    one(browser, "#inferences tbody tr").click()
    wait_until(lambda: one(browser, "#detail").is_displayed(), 20)

    assert MARKUP in refused and MARKUP in text(browser, "#inferences") and MARKUP in text(browser, "#detail")
    assert count(browser, "img") == 0 and browser.execute_script("return sessionStorage.length + 10 * localStorage.length") == 1
    assert imitation.seen[0] is None and imitation.seen[-1] == "Bearer the-token" and "the-token" not in browser.page_source
    one(browser, "#token-open").click()
    one(browser, "#token-forget").click()
    wait_until(lambda: imitation.seen[-1] is None, 20)
    assert browser.execute_script("return sessionStorage.length") == 0
    browser.get_log("browser")


def test_the_page_needs_nothing_from_elsewhere_and_says_so_to_the_browser(server, client):
    for service in (server, client):
        status, index = get(service.http, "/")
        parts = [index, *(get(service.http, path)[1] for path in re.findall(r'(?:src|href)="(/page/[^"]+)"', index))]
        assert status == 200 and len(parts) == 3
        assert not [part for part in parts if re.search(r"https?://(?!www\.w3\.org/2000/svg)", part)]
        assert not re.search(r"<script(?! type=\"module\" src=)|<style|style=|onclick", index)
    policy = page._HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy


def test_the_scripts_make_no_markup_of_text():
    assert page._files().keys() > {"main.js", "api.js", "chart.js", "page.css"}
    for name, data in page._files().items():
        source = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8").read()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", source), name
