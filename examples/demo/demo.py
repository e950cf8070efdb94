"""`make run` and `make demo`: the whole set-up on loopback, to play with or as a story with an end.

Everything made here (keys, secrets, logs) is in .tools/run/.
"""

import argparse
import contextlib
import json
import shutil
import signal
import sys
import time
from pathlib import Path

import requests
import yaml

import stack
from stack import Failure

CLIENT = "acme-analytics"  # the provider starts with this app, authorised for T1001 and T1002
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PROVIDER = "127.0.0.1:9300"
CACHE_TTL = 1.2  # a little over tenants.lookup.cache_ttl
REFRESHED = 4  # within tenants.freshness.refresh, a lookup has been made and noticed
REPORT = "/oda/apis/get/reports/assets/tenant/{}/devicedistribution"


@contextlib.contextmanager
def running(work, bin_dir, any_ports):
    """Provider, tenantgate and Envoy, ready; stopped at the end, whatever the end was. `work` is emptied first."""
    config_text = stack.CONFIG.read_text()
    config = yaml.safe_load(config_text)
    envoy_config = yaml.safe_load(stack.ENVOY_CONFIG.read_text())
    if not any_ports:
        # Before anything is touched: in `work` are the files of the process that has these ports now.
        require_free_ports(config, envoy_config)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    with stack.Children() as children:
        try:
            provider = children.start(stack.Provider, work, bin_dir, stack.ANY_PORT if any_ports else PROVIDER)
            if any_ports:
                config_text = yaml.safe_dump(stack.on_any_ports(config, provider))
            secrets = stack.prepare(work, bin_dir, config_text, {CLIENT: ["--scope", "reports.read"]})
            tenantgate = children.start(stack.Tenantgate, work, bin_dir)
            envoy_file = stack.ENVOY_CONFIG
            if any_ports:
                envoy_file = stack.envoy_on_any_ports(work, envoy_config, tenantgate, {"api": provider.address})
            envoy = children.start(stack.Envoy, work, envoy_file)
            # A denial by tenantgate shows that the check, too, is connected.
            asked = lambda: requests.get(envoy.url + REPORT.format("T1001"), timeout=5).status_code == 401
            stack.wait_until("the first check through Envoy", asked, envoy)
            yield provider, tenantgate, envoy, secrets[CLIENT]
        finally:
            # A second Ctrl-C must not leave anything running.
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)


def require_free_ports(config, envoy_config):
    listener = envoy_config["static_resources"]["listeners"][0]
    for owner, place in {"Envoy": listener, "Envoy's admin": envoy_config["admin"]}.items():
        at = place["address"]["socket_address"]
        stack.require_free(f"{at['address']}:{at['port_value']}", owner)
    for name, address in config["listen"].items():
        stack.require_free(address, f"tenantgate ({name})")
    stack.require_free(PROVIDER, "the example provider")


# ---- make run


def run(provider, tenantgate, envoy, secret):
    print(lines_to_paste(provider, tenantgate, envoy, secret), flush=True)
    while True:
        for process in (provider, tenantgate, envoy):
            process.check_alive()
        time.sleep(0.5)


def lines_to_paste(provider, tenantgate, envoy, secret):
    # The reply is shown as well, so that an error is seen.
    ask = f"curl -s {envoy.url}/oauth2/token -u '{CLIENT}:{secret}' -d grant_type=client_credentials | tee /dev/stderr"
    mint = f"""TOKEN=$({ask} | sed -nE 's/.*"access_token": ?"([^"]+)".*/\\1/p')"""
    call = lambda tenant: f'curl -i -w "\\n" {envoy.url}{REPORT.format(tenant)} -H "Authorization: Bearer $TOKEN"'
    grant = f"{provider.url}/control/grants/{CLIENT}/T2002"
    withdrawal = json.dumps({"client_id": CLIENT, "tenant": "T2002"})
    tell = f"curl -i -w '\\n' {tenantgate.management_url}/v1/grants:withdraw -H 'Authorization: Bearer {stack.MANAGEMENT_TOKEN}'"
    return f"""
Ready: Envoy listens on {envoy.url}. Logs: {envoy.log.parent}/*.log. Ctrl-C stops everything.
Paste into another terminal:

# The app {CLIENT} gets a token.
{mint}

# The report of a tenant that has authorised the app: 200.
{call("T1001")}

# The report of any other tenant: 403.
{call("T2002")}

# The admin of T2002 authorises the app.
curl -X PUT {grant}

# A token minted after that carries T2002 too: 200.
sleep {CACHE_TTL}
{mint}
{call("T2002")}

# The admin withdraws it, and the provider's portal tells tenantgate: this very token stops at once. 403.
curl -X DELETE {grant}
{tell} -d '{withdrawal}'
{call("T2002")}

# A withdrawal that nobody tells tenantgate about is noticed by its next lookup: 403.
curl -X DELETE {provider.url}/control/grants/{CLIENT}/T1001
sleep {REFRESHED}
{call("T1001")}
"""


# ---- make demo


