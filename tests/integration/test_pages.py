"""What the documentation says about keys is what the programs know."""
import re
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


def test_the_man_page_of_the_fleet_file_names_each_key_of_it():
    source = (ROOT / "lib/fleetfile.c").read_text().split("---- helpers", 1)[1]
    keys = set()
    for table in re.findall(r"const char \*const \w+\[\] = \{([^;]*?NULL)\}|"
                            r"struct option options\[\] = \{(.*?)\};", source, re.S):
        keys |= set(re.findall(r'"([a-z0-9_]+)"(?=,)', "".join(table)))
    assert {"fleet", "max_devices", "egress", "slow_start", "deadline"} <= keys
    page = (ROOT / "docs/man/sallyport-fleet.5").read_text().split(".Ss Both configs")[0]
    named = set(re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"^\.(?:It )?Cm (.*)", page,
                                                                 re.M))))
    assert keys <= named, keys - named
