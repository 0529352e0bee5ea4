"""What the documentation says about keys is what the programs know."""
import subprocess

import pytest

from harness import BUILD, ROOT

PAGES = {"sallyport-worker": "sallyport-worker.8", "sallyport": "sallyport.1",
         "sallyport-controller": "sallyport-controller.8",
         "sallyport-healthcheck": "sallyport-healthcheck.8"}


@pytest.mark.parametrize("program,page", PAGES.items())
def test_the_man_page_holds_the_reference_of_all_keys(program, page):
    reference = subprocess.run([BUILD / "bin" / program, "--reference"], check=True,
                               capture_output=True, text=True, timeout=10).stdout
    text = (ROOT / "docs/man" / page).read_text()
    assert reference.startswith(".It Ic ")
    assert reference in text, f"put the output of {program} --reference into {page}"
