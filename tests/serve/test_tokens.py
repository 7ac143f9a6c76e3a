"""The token: who shows it gets in, who guesses learns nothing and holds nobody up."""

import asyncio
import hmac
import time
from functools import partial
from types import SimpleNamespace

import httpx2
import pytest

from brainstage.serve.app import create_app
from brainstage.serve.guard import Limits
from brainstage.serve.proxy import BehindProxy
from brainstage.serve.tokens import WRONG_AT_ONCE, WRONG_SECONDS, TokenCheck

TOKEN = "the-token-of-these-tests"
RIGHT, WRONG = ({"Authorization": f"Bearer {token}"} for token in (TOKEN, TOKEN[:-1] + "x"))
HOST = "http://127.0.0.1"
GUARDED = ("/v1/models", "/openapi.json", "/ready", "/v1/predict", "/pages", "/page/../v1/models", "/anything")


@pytest.fixture
def held_back(monkeypatch):
    """Hold wrong tokens back until the test sets the event that this returns, however slow the machine is."""
    let_go = asyncio.Event()
    sleep = SimpleNamespace(sleep=lambda _seconds: let_go.wait())
    monkeypatch.setattr("brainstage.serve.tokens.asyncio", sleep)
    return let_go


@pytest.fixture
def app(registry):
    return create_app(registry, {"127.0.0.1"}, Limits(requests=1), token=TokenCheck(TOKEN, 8000, secure=True))


def client_of(app, address="192.0.2.1"):
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app, client=(address, 1)), base_url=HOST, timeout=30)


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario, 30))


async def answered(requests, number):
    """Wait until so many requests have their reply."""
    while sum(request.done() for request in requests) < number:
        await asyncio.sleep(0.01)


def outcome(reply):
    return reply.status_code, reply.json()["code"]


def test_everything_but_the_page_needs_the_token(app):
    async def scenario():
        async with client_of(app) as client:
            for path in GUARDED:
                reply = await client.get(path)
                assert outcome(reply) == (401, "no-token"), path
                assert reply.headers["www-authenticate"] == "Bearer"
                assert reply.headers["content-type"] == "application/problem+json"
                assert (await client.get(path, headers=RIGHT)).status_code in (200, 404, 405), path
            assert outcome(await client.post("/v1/predict", files={"files": b"a"})) == (401, "no-token")
            for path in ("/page/", "/page/app.js", "/health"):
                assert (await client.get(path)).status_code == 200
            assert (await client.post("/v1/predict", headers=RIGHT, files={"files": b"a"})).status_code == 200

    run(scenario())


def test_a_token_is_shown_as_bearer_or_by_the_cookie_and_never_in_an_address_of_the_api(app, held_back):
    held_back.set()

    async def scenario():
        async with client_of(app) as client:
            for headers in (
                RIGHT,
                {"Authorization": f"bearer  {TOKEN}"},
                {"Cookie": f"a=b; brainstage-8000={TOKEN}"},
            ):
                assert (await client.get("/v1/models", headers=headers)).status_code == 200
            assert outcome(await client.get(f"/v1/models?token={TOKEN}")) == (401, "no-token")
            for headers in ({"Cookie": f"brainstage-8001={TOKEN}"}, {"Authorization": f"Basic {TOKEN}"}):
                assert outcome(await client.get("/v1/models", headers=headers)) == (401, "no-token")
            for headers in ({"Cookie": "brainstage-8000=old"}, {"Authorization": "Bearer "}, WRONG):
                assert outcome(await client.get("/v1/models", headers=headers)) == (401, "wrong-token")

    run(scenario())


def test_the_start_page_turns_the_token_of_its_address_into_a_cookie(app, held_back):
    held_back.set()

    async def scenario():
        async with client_of(app) as client:
            reply = await client.get(f"/?token={TOKEN}")
            assert (reply.status_code, reply.headers["location"]) == (307, "/page/")
            value, *settings = reply.headers["set-cookie"].split("; ")
            assert value == f"brainstage-8000={TOKEN}"
            assert sorted(settings) == ["HttpOnly", "Path=/", "SameSite=strict", "Secure"]
            for query in ("", "?token=", "?Token=" + TOKEN):
                reply = await client.get(f"/{query}")
                assert (reply.status_code, reply.headers.get("set-cookie")) == (307, None), query
            for query in ("?token=wrong", f"?token=wrong&token={TOKEN}", f"?token={TOKEN}x"):
                reply = await client.get(f"/{query}")
                assert (*outcome(reply), reply.headers.get("set-cookie")) == (401, "wrong-token", None), query

    run(scenario())


def test_a_wrong_token_costs_a_second(app):
    async def scenario():
        async with client_of(app) as client:
            begun = time.perf_counter()
            assert outcome(await client.get("/v1/models", headers=WRONG)) == (401, "wrong-token")
            return time.perf_counter() - begun

    assert run(scenario()) >= WRONG_SECONDS == 1


