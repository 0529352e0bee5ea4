"""sallyportctl: every verb, what it prints and writes, and what it says when it cannot."""

import base64
import hashlib
import json
import os
import re
import stat
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("SP_BUILD", ROOT / "build" / "release")).resolve()
SLOW = 4 if "address" in BUILD.name or "thread" in BUILD.name else 1

UNTRUSTED, USAGE, DATA, NOINPUT, CANTCREAT, NOPERM = 1, 64, 65, 66, 73, 77


class Ctl:
    """The tool in one folder. A call expects exit code `code` and returns the result; of a
    success with --json the parsed output is in `.json`."""

    def __init__(self, folder):
        self.dir = folder

    def __call__(self, *argv, code=0):
        r = subprocess.run(
            [str(BUILD / "bin" / "sallyportctl"), *map(str, argv)],
            capture_output=True, text=True, timeout=20 * SLOW, cwd=self.dir,
            stdin=subprocess.DEVNULL, check=False)
        assert r.returncode == code, f"{argv}: {r.returncode}\n{r.stdout}{r.stderr}"
        assert bool(r.stderr) == bool(code), r.stderr
        if code:
            assert r.stdout == ""
        r.json = json.loads(r.stdout) if "--json" in argv and not code else None
        return r

    def fails(self, code, said, *argv):
        """Fails with `code`, and the error names all texts of `said`."""
        r = self(*argv, code=code)
        for text in [said] if isinstance(said, str) else said:
            assert text in r.stderr, f"{r.stderr!r} does not say {text!r}"
        assert r.stderr.count("\n") == 1
        return r

    def path(self, name):
        return self.dir / name

    def text(self, name):
        return self.path(name).read_text()

    def write(self, name, content):
        self.path(name).write_text(content if isinstance(content, str) else json.dumps(content))
        return name

    def mode(self, name):
        return stat.S_IMODE(self.path(name).stat().st_mode)


@pytest.fixture
def ctl(tmp_path):
    return Ctl(tmp_path)


@pytest.fixture
def fleet(ctl):
    """A folder with keys of every kind, a pass and a worker config, unsigned."""
    for kind in "signing", "worker", "route", "device":
        ctl("keys", kind, "-o", f"{kind}.key")
    ctl("pass", "make", "--key", "signing.key", "--device", "device.pub", "--user", "ann",
        "--tier", "free", "-o", "device.pass")
    ctl("config", "init", "worker", "--pass-key", "signing.pub", "-o", "worker.json")
    return ctl


def sign(ctl, name="worker.json", out="worker.signed", *more, code=0):
    return ctl("config", "sign", "--key", "signing.key", name, "-o", out, *more, code=code)


# ---- keys ----

@pytest.mark.parametrize("kind", ["signing", "worker", "device"])
def test_a_key_is_a_private_secret_and_a_public_half(ctl, kind):
    made = ctl("keys", kind, "-o", "x.key", "--json").json
    assert ctl.mode("x.key") == 0o600 and ctl.mode("x.pub") == 0o644
    public = ctl.text("x.pub").strip()
    assert re.fullmatch(rf"sallyport-{kind}-public:[A-Za-z0-9+/]{{43}}=", public)
    assert ctl.text("x.key").startswith(f"sallyport-{kind}-secret:")
    raw = base64.b64decode(public.split(":")[1])
    assert made["id"] == hashlib.blake2b(raw, digest_size=32).hexdigest()[:16]
    assert made["public"] == public and made["public_file"] == "x.pub"
    if kind == "worker":
        assert made["home_id"] == made["id"]
    for half in "x.key", "x.pub":
        shown = ctl("keys", "show", half, "--json").json
        assert (shown["kind"], shown["public"], shown["id"]) == (kind, public, made["id"])
        assert shown["half"] == ("secret" if half == "x.key" else "public")


def test_the_route_key_has_no_public_half(ctl):
    made = ctl("keys", "route", "-o", "r.key", "--json").json
    assert not ctl.path("r.pub").exists() and ctl.mode("r.key") == 0o600
    assert ctl("keys", "show", "r.key", "--json").json["fingerprint"] == made["fingerprint"]


def test_no_secret_is_ever_printed(fleet):
    for name in "signing.key", "worker.key", "device.key", "route.key":
        secret = fleet.text(name).strip().split(":")[1]
        for verb in ("keys", "show"), ("print",):
            for form in (), ("--json",):
                assert secret[:30] not in fleet(*verb, name, *form).stdout


def test_two_keys_are_never_the_same(ctl):
    ctl("keys", "signing", "-o", "a.key")
    ctl("keys", "signing", "-o", "b.key")
    assert ctl.text("a.key") != ctl.text("b.key")


