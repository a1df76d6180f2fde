"""The programs under test: where they are, how they are started, and how they are stopped again."""
import os
import pathlib
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
PEERS = ("nginx", "haproxy", "envoy", "caddy", "traefik")
SUBJECT = "pulsegate"
DIRECT = "direct"

# Files of peers/ that a program needs, the first one being its configuration; its command; what tells its version.
PROGRAMS = {
    "pulsegate": (["pulsegate.toml"], "{program} run --config {config}", ["--version"]),
    "nginx": (["nginx.conf"], "{program} -p {run} -e {run}/error.log -c {config}", ["-v"]),
    "haproxy": (["haproxy.cfg"], "{program} -db -f {config}", ["-v"]),
    "envoy": (["envoy.yaml"], "{program} -c {config} --concurrency {workers} --disable-hot-restart -l error", ["--version"]),
    "caddy": (["Caddyfile"], "{program} run --config {config} --adapter caddyfile", ["version"]),
    "traefik": (["traefik.yml", "traefik-routes.yml"], "{program} --configfile={config}", ["version"]),
}
PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin", "/usr/local/{}/sbin", "/usr/local/{}/bin",
          "/opt/{}/sbin", "/opt/{}/bin", "/opt/{}", "/snap/bin", "~/.local/bin", "~/bin", "~/go/bin")


class Broken(Exception):
    """A program cannot be started, or a measurement cannot be taken."""


def find(name):
    """Its path: from the environment (NGINX=/path), this repository, PATH, or the usual places; None if it is nowhere."""
    given = os.environ.get(name.upper())
    if given:
        found = shutil.which(os.path.expanduser(given))
        if not found:
            raise Broken(f"{name.upper()}={given} is no program")
        return str(pathlib.Path(found).absolute())
    if name == SUBJECT:
        return str(target_folder() / "pulsegate")
    if name == "load":
        return str(target_folder() / "examples" / "load")
    places = [os.path.expanduser(place.format(name)) for place in PLACES]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))


def target_folder():
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target") / "release"


def version(name, path):
    try:
        told = subprocess.run([path, *PROGRAMS[name][2]], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    lines = [line.strip() for line in (told.stdout + told.stderr).splitlines() if line.strip()]
    if name == "envoy":  # "envoy  version: REVISION/1.2.3/Clean/RELEASE/BoringSSL"
        return lines[0].split("version:")[-1].strip() if lines else "unknown"
    return lines[0] if lines else "unknown"


def descriptors():
    """The hard limit, to which every program raises its own, or is told to; more than 64 Ki are of no use here."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 65536 if limit == resource.RLIM_INFINITY else min(limit, 65536)


def sessions_max():
    """A session takes two descriptors of a proxy, and one of the 28,000 ports from it to the backend."""
    return min((descriptors() - 400) // 2, 25_000)


class Process:
    """A child in a process group of its own, which ends with `stop`, whatever it has started."""

    alive = []

    def __init__(self, command, log, environment=None):
        self.log = log
        with open(log, "wb") as output:
            self.child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                          env=environment, start_new_session=True)
        Process.alive.append(self)
        self.pid = self.child.pid

    def stop(self):
        if self in Process.alive:
            Process.alive.remove(self)
        # Not poll() first: the group may outlive its leader.
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()

    def told(self):
        return pathlib.Path(self.log).read_text(errors="replace")

    @staticmethod
    def stop_all():
        for process in list(Process.alive):
            process.stop()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, process, what, seconds=20):
    end = time.monotonic() + seconds
    while not (found := condition()):
        if process.child.poll() is not None or time.monotonic() > end:
            raise Broken(f"{what}: {process.told().strip()[-500:] or 'no word'}")
        time.sleep(0.02)
    return found


HANDSHAKE = (b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


def opens(port, tls):
    """Whether a session opens: some listen before they know their routes."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as stream:
            if tls:
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                stream = context.wrap_socket(stream, server_hostname="localhost")
            stream.sendall(HANDSHAKE)
            return stream.recv(4096).startswith(b"HTTP/1.1 101")
    except OSError:
        return False


class Backend:
    """The same for all: the load example's own. With `split` its sources have a thread of their own."""

    def __init__(self, load, folder, split=False):
        command = [load, "serve", "--listen", "127.0.0.1:0", *(["--split"] if split else [])]
        self.process = Process(command, folder / "backend.log")

        def address():
            line = self.process.told()
            return line.split("ws://")[1].split()[0] if "ws://" in line and line.endswith("\n") else None

        self.address = wait_for(address, self.process, "the backend does not start")


class Target:
    """One program, freshly started in front of a backend."""

    def __init__(self, name, path, backend, certificates, workers=1):
        self.name, self.process = name, None
        if name == DIRECT:
            self.pid, self.address, self.tls_address = backend.process.pid, backend.address, None
            return
        self.run = pathlib.Path(tempfile.mkdtemp(prefix=f"compare-{name}-"))
        try:
            self.start(path, backend, certificates, workers)
        except BaseException:
            self.stop()
            raise

    def start(self, path, backend, certificates, workers):
        # nginx started by root serves as nobody.
        self.run.chmod(0o755)
        for file in certificates.glob("*.pem"):
            shutil.copy(file, self.run)
        port, tls_port = free_port(), free_port()
        host, backend_port = backend.address.rsplit(":", 1)
        values = {"WORKERS": workers, "PORT": port, "TLS_PORT": tls_port, "BACKEND": backend.address, "RUN": self.run,
                  "BACKEND_HOST": host, "BACKEND_PORT": backend_port, "DESCRIPTORS": descriptors(),
                  "SESSIONS": sessions_max()}
        files, command, _ = PROGRAMS[self.name]
        for file in files:
            text = (HERE / "peers" / file).read_text()
            for key, value in values.items():
                text = text.replace(f"@{key}@", str(value))
            (self.run / file).write_text(text)
        command = command.format(program=path, config=self.run / files[0], run=self.run, workers=workers).split()
        home = str(self.run)
        environment = dict(os.environ, GOMAXPROCS=str(workers), HOME=home, XDG_CONFIG_HOME=home, XDG_DATA_HOME=home)
        self.process = Process(command, self.run / "output.log", environment)
        wait_for(lambda: opens(port, False), self.process, f"{self.name} does not start")
        wait_for(lambda: opens(tls_port, True), self.process, f"{self.name} does not start with TLS")
        self.pid, self.address, self.tls_address = self.process.pid, f"127.0.0.1:{port}", f"127.0.0.1:{tls_port}"
        time.sleep(0.3)  # what it still does after its start is not part of a case

    def url(self, tls, path):
        return f"wss://{self.tls_address}{path}" if tls else f"ws://{self.address}{path}"

    def stop(self):
        if self.name != DIRECT:
            if self.process:
                self.process.stop()
            shutil.rmtree(self.run, ignore_errors=True)
