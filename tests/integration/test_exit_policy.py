"""What an exit refuses to reach for anybody, as long as its operator allows nothing."""

import pytest
from harness import Lab, SocksError, socks_connect

INNER = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "100.64.0.1", "169.254.169.254", "169.254.1.1", "224.0.0.1", "239.1.2.3",
    "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::", "2002:a00:1::1", "::127.0.0.1",
]
NOT_ALLOWED = 2  # RFC 1928, section 6


@pytest.fixture(scope="module")
def strict(servers, dns):
    lab = Lab(servers, dns)
    try:
        yield lab.client("client", [lab.worker(policy=[])])
    finally:
        lab.close()


@pytest.mark.parametrize("host", INNER)
def test_an_inner_address_is_refused(strict, host):
    with pytest.raises(SocksError) as e:
        socks_connect(strict.socks, host, 80)
    assert e.value.code == NOT_ALLOWED


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1"])
def test_a_name_of_an_inner_address_is_refused(strict, dns, address):
    name = f"inner{address.replace(':', '-').replace('.', '-')}.example"
    dns.table[name] = [address]
    with pytest.raises(SocksError) as e:
        socks_connect(strict.socks, name, 80)
    assert e.value.code == NOT_ALLOWED


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost"])
def test_other_spellings_of_loopback_reach_nothing(strict, host):
    with pytest.raises(SocksError):
        socks_connect(strict.socks, host, 80)


def test_mail_is_refused_wherever_it_goes(strict):
    for host in ("192.0.2.1", "2001:db8::1"):
        with pytest.raises(SocksError) as e:
            socks_connect(strict.socks, host, 25)
        assert e.value.code == NOT_ALLOWED