def test_the_words_sign_and_node_are_understood(ctl):
    assert ctl("keys", "sign", "-o", "a", "--json").json["kind"] == "signing"
    assert ctl("keys", "node", "-o", "b", "--json").json["kind"] == "worker"
    assert ctl.path("a.pub").exists() and ctl.path("b.pub").exists()


def test_a_key_is_not_replaced_unless_forced(ctl):
    ctl("keys", "device", "-o", "x.key")
    before = ctl.text("x.key"), ctl.text("x.pub")
    ctl.fails(CANTCREAT, ["x.pub exists already", "--force"], "keys", "device", "-o", "x.key")
    ctl.path("x.pub").unlink()
    ctl.fails(CANTCREAT, ["x.key exists already", "--force"], "keys", "device", "-o", "x.key")
    assert ctl.text("x.key") == before[0] and not ctl.path("x.pub").exists()
    ctl("keys", "device", "-o", "x.key", "--force")
    assert ctl.text("x.key") != before[0] and ctl.mode("x.key") == 0o600


def test_a_public_half_that_is_there_keeps_the_secret_from_being_written(ctl):
    ctl.write("x.pub", "mine\n")
    ctl.fails(CANTCREAT, "x.pub exists already", "keys", "worker", "-o", "x.key")
    assert not ctl.path("x.key").exists() and ctl.text("x.pub") == "mine\n"


