"""Which targets lead to which files of the file server, and that none leads out of its folder."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from urllib.parse import quote

import file_servers
import pytest
from file_servers import AMPLE, DIGITS, LOOPS, Reply, Server, serving
from hypothesis import example, given, settings
from hypothesis import strategies as st
from waiting import until

LONGEST_NAME = 255


running, site = file_servers.running, file_servers.site


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that can be asked for, beside what must not be served."""
    above = tmp_path_factory.mktemp("paths")
    (above / "secret.txt").write_text("SECRET")
    (above / "root-beside").write_text("SECRET")
    (above / "secrets").mkdir()
    (above / "secrets" / "secret.txt").write_text("SECRET")
    root = above / "root"
    for folder in ("sub", "sub/.git", "evil", "evil\\", "\r\nX: é", "site", "odd", "swapped"):
        (root / folder).mkdir(parents=True)
    (root / "digits.txt").write_bytes(DIGITS)
    (root / ("n" * LONGEST_NAME)).write_bytes(DIGITS)
    (root / "sub" / "page.html").write_text("<p>page")
    (root / "sub" / ".git" / "config").write_text("SECRET")
    (root / "site" / "index.html").write_text("<p>index")
    (root / ".hidden").write_text("SECRET")
    (root / "...").write_text("SECRET")
    for name in ("back\\slash", "100%", "a b", "a+b", "a;b", "a:b", "a?b", "a#b", "é", "%41"):
        (root / name).write_text(name)
    (root / "latin-").write_text("SECRET")
    os.rename(root / "latin-", os.fsencode(root / "latin-") + b"\xe9")
    add_links(root)
    add_irregular(root)
    return root


def add_links(root: Path) -> None:
    (root / "inside").symlink_to("sub")
    (root / "inside.txt").symlink_to(root / "digits.txt")
    (root / "to-hidden").symlink_to(".hidden")
    (root / "to-git").symlink_to("sub/.git")
    (root / "to-root").symlink_to(".")
    (root / "outside").symlink_to("../secrets")
    (root / "outside.txt").symlink_to("../secret.txt")
    (root / "beside").symlink_to(str(root) + "-beside")
    (root / "null").symlink_to("/dev/null")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nowhere")


def add_irregular(root: Path) -> None:
    os.mkfifo(root / "fifo")
    before = os.getcwd()
    # A path of a socket is not to be longer than some 100 bytes.
    os.chdir(root)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("socket")
    os.chdir(before)


FOUND = {
    "/digits.txt": "0123456789",
    "/%64igits%2Etxt": "0123456789",
    "/digits.txt?": "0123456789",
    "/digits.txt?a=/../b%00": "0123456789",
    "/digits.txt#more": "0123456789",
    "http://host/digits.txt": "0123456789",
    "http://user@host:80/digits.txt?a": "0123456789",
    "HTTPS://[::1]/digits.txt": "0123456789",
    "//digits.txt": "0123456789",
    "/./digits.txt": "0123456789",
    "/%2e/digits.txt": "0123456789",
    "/sub/../digits.txt": "0123456789",
    "/sub/%2e%2E/digits.txt": "0123456789",
    "/sub/./..//digits.txt": "0123456789",
    "/nothing/../digits.txt": "0123456789",
    "/inside.txt": "0123456789",
    "/to-root/to-root/digits.txt": "0123456789",
    "/" + "n" * LONGEST_NAME: "0123456789",
    "/sub//page.html": "<p>page",
    "/inside/page.html": "<p>page",
    "/site/": "<p>index",
    "/site/.": "<p>index",
    "/sub/../site/": "<p>index",
    "/site/x/..": "<p>index",
    "/back\\slash": "back\\slash",
    "/back%5cslash": "back\\slash",
    "/100%": "100%",
    "/100%25": "100%",
    "/%2541": "%41",
    "/a%20b": "a b",
    "/a+b": "a+b",
    "/a;b": "a;b",
    "/a:b": "a:b",
    "/a%3Fb": "a?b",
    "/a%23b": "a#b",
    "/%c3%a9": "é",
}


@pytest.mark.parametrize("target", FOUND)
def test_a_target_is_decoded_once_and_its_dot_segments_resolved(site: Server, target: str) -> None:
    reply = site.get(target)

    assert reply.status == 200
    assert reply.body.decode() == FOUND[target]


