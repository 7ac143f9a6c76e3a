"""A server that other machines reach: encrypted, with a token that a browser keeps as a cookie."""

import re
import signal
import ssl

import httpx2
import pytest

LONG = 60_000  # milliseconds: on a busy machine everything takes longer


@pytest.fixture(scope="module")
def server(started, certificate):
    """Return a server at all addresses: its address, its token, its process, its log, what its clients trust."""
    cert, key = certificate
    arguments = ("--host", "0.0.0.0", "--allow-host", "localhost", "--tls-cert", cert, "--tls-key", key, "--quiet")
    with started("patient", "--workers", "2", *arguments) as (line, process, log):
        address, token = re.fullmatch(r"(https://localhost:\d+)/\?token=([\w-]{43})", line).groups()
        yield address, token, process, log, ssl.create_default_context(cafile=cert)


@pytest.fixture
def open_page(server, browser):
    """Return what opens an address of the server in a new browser."""
    contexts = []

    def opened(path):
        context = browser.new_context(ignore_https_errors=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(LONG)
        page.goto(server[0] + path)
        return context, page

    yield opened
    for context in contexts:
        context.close()


def test_a_program_needs_the_certificate_and_the_token(server, heads):
    address, token, _, _, trust = server
    with httpx2.Client(base_url=address, verify=trust, timeout=60) as client:
        assert client.post("/v1/predict", files={"files": heads[8]}).status_code == 401
        reply = client.post("/v1/predict", files={"files": heads[8]}, headers={"Authorization": f"Bearer {token}"})
        assert reply.json()["predictions"][0]["status"] == "predicted"
        assert client.get("/health", headers={"Host": "elsewhere.example"}).json()["code"] == "foreign-host"
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{address}/health")
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(f"{address}/health".replace("https:", "http:"))


@pytest.mark.browser
def test_a_browser_keeps_the_printed_token_as_a_cookie_and_not_in_its_address(server, open_page, heads):
    address, token, *_ = server
    context, page = open_page(f"/?token={token}")
    page.wait_for_selector("#model-facts dd")
    assert page.url == f"{address}/page/"
    [cookie] = context.cookies()
    assert (cookie["value"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (
        token,
        True,
        True,
        "Strict",
    )
    assert cookie["expires"] == -1  # it ends with the browser
    assert page.evaluate("document.cookie + document.referrer") == ""
    page.set_input_files("#files", {"name": "slice.png", "mimeType": "image/png", "buffer": heads[8]})
    page.wait_for_selector("#bars [role=meter]")
    page.goto("about:blank")
    page.go_back()
    page.wait_for_selector("#model-facts dd")
    assert page.url == f"{address}/page/"


@pytest.mark.browser
def test_a_link_in_a_mail_opens_the_page_too(server, open_page):
    address, token, *_ = server
    _, page = open_page("/health")
    page.goto(f'data:text/html,<a href="{address}/?token={token}">the server</a>')
    page.click("a")
    page.wait_for_selector("#model-facts dd")
    assert page.url == f"{address}/page/"


@pytest.mark.browser
def test_without_the_token_the_page_says_how_to_get_in(open_page):
    context, page = open_page("/")
    page.wait_for_selector("#problem:not([hidden])")
    assert "the server's token is missing; open the address that the server printed" in page.inner_text("#problem")
    assert context.cookies() == []


def test_neither_the_log_nor_the_rest_of_the_output_has_the_token(server):
    _, token, process, log, _ = server  # the last test of this server
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert process.stdout.read() == ""
    assert token not in log.read_text()