def test_a_folder_that_is_missing_is_named(ctl):
    ctl.fails(CANTCREAT, ["none/x.key: cannot write: No such file", "make its folder first"], "keys", "route", "-o",
              "none/x.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_secret_that_others_may_read_is_refused(fleet, mode):
    fleet.path("signing.key").chmod(mode)
    for argv in (["keys", "show", "signing.key"], ["print", "signing.key"],
                 ["config", "sign", "--key", "signing.key", "worker.json", "-o", "w"]):
        fleet.fails(NOPERM, ["signing.key holds a secret", "chmod 600 signing.key"], *argv)
    assert not fleet.path("w").exists()


def test_a_damaged_key_is_refused(fleet):
    whole = fleet.text("signing.pub")
    for text in whole[:-6], whole.replace("public", "pubic"), whole * 2, "", "\0" * 50:
        fleet.write("bad.pub", text)
        fleet.fails(DATA, "bad.pub: not a key", "keys", "show", "bad.pub")


def test_a_file_that_is_not_there_is_named(ctl):
    for verb in ("keys", "show"), ("pass", "show"), ("config", "show"), ("print",):
        ctl.fails(NOINPUT, "gone: No such file", *verb, "gone")


# ---- passes ----

def test_a_pass_says_what_was_asked_for(fleet):
    made = fleet(
        "pass", "make", "--key", "signing.key", "--device", fleet.text("device.pub").strip(),
        "--user", "ann@example.org", "--tier", "paid", "--valid", "30d", "--from",
        "2030-01-01T00:00:00Z", "--max-sessions", 3, "--max-streams", 100, "--max-flows", 50,
        "--rate", "2M", "--group", "eu", "--group", "us", "-o", "p", "--json").json
    shown = fleet("pass", "show", "p", "--json").json
    for key, want in {
            "user": "ann@example.org", "tier": "paid", "not_before": 1893456000,
            "expires": 1893456000 + 30 * 86400, "max_sessions": 3, "max_streams": 100,
            "max_flows": 50, "rate_bps": 2 << 20, "groups": ["eu", "us"],
            "device": fleet.text("device.pub").strip(), "state": "not valid yet"}.items():
        assert shown[key] == made[key] == want, key
    assert re.fullmatch("[0-9a-f]{32}", shown["serial"])
    assert shown["signed_by"] == fleet("keys", "show", "signing.pub", "--json").json["id"]
    assert shown["signature"] == "not checked"


def test_a_pass_holds_from_now_for_25_hours_by_itself(fleet):
    shown = fleet("pass", "show", "device.pass", "--json").json
    assert abs(shown["not_before"] - time.time()) < 60
    assert shown["expires"] - shown["not_before"] == 25 * 3600
    text = fleet("pass", "show", "device.pass").stdout
    assert re.search(r"^expires +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  \(in 2[45] h \d+ min\)$",
                     text, re.M)


def test_every_pass_has_a_serial_of_its_own(fleet):
    argv = ["pass", "make", "--key", "signing.key", "--device", "device.pub", "--user", "a",
            "--tier", "t", "--json", "-o"]
    assert fleet(*argv, "p1").json["serial"] != fleet(*argv, "p2").json["serial"]


def test_a_good_pass_verifies(fleet):
    r = fleet("pass", "verify", "device.pass", "--fleet-key", "signing.pub", "--device",
              "device.pub", "--json")
    assert r.json["signature"] == "verified" and r.json["state"] == "valid"


def test_a_pass_of_another_key_does_not_verify(fleet):
    fleet("keys", "signing", "-o", "other.key")
    fleet.fails(UNTRUSTED, ["device.pass: signed by key", "not the --fleet-key"],
                "pass", "verify", "device.pass", "--fleet-key", "other.pub")
    fleet("pass", "verify", "device.pass", "--fleet-key", "other.pub", "--fleet-key",
          "signing.pub")


def test_a_pass_with_a_flipped_bit_does_not_verify(fleet):
    blob = fleet.path("device.pass").read_bytes()
    codes = set()
    for at in range(0, len(blob), 7):
        bad = bytearray(blob)
        bad[at] ^= 1
        fleet.path("bad.pass").write_bytes(bad)
        r = subprocess.run([str(BUILD / "bin" / "sallyportctl"), "pass", "verify", "bad.pass",
                            "--fleet-key", "signing.pub"], cwd=fleet.dir, capture_output=True,
                           check=False)
        codes.add(r.returncode)
        assert r.returncode in (UNTRUSTED, DATA) and b"bad.pass: " in r.stderr
    assert codes == {UNTRUSTED, DATA}


def test_a_truncated_pass_is_refused(fleet):
    blob = fleet.path("device.pass").read_bytes()
    for n in 0, 3, 13, len(blob) // 2, len(blob) - 1:
        fleet.path("bad.pass").write_bytes(blob[:n])
        fleet.fails(DATA, ["bad.pass: not a whole signed file", "get it again"], "pass",
                    "verify", "bad.pass", "--fleet-key", "signing.pub")


def test_time_decides_about_a_pass(fleet):
    verify = "pass", "verify", "device.pass", "--fleet-key", "signing.pub", "--at"
    shown = fleet("pass", "show", "device.pass", "--json").json
    for at, state in ((shown["expires"] - 1, "valid"),
                      (shown["expires"] + 60, "expired, but tolerated"),  # 90 s
                      (shown["not_before"] - 60, "not valid yet, but tolerated")):
        assert fleet(*verify, at, "--json").json["state"] == state
    fleet.fails(UNTRUSTED, ["device.pass: expired at", "make a new one"], *verify,
                shown["expires"] + 90)
    fleet.fails(UNTRUSTED, "device.pass: not valid before", *verify, shown["not_before"] - 91)
    fleet.fails(USAGE, "--at noon: want a time such as", *verify, "noon")


def test_a_pass_of_another_device_is_refused(fleet):
    fleet("keys", "device", "-o", "other.key")
    fleet.fails(UNTRUSTED, "device.pass: it is for another device", "pass", "verify",
                "device.pass", "--fleet-key", "signing.pub", "--device", "other.pub")


@pytest.mark.parametrize("change,code,said", [
    (["--valid", "25"], USAGE, "--valid 25: want a duration such as"),
    (["--max-sessions", "65536"], USAGE, "--max-sessions 65536: want a number from 0 to 65535"),
    (["--rate", "fast"], USAGE, "--rate fast: want a number"),
    (["--group", "a b"], USAGE, "--group a b: want 1 to 32 letters"),
    (["--tier", "a b"], USAGE, "--tier a b: want 1 to 32 letters"),
    (["--user", "x" * 65], USAGE, "want 1 to 64 printable"),
    (["--user", "a\nb"], USAGE, "want 1 to 64 printable"),
    (["--user", ""], USAGE, "want 1 to 64 printable"),
    (["--from", "2030-02-30T00:00:00Z"], USAGE, "--from 2030-02-30T00:00:00Z: want a time"),
    (["--device", "worker.pub"], DATA,
     "--device: worker.pub: this is a public worker key; a public device key is needed"),
    (["--device", "device.key"], DATA, "this is a secret device key"),
    (["--device", "gone.pub"], NOINPUT, "--device: gone.pub: No such file"),
    (["--key", "device.key"], DATA, "this is a secret device key; a secret signing key"),
    (["--key", "signing.pub"], DATA, "this is a public signing key; a secret"),
    (["-o", "device.pass"], CANTCREAT, "device.pass exists already"),
])
def test_a_pass_that_cannot_be_is_not_made(fleet, change, code, said):
    given = {"--key": "signing.key", "--device": "device.pub", "--user": "a", "--tier": "t",
             "-o": "p"}
    given.update([change])
    before = fleet.path("device.pass").read_bytes()
    argv = [word for pair in given.items() for word in pair]
    r = fleet("pass", "make", *argv, code=code)
    assert said in r.stderr.replace("\n", " ")
    assert not fleet.path("p").exists() and fleet.path("device.pass").read_bytes() == before


def test_a_config_is_no_pass_and_the_other_way_round(fleet):
    sign(fleet)
    fleet.fails(DATA, "worker.signed: a worker-config, not a pass", "pass", "show",
                "worker.signed")
    fleet.fails(DATA, "device.pass: a pass, not a config", "config", "show", "device.pass")


# ---- configs ----

def test_a_worker_config_is_made_by_options(fleet):
    r = fleet("config", "init", "worker", "--pass-key", "signing.pub", "--tier",
              "free,max_streams=100,rate_bps=1M,groups=eu+us", "--tier", "paid", "--allow",
              "127.0.0.0/8", "--allow", "*:25", "--deny", "10.0.0.0/8", "--group", "eu",
              "--config-valid", "30d")
    c = json.loads(r.stdout)
    assert c["tiers"] == {"free": {"max_streams": 100, "rate_bps": 1 << 20,
                                   "groups": ["eu", "us"]}, "paid": {}}
    assert c["exit_policy"] == ["deny 10.0.0.0/8", "allow 127.0.0.0/8", "allow *:25"]
    assert c["pass_keys"] == [fleet.text("signing.pub").strip()]
    assert c["group"] == "eu" and c["expires"] - c["issued"] == 30 * 86400
    assert c["revision"] == {"epoch": 1, "sequence": 1} and c["format"] == 1


def test_a_client_config_is_made_by_options(fleet):
    fleet("keys", "worker", "-o", "w2.key")
    r = fleet("config", "init", "client", "--exit",
              "name=a,key=worker.pub,region=de,tls=192.0.2.1:443,server_name=www.example.org,"
              "pin=" + "ab" * 32 + ",tcp=192.0.2.1:7000", "--exit",
              "name=b,key=w2.pub,home_id=00000000000000ff,tls=[2001:db8::1]:443")
    a, b = json.loads(r.stdout)["exits"]
    assert a["carriers"] == [
        {"kind": "tls", "address": "192.0.2.1:443", "server_name": "www.example.org",
         "pin_sha256": "ab" * 32}, {"kind": "tcp", "address": "192.0.2.1:7000"}]
    assert a["home_id"] == fleet("keys", "show", "worker.pub", "--json").json["home_id"]
    assert a["region"] == "de" and a["public_key"] == fleet.text("worker.pub").strip()
    assert b["home_id"] == "00000000000000ff"
    assert b["carriers"] == [{"kind": "tls", "address": "[2001:db8::1]:443"}]


@pytest.mark.parametrize("argv,said", [
    (["worker"], "--pass-key FILE is missing"),
    (["worker", "--pass-key", "signing.pub", "--tier", "=1"], "the tier's name stands first"),
    (["worker", "--pass-key", "signing.pub", "--tier", "a,max_streams=lots"],
     "want max_sessions="),
    (["worker", "--pass-key", "signing.pub", "--tier", "a", "--tier", "a"], "is there already"),
    (["worker", "--pass-key", "signing.pub", "--config-valid", "soon"], "--config-valid soon"),
    (["client"], "--exit is missing"),
    (["client", "--exit", "a"], '"a" is no KEY=VALUE'),
    (["client", "--exit", "pin=" + "ab" * 32], "pin= stands behind the tls="),
    (["client", "--exit", "port=7"], "unknown port="),
    (["other"], "want worker or client"),
])
def test_options_that_make_no_config_are_a_usage_error(fleet, argv, said):
    fleet.fails(USAGE, said, "config", "init", *argv)


@pytest.mark.parametrize("argv,said", [
    (["worker", "--pass-key", "signing.pub", "--allow", "localhost"],
     'exit_policy[0]: found "allow localhost": '),
    (["worker", "--pass-key", "signing.pub", "--tier", "a,max_strems=1"],
     'tiers.a.max_strems: unknown key; is it "max_streams"?'),
    (["worker", "--pass-key", "device.pub"], "this is a public device key"),
    (["client", "--exit", "name=a,key=worker.pub"], "exits[0].carriers: found 0 entries"),
    (["client", "--exit", "name=a,tls=192.0.2.1:443"], "exits[0].public_key: missing"),
    (["client", "--exit", "name=a,key=worker.pub,tls=192.0.2.1"], 'address: found "192.0.2.1"'),
    (["client", "--exit", "name=a,key=worker.pub,tls=192.0.2.1:1,pin=worker.json"],
     "pin=worker.json: neither"),
])
def test_what_lib_refuses_is_refused_with_its_path(fleet, argv, said):
    fleet.fails(DATA, said, "config", "init", *argv)


def test_what_is_signed_is_the_exact_file(fleet):
    text = fleet.text("worker.json").replace("  ", "\t") + "\n\n"
    fleet.write("worker.json", text)
    made = sign(fleet, "worker.json", "w.signed", "--json").json
    assert made["revision"] == {"epoch": 1, "sequence": 1} and made["type"] == "worker-config"
    assert fleet("config", "show", "w.signed", "--body").stdout == text
    first, rest = fleet.text("w.signed").split("\n", 1)
    assert rest == text and first.startswith("sallyport-signed 1 worker-config ")
    assert fleet("config", "verify", "w.signed", "--fleet-key", "signing.pub",
                 "--json").json["config"] == json.loads(text)


def test_the_kind_is_known_by_the_members(fleet):
    fleet("config", "init", "client", "--exit", "name=a,key=worker.pub,tcp=192.0.2.1:1", "-o",
          "exits.json")
    assert sign(fleet, "exits.json", "e", "--json").json["type"] == "client-config"
    r = sign(fleet, "exits.json", "e2", "--kind", "worker", code=DATA)
    assert re.search(r"exits.json:\d+: exits: unknown key; known are format, revision", r.stderr)
    fleet.write("neither.json", {"format": 1})
    assert "neither a worker nor a client" in sign(fleet, "neither.json", "n", code=DATA).stderr
    assert sign(fleet, "neither.json", "n", "--kind", "x", code=USAGE)


def test_a_config_that_does_not_hold_is_not_signed(fleet):
    c = json.loads(fleet.text("worker.json"))
    c["tiers"]["default"]["max_stream"] = 3
    text = json.dumps(c, indent=1)
    fleet.write("bad.json", text)
    line = 1 + text[:text.index('"max_stream"')].count("\n")
    r = sign(fleet, "bad.json", "w", code=DATA)
    assert (f'sallyportctl: bad.json:{line}: tiers.default.max_stream: unknown key; is it '
            '"max_streams"?\n') == r.stderr
    fleet.write("bad.json", '{"format": 1,\n "tiers": {]}')
    assert "bad.json:2: not whole JSON" in sign(fleet, "bad.json", "w", code=DATA).stderr
    assert not fleet.path("w").exists()


def test_a_revision_must_rise(fleet):
    c = json.loads(fleet.text("worker.json"))
    sign(fleet)
    held = fleet.text("worker.signed")
    for epoch, sequence in (1, 1), (0, 99), (1, 0):
        c["revision"] = {"epoch": epoch, "sequence": sequence}
        fleet.write("worker.json", c)
        r = sign(fleet, code=UNTRUSTED)
        assert f"has revision 1.1 already, and this one is {epoch}.{sequence}" in r.stderr
        assert "--next" in r.stderr and fleet.text("worker.signed") == held
    c["revision"] = {"epoch": 1, "sequence": 2}
    fleet.write("worker.json", c)
    sign(fleet)
    c["revision"] = {"epoch": 1, "sequence": 1}
    fleet.write("worker.json", c)
    sign(fleet, "worker.json", "worker.signed", "--force")
    assert '"sequence": 1' in fleet.text("worker.signed")


def test_next_raises_the_revision_by_itself(fleet):
    for want in 1, 2, 3:
        made = sign(fleet, "worker.json", "worker.signed", "--next", "--json").json
        assert made["revision"] == {"epoch": 1, "sequence": want}
    c = json.loads(fleet.text("worker.json"))
    c["revision"] = {"epoch": 2, "sequence": 0}
    fleet.write("worker.json", c)
    made = sign(fleet, "worker.json", "worker.signed", "--next", "--json").json
    assert made["revision"] == {"epoch": 2, "sequence": 0}
    shown = fleet("config", "verify", "worker.signed", "--fleet-key", "signing.pub", "--json")
    assert abs(shown.json["config"]["issued"] - time.time()) < 60


def test_what_is_no_config_is_not_replaced(fleet):
    for name in "device.pass", "signing.pub":
        before = fleet.path(name).read_bytes()
        r = sign(fleet, "worker.json", name, code=CANTCREAT)
        assert f"{name} exists and is not a signed worker-config" in r.stderr
        assert fleet.path(name).read_bytes() == before


def test_an_expired_config_is_neither_signed_nor_verified(fleet):
    c = json.loads(fleet.text("worker.json"))
    c.update(issued=100, expires=200)
    fleet.write("old.json", c)
    r = sign(fleet, "old.json", "old.signed", code=DATA)
    assert "old.json: expires: 1970-01-01T00:03:20Z is past" in r.stderr
    sign(fleet, "old.json", "old.signed", "--force")
    fleet.fails(UNTRUSTED, ["old.signed: expired at 1970-01-01T00:03:20Z", "sign a new one"],
                "config", "verify", "old.signed", "--fleet-key", "signing.pub")
    fleet("config", "verify", "old.signed", "--fleet-key", "signing.pub", "--at", "199")


def test_a_tampered_config_does_not_verify(fleet):
    sign(fleet)
    text = fleet.text("worker.signed")
    verify = "config", "verify", "bad", "--fleet-key", "signing.pub"
    fleet.write("bad", text.replace("default", "premium"))
    fleet.fails(UNTRUSTED, ["bad: the signature does not match", "get it again"], *verify)
    fleet.write("bad", text + " ")
    fleet.fails(UNTRUSTED, "the signature does not match", *verify)
    fleet.write("bad", text[:-20])
    fleet.fails(UNTRUSTED, "the signature does not match", *verify)
    fleet.write("bad", text[:50])
    fleet.fails(DATA, "bad: not a whole signed file", *verify)
    fleet.write("bad", text.replace("worker-config", "client-config"))
    fleet.fails(UNTRUSTED, "the signature does not match", *verify)


def test_a_config_of_another_key_does_not_verify(fleet):
    sign(fleet)
    fleet("keys", "signing", "-o", "other.key")
    fleet.fails(UNTRUSTED, "not the --fleet-key", "config", "verify", "worker.signed",
                "--fleet-key", "other.pub")
    fleet.fails(DATA, "--fleet-key: device.pub: this is a public device key", "config",
                "verify", "worker.signed", "--fleet-key", "device.pub")


def test_too_big_a_file_is_refused(fleet):
    fleet.write("big.json", " " * (2 << 20))
    r = sign(fleet, "big.json", "b", code=DATA)
    assert "big.json is longer than the limit" in r.stderr


# ---- print ----

def test_print_recognises_every_file(fleet):
    sign(fleet)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=www.example.org",
                    "-keyout", "tls.key", "-out", "tls.pem"], cwd=fleet.dir, check=True,
                   capture_output=True)
    want = {"signing.key": "key", "signing.pub": "key", "worker.key": "key",
            "route.key": "key", "device.pub": "key", "device.pass": "pass",
            "worker.json": "worker-config", "worker.signed": "worker-config",
            "tls.pem": "certificate"}
    for name, kind in want.items():
        assert fleet("print", name, "--json").json["type"] == kind, name
        assert kind in fleet("print", name).stdout
    der = subprocess.run(["openssl", "x509", "-in", "tls.pem", "-outform", "DER"],
                         cwd=fleet.dir, check=True, capture_output=True).stdout
    shown = fleet("print", "tls.pem", "--json").json
    assert shown["pin_sha256"] == hashlib.sha256(der).hexdigest()