class Story:
    """Plays steps against Envoy, shows each exchange and stops at the first that is not as told."""

    def __init__(self, url):
        self.url, self.step = url, 0

    def tell(self, text):
        self.step += 1
        print(f"\n== {self.step}. {text}", flush=True)

    def exchange(self, method, path, expect, *, url=None, headers=None, form=None, basic=None):
        # The empty auth keeps requests from looking credentials up in ~/.netrc.
        auth = basic or (lambda request: request)
        url = (url or self.url) + path
        answer = requests.request(method, url, headers=headers, data=form, auth=auth, timeout=10)
        sent = answer.request
        print(f"> {method} {path}")
        if "Authorization" in sent.headers:
            print(f"> Authorization: {shorten(sent.headers['Authorization'])}")
        if sent.body:
            print(f"> {sent.body}")
        print(f"< {answer.status_code} {answer.reason}")
        for name in ("WWW-Authenticate", "Retry-After"):
            if name in answer.headers:
                print(f"< {name}: {answer.headers[name]}")
        body = answer.json()
        print(f"< {json.dumps(abridge(body))}", flush=True)
        if answer.status_code != expect[0] or (len(expect) == 2 and body.get("error") != expect[1]):
            raise Failure(f"step {self.step} was to be answered with {' '.join(map(str, expect))}")
        return body

    def mint(self, secret, *expect, **form):
        form = {"grant_type": "client_credentials", **form}
        return self.exchange("POST", "/oauth2/token", expect, form=form, basic=(CLIENT, secret))

    def withdraw(self, management_url, tenant):
        headers = {"Authorization": f"Bearer {stack.MANAGEMENT_TOKEN}"}
        body = json.dumps({"client_id": CLIENT, "tenant": tenant})
        self.exchange("POST", "/v1/grants:withdraw", (200,), url=management_url, headers=headers, form=body)

    def status_of(self, tenant, token):
        """Without showing it."""
        headers = {"Authorization": f"Bearer {token}"}
        return requests.get(self.url + REPORT.format(tenant), headers=headers, timeout=10).status_code

    def report(self, tenant, token, *expect):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.exchange("GET", REPORT.format(tenant), expect, headers=headers)


def abridge(body):
    if "access_token" in body:
        return body | {"access_token": shorten(body["access_token"])}
    if "devices" in body:  # the report, which also repeats the headers that reached the API
        ours = {name: value for name, value in body["headers"].items() if name.startswith("x-tenantgate-")}
        return {"tenantCode": body["tenantCode"], "devices": "...", "headers": ours}
    return body


def shorten(value):
    return value if len(value) <= 24 else f"{value[:16]}... ({len(value)} characters)"


def play(provider, tenantgate, envoy, secret):
    story = Story(envoy.url)

    story.tell(f"The app {CLIENT} gets a token: T1001 and T1002 have authorised it")
    token = story.mint(secret, 200)["access_token"]
    story.tell("It reads the report of T1001")
    story.report("T1001", token, 200)
    story.tell("T2002 has not authorised it: refused")
    story.report("T2002", token, 403, "access_denied")
    story.tell("T9999 does not exist: the same refusal, so nobody learns which codes exist")
    story.report("T9999", token, 403, "access_denied")
    story.tell("Without a token: refused, with a hint how to authenticate")
    story.report("T1001", None, 401)
    story.tell("A token for T2002, asked for by name, is not to be had")
    story.mint(secret, 400, "invalid_target", tenant="T2002")

    print(f"\n-- The admin of T2002 authorises {CLIENT} in the provider's UI")
    provider.grant(CLIENT, "T2002")
    time.sleep(CACHE_TTL)
    story.tell("Now a token carries T2002 ...")
    wider = story.mint(secret, 200)["access_token"]
    story.tell("... and its report can be read")
    story.report("T2002", wider, 200)

    print("\n-- The admin of T2002 withdraws it again")
    provider.withdraw(CLIENT, "T2002")
    story.tell("The provider's portal tells tenantgate")
    story.withdraw(tenantgate.management_url, "T2002")
    story.tell("The token that is out, with minutes left to live, stops at once for T2002 ...")
    story.report("T2002", wider, 403, "access_denied")
    story.tell("... and goes on for the others")
    story.report("T1001", wider, 200)
    story.tell("No new token for T2002")
    story.mint(secret, 400, "invalid_target", tenant="T2002")

    print("\n-- The admin of T1002 withdraws it, and nobody tells tenantgate")
    provider.withdraw(CLIENT, "T1002")
    withdrawn = time.monotonic()
    stack.wait_until("the next lookup", lambda: story.status_of("T1002", wider) == 403, tenantgate)
    seconds = time.monotonic() - withdrawn
    story.tell(f"The next lookup noticed, after {seconds:.1f} s: the token stopped for T1002 as well")
    story.report("T1002", wider, 403, "access_denied")

    print("\n-- The provider's lookup goes down")
    provider.control("PUT", "faults", {"lookup": "closed", "token": "closed"})
    time.sleep(CACHE_TTL)
    story.tell("No new tokens: that is 503, try later, and never a token without a lookup")
    story.mint(secret, 503, "temporarily_unavailable")
    story.tell("Tokens that are out go on working")
    story.report("T1001", token, 200)
    print(f"\nAll {story.step} steps went as told.", flush=True)


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["run", "play"])
    parser.add_argument("--bin-dir", type=lambda path: Path(path).resolve(), default=stack.ROOT / "target/debug")
    parser.add_argument("--any-ports", type=Path, metavar="DIR", help="ports chosen by the system, files in DIR")
    options = parser.parse_args()

    # SIGTERM and a closed terminal end it like Ctrl-C does: through the `finally` parts. SIGINT is in the list because
    # a shell starts its background jobs with SIGINT ignored.
    for number in STOP_SIGNALS:
        signal.signal(number, interrupt)
    work = options.any_ports or stack.ROOT / ".tools/run"
    try:
        with running(work, options.bin_dir, bool(options.any_ports)) as parts:
            {"run": run, "play": play}[options.what](*parts)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 0 if options.what == "run" else 130
    except Failure as failure:
        print(f"\nFAILED: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