def test_a_flood_of_wrong_tokens_is_not_even_compared_and_holds_up_nobody_else(app, held_back, monkeypatch):
    compared = []
    compare = hmac.compare_digest
    monkeypatch.setattr("hmac.compare_digest", lambda *values: compared.append(values) or compare(*values))

    async def scenario():
        async with client_of(app, "192.0.2.66") as attacker, client_of(app) as other:
            guess = {"headers": WRONG, "files": {"files": b"a"}}
            first = [asyncio.create_task(attacker.post("/v1/predict", **guess)) for _ in range(WRONG_AT_ONCE)]
            while len(compared) < WRONG_AT_ONCE:
                await asyncio.sleep(0.01)
            refused = [await attacker.get("/v1/models", headers=headers) for headers in (WRONG, RIGHT) * 5]
            assert {outcome(reply) for reply in refused} == {(429, "too-many-tokens")}
            assert refused[0].headers["retry-after"] == "1"
            assert len(compared) == WRONG_AT_ONCE
            assert (await attacker.get("/page/")).status_code == 200
            # the one place for a request is free, although wrong ones wait
            assert (await other.post("/v1/predict", headers=RIGHT, files={"files": b"a"})).status_code == 200
            assert not any(task.done() for task in first)
            held_back.set()
            assert {outcome(await task) for task in first} == {(401, "wrong-token")}
            assert (await attacker.get("/v1/models", headers=RIGHT)).status_code == 200

    run(scenario())
    assert all(isinstance(value, bytes) for values in compared for value in values)


def test_guesses_from_one_ipv6_network_are_those_of_one_client(app, held_back):
    async def guess(address):
        async with client_of(app, address) as client:
            return (await client.get("/v1/models", headers=WRONG)).status_code

    async def scenario():
        guesses = [asyncio.create_task(guess(f"2001:db8::{number}")) for number in range(1, 9)]
        guesses.append(asyncio.create_task(guess("2001:db8:1::1")))
        await answered(guesses, 8 - WRONG_AT_ONCE)
        held_back.set()
        return await asyncio.gather(*guesses)

    statuses = run(scenario())
    assert sorted(statuses[:-1]) == [401] * WRONG_AT_ONCE + [429] * (8 - WRONG_AT_ONCE)
    assert statuses[-1] == 401


def test_ipv4_clients_of_an_ipv6_socket_are_told_apart(app, held_back):
    async def scenario():
        async with client_of(app, "::ffff:192.0.2.66") as attacker, client_of(app, "::ffff:192.0.2.7") as other:
            guess = partial(attacker.get, "/v1/models", headers=WRONG)
            guesses = [asyncio.create_task(guess()) for _ in range(WRONG_AT_ONCE + 1)]
            await answered(guesses, 1)
            assert (await other.get("/v1/models", headers=RIGHT)).status_code == 200
            held_back.set()
            assert sorted([(await guess).status_code for guess in guesses]) == [401] * WRONG_AT_ONCE + [429]

    run(scenario())


def test_openapi_states_how_the_token_is_shown_where_there_is_one(app, registry):
    async def described(app):
        async with client_of(app) as client:
            return (await client.get("/openapi.json", headers=RIGHT)).json()

    with_token, without = run(described(app)), run(described(create_app(registry, {"127.0.0.1"})))
    assert with_token["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert with_token["components"]["securitySchemes"]["cookie"]["name"] == "brainstage-8000"
    assert with_token["security"] == [{"token": []}, {"cookie": []}]
    assert with_token["paths"]["/health"]["get"]["security"] == []
    assert "security" not in without


def test_behind_a_proxy_only_the_proxy_connects_and_its_clients_are_told_apart(app, held_back):
    proxied = BehindProxy(app, "10.0.0.0/24")

    async def scenario():
        async with client_of(proxied, "192.0.2.1") as round_it, client_of(proxied, "::ffff:10.0.0.5") as proxy:
            forged = {"X-Forwarded-For": "10.0.0.5", **RIGHT}
            assert outcome(await round_it.get("/v1/models", headers=forged)) == (403, "not-the-proxy")
            attacker, user = (
                {"X-Forwarded-For": f"192.0.2.9, {address}"} for address in ("192.0.2.66", "192.0.2.7")
            )
            guess = partial(proxy.get, "/v1/models", headers={**attacker, **WRONG})
            guesses = [asyncio.create_task(guess()) for _ in range(WRONG_AT_ONCE + 1)]
            await answered(guesses, 1)
            assert (await proxy.get("/v1/models", headers={**user, **RIGHT})).status_code == 200
            assert (await proxy.get("/v1/models", headers={**attacker, **RIGHT})).status_code == 429
            held_back.set()
            assert sorted([(await guess).status_code for guess in guesses]) == [401] * WRONG_AT_ONCE + [429]

    run(scenario())
