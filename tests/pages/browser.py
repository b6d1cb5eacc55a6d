"""Where the browser is that tests drive."""

import shutil

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Path of Chromium, or None where there is none."""