def test_print_says_so_of_what_it_does_not_know(fleet):
    fleet.write("worker.yaml", "node: a\n")
    fleet.fails(DATA, "worker.yaml: none of our keys", "print", "worker.yaml")
    fleet.write("empty", "")
    fleet.fails(DATA, "empty: none of our keys", "print", "empty")
    fleet.write("cut.json", '{"format": 1, ')
    fleet.fails(DATA, "cut.json:1: not whole JSON", "print", "cut.json")
    fleet.write("bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    fleet.fails(DATA, "bad.pem: the certificate is damaged", "print", "bad.pem")


def test_no_control_character_reaches_the_terminal(fleet):
    blob = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                           "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=a\x1b[31mb",
                           "-keyout", "tls.key"], cwd=fleet.dir, check=True,
                          capture_output=True).stdout
    fleet.path("odd.pem").write_bytes(blob)
    assert "\x1b" not in fleet("print", "odd.pem").stdout


# ---- quickstart ----

def test_a_quickstart_is_a_fleet_that_the_programs_take(ctl):
    made = ctl("quickstart", "fleet", "--worker", "127.0.0.1:17443,name=a,admin=127.0.0.1:19321",
               "--worker", "tls=127.0.0.1:17444@127.0.0.1:17445,tcp=127.0.0.1:17446,region=de",
               "--allow", "127.0.0.0/8", "--dns", "127.0.0.1:53", "--dns", "[::1]:53",
               "--cover", "127.0.0.1:8080", "--http", "127.0.0.1:18118",
               "--tier", "free,max_streams=100", "--user", "ann", "--valid", "7d",
               "--worker-set", "limits.streams=20000", "--client-set", "log.level=debug",
               "--json").json
    assert [w["name"] for w in made["workers"]] == ["a", "w2"]
    for argv in [*(w["run"] for w in made["workers"]), made["client"]["run"]]:
        program, *rest = argv.removesuffix(" up").split()
        checked = subprocess.run([str(BUILD / "bin" / program), *rest, "--check"], cwd=ctl.dir,
                                 capture_output=True, text=True, check=False,
                                 timeout=20 * SLOW)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    key = "--fleet-key", "fleet/operator/signing.pub"
    for w in "a", "w2":
        c = ctl("config", "verify", f"fleet/worker-{w}/worker.signed", *key, "--json").json
        assert c["config"]["exit_policy"] == ["allow 127.0.0.0/8"]
        assert sorted(m["name"] for m in c["config"]["members"]) == ["a", "w2"]
    exits = ctl("config", "verify", "fleet/client/exits.signed", *key, "--json").json
    a, w2 = exits["config"]["exits"]
    assert [a["home_id"], w2["home_id"]] == [w["home_id"] for w in made["workers"]]
    assert [c["address"] for c in w2["carriers"]] == ["127.0.0.1:17444", "127.0.0.1:17446"]
    pin = ctl("print", "fleet/worker-w2/tls/fullchain.pem", "--json").json["pin_sha256"]
    assert w2["carriers"][0]["pin_sha256"] == pin and w2["region"] == "de"
    p = ctl("pass", "verify", "fleet/client/device.pass", *key, "--device",
            "fleet/client/device.pub", "--json").json
    assert (p["user"], p["tier"], p["expires"] - p["not_before"]) == ("ann", "free", 7 * 86400)
    dump = subprocess.run([str(BUILD / "bin" / "sallyport-worker"), "-c",
                           "fleet/worker-w2/worker.yaml", "--dump-config"], cwd=ctl.dir,
                          capture_output=True, text=True, check=True).stdout
    assert "127.0.0.1:17445" in dump and "127.0.0.1:17446" in dump and "20000" in dump


