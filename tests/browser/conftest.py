"""One browser and one system for all tests here, and no longer: Playwright keeps an event loop in its thread.

Without chromium the tests are skipped.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from browser.driving import CHROMIUM, INSTALL, REQUIRED, ConsoleStack, chromium, console_stack


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        (pytest.fail if REQUIRED else pytest.skip)(INSTALL)
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="package")
def stack(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsoleStack]:
    folder: Path = tmp_path_factory.mktemp("console")
    with console_stack(folder) as stack:
        yield stack
