"""Open the pages of the built documentation in a browser, and say what a reader could not see.

    pip install playwright    # and a Chromium, of the system or by: playwright install chromium
    python tests/docs/look_at_pages.py docs/_build
    python tests/docs/look_at_pages.py docs/_build --out screenshots --browser /usr/bin/chromium

Looks at each page, and at two of the API's, at desktop and at phone width, without a network: that
it does not scroll sideways, that each image has loaded, and that equations are drawn. Exits with 1
where one does not.
"""

import argparse
import sys
from pathlib import Path

OF_THE_API = ["ValueReward", "RFTFPPOLoss"]
WIDTHS = {"desktop": 1280, "phone": 390}
SEEN = """() => ({
  sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  images: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src),
  equations: [...document.querySelectorAll('math')].filter(m => !m.getBoundingClientRect().height)
    .length,
  raw: [...document.querySelectorAll('.math')].filter(m => !m.querySelector('math')).length,
})"""


def faults(page, address, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(address)
    page.evaluate("""() => document.querySelectorAll('img').forEach(i => i.loading = 'eager')""")
    page.wait_for_load_state("load")
    page.wait_for_timeout(300)
    seen = page.evaluate(SEEN)
    if seen["sideways"] > 0:
        yield f"scrolls sideways by {seen['sideways']} pixels"
    yield from (f"the image {image} did not load" for image in seen["images"])
    if seen["equations"] or seen["raw"]:
        yield f"{seen['equations'] + seen['raw']} equations are not drawn"


def main():
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("html", type=Path, help="what sphinx-build has written")
    parser.add_argument("--out", type=Path, help="a folder for screenshots")
    parser.add_argument("--browser", help="Chromium's file; default: playwright's own")
    args = parser.parse_args()
    pages = [path for path in sorted(args.html.rglob("*.html")) if path.parent.name != "generated"]
    pages = [path for path in pages if "_modules" not in path.parts]
    pages += [next(args.html.rglob(f"generated/*.{name}.html")) for name in OF_THE_API]
    bad = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.browser)
        page = browser.new_page()
        page.context.set_offline(True)
        for path in pages:
            for name, width in WIDTHS.items():
                found = list(faults(page, path.absolute().as_uri(), width))
                bad += len(found)
                print(f"{path.relative_to(args.html)} ({name}): {'; '.join(found) or 'ok'}")
                if args.out:
                    args.out.mkdir(parents=True, exist_ok=True)
                    stem = path.relative_to(args.html).with_suffix("").as_posix()
                    page.screenshot(path=args.out / f"{stem.replace('/', '-')}-{name}.png")
        browser.close()
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