def test_secrets_of_a_quickstart_are_private(ctl):
    ctl("quickstart", "fleet", "--worker", "192.0.2.1:443")
    secrets = [*ctl.path("fleet").rglob("*.key"), *ctl.path("fleet").rglob("privkey.pem")]
    assert len(secrets) == 6
    for path in secrets:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in [ctl.path("fleet"), *ctl.path("fleet").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_a_worker_of_a_quickstart_listens_everywhere_unless_it_is_on_loopback(ctl):
    ctl("quickstart", "fleet", "--worker", "192.0.2.1:443", "--worker", "[2001:db8::1]:444",
        "--worker", "exit.example.org:445", "--worker", "127.0.0.1:446", "--carrier", "tcp")
    listens = [re.search(r'tcp: \["(.*)"\]', ctl.text(f"fleet/worker-w{n}/worker.yaml"))[1]
               for n in (1, 2, 3, 4)]
    assert listens == ["0.0.0.0:443", "[::]:444", "0.0.0.0:445", "127.0.0.1:446"]
    assert not list(ctl.path("fleet").rglob("*.pem"))


def test_a_server_name_stands_in_certificate_and_config(ctl):
    ctl("quickstart", "fleet", "--worker", "192.0.2.1:443", "--server-name", "www.example.org")
    exits = json.loads(ctl.text("fleet/operator/exits.json"))["exits"]
    assert exits[0]["carriers"][0]["server_name"] == "www.example.org"
    names = subprocess.run(["openssl", "x509", "-in", "fleet/worker-w1/tls/fullchain.pem",
                            "-noout", "-ext", "subjectAltName", "-subject"], cwd=ctl.dir,
                           capture_output=True, text=True, check=True).stdout
    assert "DNS:www.example.org" in names and "CN = www.example.org" in names


def test_the_configs_of_a_quickstart_can_be_signed_again(ctl):
    ctl("quickstart", "fleet", "--worker", "192.0.2.1:443")
    for name, out in ("worker", "worker-w1/worker"), ("exits", "client/exits"):
        made = ctl("config", "sign", "--key", "fleet/operator/signing.key",
                   f"fleet/operator/{name}.json", "-o", f"fleet/{out}.signed", "--next",
                   "--json").json
        assert made["revision"] == {"epoch": 1, "sequence": 2}


def test_a_rule_that_does_not_hold_makes_no_folder(ctl):
    ctl.fails(DATA, 'exit_policy[0]: found "allow here"', "quickstart", "fleet", "--worker",
              "192.0.2.1:443", "--allow", "here")
    assert not ctl.path("fleet").exists()


def test_a_folder_in_use_is_left_alone(ctl):
    ctl.path("fleet").mkdir()
    ctl.write("fleet/mine", "x")
    ctl.fails(CANTCREAT, "fleet is not empty", "quickstart", "fleet", "--worker", "192.0.2.1:1")
    assert [p.name for p in ctl.path("fleet").iterdir()] == ["mine"]


@pytest.mark.parametrize("argv,said", [
    ([], "--worker SPEC is missing"),
    (["--worker", "192.0.2.1"], '"192.0.2.1" is wrong'),
    (["--worker", "192.0.2.1:443@here"], "is wrong"),
    (["--worker", "name=a"], "no address to dial"),
    (["--worker", "192.0.2.1:443,colour=red"], '"colour" is wrong'),
    (["--worker", "192.0.2.1:1,name=a", "--worker", "192.0.2.1:2,name=a"], "stands twice"),
    (["--worker", "192.0.2.1:443", "--carrier", "udp"], "--carrier udp: want tls or tcp"),
    (["--worker", "192.0.2.1:443", "--cover", "web"], "--cover web: want HOST:PORT"),
    (["--worker", "192.0.2.1:443", "--dns", "x"], "--dns x: want HOST:PORT"),
    (["--worker", "192.0.2.1:443", "--worker-set", "a: b"], "--worker-set a: b: want KEY=VALUE"),
    (["--worker", "192.0.2.1:443", "--server-name", "a b"], "--server-name a b: want a host"),
    (["--worker", "192.0.2.1:443", "--user", ""], "want 1 to 64 printable"),
    (["--worker", "192.0.2.1:443", "--valid", "x"], "--valid x: want a duration"),
    (["--worker", "192.0.2.1:443", "--tier", "a,b"], "--tier a,b: want max_sessions="),
])
def test_a_quickstart_that_cannot_be_makes_no_folder(ctl, argv, said):
    ctl.fails(USAGE, said, "quickstart", "fleet", *argv)
    assert not ctl.path("fleet").exists()


# ---- the command line ----

def verbs(ctl):
    """{verb: its options}, as the help lists them."""
    listed = re.findall(r"^  ((?:keys|pass|config|get|token) \w+|\w+)\b", ctl("--help").stdout, re.M)
    return {v: re.findall(r"--([a-z-]+)", ctl(*v.split(), "--help").stdout) for v in listed}


def test_the_manual_has_every_verb_and_option(ctl):
    page = (ROOT / "docs/man/sallyportctl.1").read_text()
    listed = verbs(ctl)
    assert len(listed) >= 37 and {"apply", "drain", "config sign", "get events"} <= set(listed)
    for verb, options in listed.items():
        assert re.search(rf"^\.(It|Ss).* ({verb.replace(' ', ' (Cm )?')})\b", page, re.M), verb
        for option in options:
            assert rf"Fl \-{option}" in page, f"{verb} --{option}"


def test_the_completion_in_the_tree_is_the_one_of_the_table(ctl):
    assert ctl("completion").stdout == (ROOT / "deploy/completion/sallyportctl").read_text()


@pytest.mark.parametrize("words,want", [
    (["con"], "config"),
    (["config", "si"], "sign"),
    (["config", "sign", "--ne"], "--next"),
    (["keys", "signing", "--fo"], "--force"),
    (["print", "hay"], "haystack"),
    (["get", "van"], "vantages"),
    (["get", "events", "--fo"], "--follow"),
    (["doc"], "doctor"),
    (["doctor", "--lo"], "--local"),
    (["hea"], "health"),
])
def test_bash_completes(ctl, words, want):
    ctl.write("haystack", "")
    script = ROOT / "deploy/completion/sallyportctl"
    line = " ".join(f"'{w}'" for w in ["sallyportctl", *words])
    r = subprocess.run(["bash", "-c", f"source '{script}'; COMP_WORDS=({line}); "
                        f"COMP_CWORD={len(words)}; _sallyportctl; echo \"${{COMPREPLY[@]}}\""],
                       cwd=ctl.dir, capture_output=True, text=True, check=True)
    assert r.stdout.split() == [want]


def test_bash_completes_every_verb_and_option_of_the_help(ctl):
    script = ROOT / "deploy/completion/sallyportctl"

    def complete(*words):
        line = " ".join(f"'{w}'" for w in ["sallyportctl", *words])
        return subprocess.run(
            ["bash", "-c", f"source '{script}'; COMP_WORDS=({line}); "
             f"COMP_CWORD={len(words)}; _sallyportctl; echo \"${{COMPREPLY[@]}}\""],
            cwd=ctl.dir, capture_output=True, text=True, check=True).stdout.split()

    listed = verbs(ctl)
    assert {v.split()[0] for v in listed} <= set(complete(""))
    for verb, options in listed.items():
        if " " in verb:
            assert verb.split()[1] in complete(verb.split()[0], "")
        assert {f"--{o}" for o in options} <= set(complete(*verb.split(), "--")), verb


def test_the_version_is_told(ctl):
    assert re.fullmatch(r"sallyportctl \d+\.\d+\.\d+\S*\n", ctl("--version").stdout)


def test_errors_are_json_on_request(fleet):
    r = fleet("config", "show", "gone", "--json", code=NOINPUT)
    assert json.loads(r.stderr) == {"error": "gone: No such file or directory", "exit": NOINPUT}


def test_a_full_disk_is_told(ctl):
    r = subprocess.run([str(BUILD / "bin" / "sallyportctl"), "completion"], cwd=ctl.dir,
                       stdout=open("/dev/full", "wb"), stderr=subprocess.PIPE, check=False)
    assert r.returncode == 74 and b"standard output" in r.stderr
