"""Debian's chromium without a window, driven through its own chromedriver; nothing of it is left when it ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.remote.webdriver import WebDriver

DRIVER = "/usr/bin/chromedriver"
BROWSER = "/usr/bin/chromium"
SIZE = (1000, 720)  # pixels
START_SECONDS = 60  # on a busy machine


@contextmanager
def chromium() -> Iterator[WebDriver]:
    """A browser with a profile of its own. The driver dies with us, even by SIGKILL, and the browser with the driver."""
    profile = Path(tempfile.mkdtemp(prefix="pvedrbdstor-chromium-"))
    driver = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", DRIVER, "--port=0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"HOME": str(profile), "TMPDIR": str(profile)},
    )
    try:
        browser = webdriver.Remote(f"http://127.0.0.1:{_port_of(driver)}", options=_options(profile))
        try:
            browser.set_script_timeout(30)
            browser.set_page_load_timeout(60)
            yield browser
        finally:
            with suppress(Exception):  # it may be gone already, and everything is ended below
                browser.quit()
    finally:
        driver.terminate()
        driver.wait(20)
        _end_processes_of(profile)
        shutil.rmtree(profile, ignore_errors=True)


def _options(profile: Path) -> webdriver.ChromeOptions:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in (
        "--headless=new",
        "--no-sandbox",  # it does not run as root with one
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--remote-debugging-pipe",  # a browser ends when its driver has, whose end of the pipe is closed
        "--hide-scrollbars",
        "--force-device-scale-factor=1",
        "--lang=en",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # it asks nobody but our own server
        f"--window-size={SIZE[0]},{SIZE[1]}",
        f"--user-data-dir={profile / 'profile'}",
    ):
        options.add_argument(argument)
    return options


def _port_of(driver: subprocess.Popen[str]) -> int:
    """The port chromedriver has taken, as it says itself."""
    assert driver.stdout is not None
    said = []
    for line in driver.stdout:
        said.append(line)
        if found := re.search(r"started successfully on port (\d+)", line):
            return int(found[1])
    raise RuntimeError("chromedriver did not start: " + "".join(said))


def _end_processes_of(profile: Path) -> None:
    """End what still runs with this profile: chromium's helpers may outlive it for a moment."""
    deadline = time.monotonic() + 10
    while left := _processes_of(profile):
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.05)


def _processes_of(profile: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(profile).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            pass  # it has just ended
    return found
