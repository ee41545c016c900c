"""Debian's Chromium, driven by Playwright: what a person sees and does."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Page, async_playwright

from sandbox.packages import Package, ensure_packages
from sandbox.progress import QuietProgress

CHROMIUM = Package("chromium", ("/usr/bin/chromium",))
# Without these it asks the internet for updates, which a test machine may not reach.
_QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic")
_PATIENCE = 20_000  # milliseconds for one click or page


async def ensure_chromium() -> None:
    """Install the browser if it is missing.

    Raises:
        SandboxError: it is missing and cannot be installed here; says what to do.
    """
    await ensure_packages(QuietProgress(), (CHROMIUM,))


@asynccontextmanager
async def open_page() -> AsyncIterator[Page]:
    """Lend one page of a fresh browser; `*.localhost` is this machine to it (RFC 6761 6.3)."""
    await ensure_chromium()
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM.provides[0], args=[*_QUIET, *sandbox]
        )
        try:
            page = await browser.new_page()
            page.set_default_timeout(_PATIENCE)
            yield page
        finally:
            await browser.close()


if __name__ == "__main__":
    asyncio.run(ensure_chromium())