NOT_FOUND = [
    "/nothing",
    "/digits.txt/",
    "/digits.txt/more",
    "/digits.txt/.",
    "/..",
    "/../",
    "/../secret.txt",
    "/../root/digits.txt",
    "/sub/../../secret.txt",
    "/./../secret.txt",
    "//../secret.txt",
    "/../../../../../../../../etc/passwd",
    "//etc/passwd",
    "http://host/../secret.txt",
    "/%2e%2e/secret.txt",
    "/.%2e/secret.txt",
    "/..%2fsecret.txt",
    "/%2e%2e%2fsecret.txt",
    "/sub%2f..%2f..%2fsecret.txt",
    "/%2fetc%2fpasswd",
    "/%252e%252e/secret.txt",
    "/..%5csecret.txt",
    "/..\\secret.txt",
    "/..%c0%afsecret.txt",
    "/%c0%ae%c0%ae/secret.txt",
    "/%e0%80%ae%e0%80%ae/secret.txt",
    "/..;/secret.txt",
    "/...",
    "/sub%2fpage.html",
    "/sub/%2fpage.html",
    "/digits.txt%00",
    "/digits.txt%00.html",
    "/%00",
    "/%00/../digits.txt",
    "/%ff",
    "/latin-%e9",
    "/%ed%b3%a9",
    "/%",
    "/%zz",
    "/%4",
    "/digits.txt%0a",
    "/digits.txt%20",
    "/digits.txt.",
    "/DIGITS.TXT",
    "/.hidden",
    "/%2ehidden",
    "/sub/../.hidden",
    "/.hidden/../digits.txt",
    "/sub/.git",
    "/sub/.git/",
    "/sub/.git/config",
    "/to-hidden",
    "/to-git",
    "/to-git/",
    "/to-git/config",
    "/to-root/../secret.txt",
    "/outside.txt",
    "/outside",
    "/outside/",
    "/outside/secret.txt",
    "/beside",
    "/null",
    "/loop",
    "/loop/more",
    "/dangling",
    "/fifo",
    "/socket",
    "/" + "n" * (LONGEST_NAME + 1),
    "/" + "%c3%a9" * (LONGEST_NAME // 2 + 1),
    "/" + "a/" * 3000,
    "/" + "sub/../" * 1000 + "nothing",
]


@pytest.mark.parametrize("target", NOT_FOUND, ids=lambda target: target[:40])
def test_what_is_not_to_be_served_is_not_found(site: Server, target: str) -> None:
    assert_nothing(site.get(target))


def assert_nothing(reply: Reply) -> None:
    """See that a reply is the same as for any path where nothing is."""
    assert reply.status == 404
    assert reply.body == b"404 Not Found\n"
    assert set(reply.fields) == {"date", "content-length", "content-type", "x-content-type-options"}


REDIRECTED = {
    "/sub": "/sub/",
    "/sub?": "/sub/?",
    "/sub?a=1&b=%20/..": "/sub/?a=1&b=%20/..",
    "/./sub": "/sub/",
    "/sub/../evil": "/evil/",
    "/inside": "/inside/",
    "/site": "/site/",
    "//evil": "/evil/",
    "///evil?//host": "/evil/?//host",
    "//%2e/evil": "/evil/",
    "/evil%5c": "/evil%5C/",
    "/evil\\": "/evil%5C/",
    "http://host//evil": "/evil/",
    "/%0d%0aX:%20%c3%a9": "/%0D%0AX%3A%20%C3%A9/",
}


@pytest.mark.parametrize("target", REDIRECTED)
def test_a_folder_without_its_slash_is_redirected_to_the_same_host(
    site: Server, target: str
) -> None:
    reply = site.get(target)

    assert reply.status == 301
    assert reply.fields["location"] == REDIRECTED[target]
    assert "x" not in reply.fields


# A name of a file is what a client may ask for if it is UTF-8, and neither hidden nor too long.
NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60
).filter(lambda name: not name.startswith("."))


@given(name=NAMES)
@example(name="\r\nX: y")
@example(name="con:")
@settings(max_examples=50)
def test_any_name_can_be_asked_for(site: Server, root: Path, name: str) -> None:
    target = f"/odd/{quote(name, safe='')}"
    file, folder = root / "odd" / name, root / "odd" / f"{name}-folder"
    file.write_text(name, newline="")
    folder.mkdir()

    found = site.get(target)
    redirected = site.get(f"{target}-folder")

    file.unlink()
    folder.rmdir()
    assert (found.status, found.body) == (200, name.encode())
    assert redirected.fields["location"] == f"{target}-folder/"


# Pieces that traversals are made of; what they are put together to is to be found inside or not
# at all.
PIECES = st.sampled_from(
    ["/", "//", "..", ".", "%2e", "%2E%2e", "%2f", "\\", "%5c", "%00", ";", "?", "#", "%25", "*"]
) | st.sampled_from(
    [
        "http://h",
        "sub",
        "evil",
        "to-root",
        "outside",
        "secret.txt",
        "root-beside",
        "root",
        ".hidden",
    ]
)


@given(pieces=st.lists(PIECES, max_size=12))
@settings(max_examples=100)
def test_no_target_leads_out(site: Server, pieces: list[str]) -> None:
    with site.connect() as client:
        client.ask("/" + "".join(pieces))
        reply = client.reply()

    assert reply.status in (200, 301, 404)
    assert b"SECRET" not in reply.body
    assert b"root-beside" not in reply.body
    location = reply.fields.get("location", "/")
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))


