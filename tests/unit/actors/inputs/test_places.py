"""The places that a manifest may name, and the addresses behind them."""

import pytest

from rendermill.actors.media.inputs.options import BadInput, InputOptions
from rendermill.actors.media.inputs.sources.addresses import is_public
from rendermill.actors.media.inputs.sources.allowed import Allowed


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200"),
        *("0.0.0.0", "0.1.2.3", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16", "192.0.0.192"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1"),
        *("2002:7f00:1::", "::127.0.0.1", "2001::1"),
    ],
)
def test_address_that_is_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_address(address):
    assert is_public(address)


@pytest.fixture
def folder(tmp_path):
    """A folder of a manifest with a picture, beside one with a secret, to which a link leads."""
    data, secret = tmp_path / "data", tmp_path / "data-secret"
    for place in (data / "images", secret, tmp_path / "also"):
        place.mkdir(parents=True)
    for file in (data / "images" / "a.png", data / "100%2e.png", secret / "key.png", tmp_path / "also" / "b.png"):
        file.write_bytes(b"x")
    (data / "link").symlink_to(secret)
    (data / "inner.png").symlink_to(data / "images" / "a.png")
    return data


@pytest.mark.parametrize("name", ["images/a.png", "{data}/images/a.png", "inner.png", "100%2e.png", "./images/a.png"])
def test_local_file_in_the_folder_of_the_manifest(folder, name):
    source = Allowed(InputOptions(str(folder))).source(name.format(data=folder))
    assert source.kind == "local"
    assert source.url.startswith(str(folder))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../data-secret/key.png", "leaves the manifest's folder"),
        ("images/../../data-secret/key.png", "leaves the manifest's folder"),
        ("{data}/../data-secret/key.png", "outside the places of inputs"),
        ("{data}-secret/key.png", "outside the places of inputs"),
        ("link/key.png", "which leads to"),
        ("/etc/passwd", "outside the places of inputs"),
        ("/proc/self/environ", "outside the places of inputs"),
        ("file:///etc/passwd", "write local files as paths"),
        ("FILE://localhost/etc/passwd", "write local files as paths"),
        ("local:///etc/passwd", "write local files as paths"),
        ("", "no URL or path"),
        ("a\0b", "no URL or path"),
        ("s3://bucket/a.png", "outside the places of inputs"),
        ("S3A://bucket/a.png", "outside the places of inputs"),
        ("memory://a.png", "outside the places of inputs"),
        ("simplecache::file:///etc/passwd", "leaves the manifest's folder"),
        ("zip://a.png::https://host/a.zip", "one store within another"),
        ("http://host/a.png", "plain http is not taken"),
        ("https://user:word@host/a.png", "user name or password"),
        ("https://host\\@evil/a.png", "characters that URLs cannot have"),
        ("https:///a.png", "no host name"),
        ("https://%31%32%37.0.0.1/a.png", "no host name"),
        ("https://host:99999/a.png", "not a URL"),
        ("https://host/a/../b.png", "names such as"),
        ("https://host/a/%252e%252e/b.png", "names such as"),
    ],
)
def test_what_a_manifest_may_not_name(folder, name, words):
    with pytest.raises(BadInput, match=words):
        Allowed(InputOptions(str(folder))).source(name.format(data=folder))


def test_listed_places_replace_every_https_url_but_not_the_place_of_the_manifest(folder):
    listed = (str(folder.parent / "also"), "s3://bucket/pre", "https://Host.example./pictures/", "http://plain/")
    allowed = Allowed(InputOptions(str(folder), allow=listed))
    for url in (
        *("images/a.png", f"{folder.parent}/also/b.png", "s3://bucket/pre/a.png", "s3a://bucket/pre/a.png"),
        *("https://host.EXAMPLE:443/pictures/a.png", "http://plain/a.png", "https://host.example/%70ictures/a.png"),
    ):
        allowed.source(url)
    for url in (
        *("s3://bucket/prefix/a.png", "s3://bucket/pre/../a.png", "s3://bucket2/pre/a.png", "gs://bucket/pre/a.png"),
        *("https://host.example/other.png", "https://host.example.evil/pictures/a.png", "https://elsewhere/a.png"),
        *("https://host.example:8443/pictures/a.png", "http://host.example/pictures/a.png"),
        *("s3://bucket//pre/a.png", "https://host.example//pictures/a.png", "s3://bucket/"),
        *("https://host.example/pictures/%2e%2e/a.png", "https://host.example/pictures%2f..%2fa.png"),
    ):
        with pytest.raises(BadInput):
            allowed.source(url)
    every = Allowed(InputOptions(str(folder), allow=("https://", "s3://bucket/")))
    assert [every.source(url).kind for url in ("https://any/a.png", "s3://bucket/a.png")] == ["http", "store"]


def test_relative_paths_begin_at_a_manifest_in_a_store():
    allowed = Allowed(InputOptions("s3://bucket/manifests", allow=()))
    assert allowed.source("images/a.png").url == "s3://bucket/manifests/images/a.png"
    with pytest.raises(BadInput):
        allowed.source("images/../../a.png")
    with pytest.raises(BadInput):
        allowed.source("/etc/passwd")


def test_servers_of_the_job_itself_are_its_own(folder):
    options = InputOptions("https://10.0.0.5/data", allow=("https://",))
    allowed = Allowed(options, own_endpoints=("https://minio.internal:9000",))
    urls = ("a.png", "https://minio.internal:9000/bucket/a.png", "https://10.0.0.6/a.png", "https://10.0.0.5:444/a.png")
    assert [allowed.source(url).is_own for url in urls] == [True, True, False, False]
