"""Who reads a page in the tests: a browser, and what its reader can do and see."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

PATIENCE = 300.0
DESKTOP, PHONE = (1200, 900), (360, 740)
WIDE, NARROW = ((1440, 900), (1920, 1080)), ((390, 844), (1000, 1440))


class Reader:
    """Chromium without a window, without a network, and with its log kept."""

    def __init__(self, browser: str, driver: str, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in (
            "headless=new",
            "no-sandbox",
            "disable-gpu",
            "disable-background-networking",
            "disable-dev-shm-usage",
        ):
            options.add_argument(f"--{flag}")
        options.add_argument(f"--user-data-dir={profile}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))

    def quit(self) -> None:
        self.driver.quit()

    def reset(self) -> None:
        """A desktop's screen in light colours, and an empty log."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
        self.screen(DESKTOP)
        self.driver.get("about:blank")
        for log in ("browser", "performance"):
            self.driver.get_log(log)

    def screen(self, size: tuple[int, int]) -> None:
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefers(self, scheme: str, media: str = "") -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def open(self, address: str) -> None:
        """Open a page and wait until its figures are drawn."""
        self.driver.get(address)
        self.wait(lambda: self.run("return document.documentElement.dataset.drawn"), "the figures drawn")

    def wait(self, true: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < deadline, f"never: {what}"
            time.sleep(0.05)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> WebElement:
        (found,) = self.all(selector)
        return found

    def click(self, element: WebElement) -> None:
        self.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
        ActionChains(self.driver).move_to_element(element).click().perform()

    def press(self, *keys: str) -> None:
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, element: WebElement, at_most: int = 60) -> None:
        """Reach an element as a keyboard does."""
        for _ in range(at_most):
            if self.driver.switch_to.active_element == element:
                return
            self.press(Keys.TAB)
        raise AssertionError("the keyboard does not get there")

    def marks(self, figure: str) -> list[str]:
        """The colours of a figure's points, as they are shown."""
        script = (
            "return Array.from(document.querySelectorAll(`#${arguments[0]} .chart svg .mark-symbol.role-mark path`))"
            ".map((path) => { const style = getComputedStyle(path);"
            " return style.fill === 'none' || style.fill === 'rgba(0, 0, 0, 0)' ? style.stroke : style.fill; })"
        )
        return list(self.run(script, figure))

    def column(self, number: int) -> list[str]:
        """The texts of a column of the table of cells, as it stands."""
        return self.texts("#headline tbody tr", number)

    def texts(self, rows: str, number: int) -> list[str]:
        """The texts of one column of the table rows that a selector finds."""
        script = (
            "return Array.from(document.querySelectorAll(arguments[0]))"
            ".map((row) => row.cells[arguments[1]].textContent)"
        )
        return list(self.run(script, rows, number))

    def complaints(self) -> list[str]:
        """What the browser's console says since the last look: errors, refused requests, everything."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> Sequence[str]:
        """Addresses that the page asked for, itself not among them."""
        return list(self.run("return performance.getEntriesByType('resource').map((entry) => entry.name)"))