@pytest.mark.parametrize("loop", LOOPS)
def test_a_path_that_is_swapped_for_a_link_is_never_followed_out(root: Path, loop: str) -> None:
    """Between a look at a path and its opening it may become another one."""
    folder, is_over = root / "swapped", threading.Event()
    good, link = folder / "good", folder / "link"
    good.write_text("good")
    link.symlink_to("../../secret.txt")

    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not is_over.is_set():
            swaps += 1
            for source in (good, link):
                new = folder / "new"
                (os.symlink if source is link else os.link)(
                    "../../secret.txt" if source is link else good, new
                )
                os.replace(new, folder / "file")

    thread = threading.Thread(target=swap)
    with serving(root, loop, cache_seconds=0.0) as server, server.connect() as client:
        thread.start()
        try:
            until((folder / "file").exists)
            seen = {client.get("/swapped/file").body for _ in range(300)}
        finally:
            is_over.set()
            thread.join()

    for file in folder.iterdir():
        file.unlink()
    assert swaps > 10
    assert seen <= {b"good", b"404 Not Found\n"}
    assert b"good" in seen


# What options change


@pytest.mark.parametrize("loop", LOOPS)
def test_hidden_names_are_served_if_asked_for(root: Path, loop: str) -> None:
    with serving(root, loop, hidden=True) as server:
        for target in ("/.hidden", "/sub/.git/config", "/to-hidden", "/to-git/config", "/..."):
            assert server.get(target).body == b"SECRET"
        assert server.get("/sub/.git").fields["location"] == "/sub/.git/"
        for target in ("/../secret.txt", "/%2e%2e/secret.txt", "/outside.txt", "/.nothing"):
            assert_nothing(server.get(target))


@pytest.mark.parametrize("loop", LOOPS)
def test_symlinks_lead_out_if_asked_for(root: Path, loop: str) -> None:
    with serving(root, loop, follow_symlinks=True) as server:
        for target in ("/outside.txt", "/outside/secret.txt", "/beside"):
            assert server.get(target).body == b"SECRET"
        assert server.get("/outside").fields["location"] == "/outside/"
        # But to no device, and no name leads up.
        for target in ("/null", "/loop", "/dangling", "/../secret.txt", "/.hidden"):
            assert_nothing(server.get(target))


@pytest.mark.parametrize("loop", LOOPS)
def test_folders_are_not_shown_if_not_asked_for(root: Path, loop: str) -> None:
    with serving(root, loop, listing=False) as server:
        assert server.get("/site/").body == b"<p>index"
        for target in ("/", "/sub/", "/sub/.", "/nothing/"):
            assert_nothing(server.get(target))


@pytest.mark.parametrize("loop", LOOPS)
def test_the_folder_may_be_the_root_of_all(root: Path, loop: str) -> None:
    path = quote(str(root.resolve()))
    with serving(Path("/"), loop, hidden=True) as server:
        assert server.get(f"{path}/digits.txt").body == DIGITS
        assert server.get(f"{path}/outside.txt").body == b"SECRET"
        assert_nothing(server.get(f"/..{path}/digits.txt"))


# What changes on the disk


@pytest.mark.parametrize("loop", LOOPS)
def test_what_was_not_there_is_found_when_it_is(tmp_path: Path, loop: str) -> None:
    with serving(tmp_path, loop) as server:
        assert_nothing(server.get("/new"))
        (tmp_path / "new").write_text("new")

        assert server.get("/new").body == b"new"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("kind", ["removed", "hidden", "replaced by a folder", "linked out"])
def test_what_was_there_is_not_found_when_it_is_looked_up_again(
    tmp_path: Path, loop: str, kind: str
) -> None:
    file = tmp_path / "file"
    file.write_text("file")
    with serving(tmp_path, loop) as server:
        assert server.get("/file").body == b"file"
        file.rename(tmp_path / ".file")
        if kind == "removed":
            (tmp_path / ".file").unlink()
        elif kind == "replaced by a folder":
            file.mkdir()
        elif kind == "linked out":
            file.symlink_to("/etc/hostname")

        server.ahead += AMPLE["cache_seconds"] + 1
        reply = server.get("/file")

    assert reply.status == (301 if kind == "replaced by a folder" else 404)


@pytest.mark.parametrize("loop", LOOPS)
def test_nothing_is_believed_for_no_seconds(tmp_path: Path, loop: str) -> None:
    (tmp_path / "file").write_text("old")
    with serving(tmp_path, loop, cache_seconds=0.0) as server:
        assert server.get("/file").body == b"old"
        (tmp_path / "file").write_text("new")

        assert server.get("/file").body == b"new"
