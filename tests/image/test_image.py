"""deploy/Dockerfile, every instruction of it, without a registry of images: its two bases are stand-ins made from Debian's
packages, and the builder's `cargo` hands out a binary that was built before."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("TENANTGATE_BIN_DIR", ROOT / "target/debug")).resolve() / "tenantgate"
ENVIRONMENT = os.environ | {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
RUST, BASE, IMAGE = "localhost/rust-stand-in:1", "localhost/base-stand-in:1", "localhost/tenantgate-test:1"

pytestmark = pytest.mark.skipif(not shutil.which("buildah"), reason="no buildah on this machine")


def run(*argv, **options):
    done = subprocess.run([str(part) for part in argv], capture_output=True, text=True, timeout=300, env=ENVIRONMENT,
                          **options)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def unpack(packages, root):
    """Debian packages without installing them."""
    debs = root.with_suffix(".debs")
    debs.mkdir()
    debs.chmod(0o777)  # apt downloads as a user of its own
    run("apt-get", "download", "--quiet=2", *packages, cwd=debs)
    root.mkdir()
    for deb in debs.glob("*.deb"):
        run("dpkg", "-x", deb, root)


def image_of(root, name):
    container = run("buildah", "from", "scratch")
    run("buildah", "add", "--quiet", container, root, "/")
    run("buildah", "commit", "--quiet", container, name)
    run("buildah", "rm", container)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    work = tmp_path_factory.mktemp("image")
    base = work / "base"
    unpack(["libc6", "libgcc-s1", "ca-certificates", "base-files"], base)
    (base / "etc").mkdir(exist_ok=True)
    (base / "etc/passwd").write_text("nonroot:x:65532:65532::/:/sbin/nologin\n")
    image_of(base, BASE)

    rust = work / "rust"
    unpack(["busybox-static"], rust)
    (rust / "usr/local/bin").mkdir(parents=True)
    for name in ("sh", "cp", "mkdir", "env"):
        (rust / "bin" / name).symlink_to("busybox")
    shutil.copy(BINARY, rust / "usr/local/bin/built")
    cargo = rust / "usr/local/bin/cargo"
    cargo.write_text("#!/bin/sh\nset -e\n[ \"$*\" = 'build --release --locked --bin tenantgate' ]\n"
                     "[ -f Cargo.toml ] && [ -f src/main.rs ]\nmkdir -p target/release\n"
                     "cp /usr/local/bin/built target/release/tenantgate\n")
    cargo.chmod(0o755)
    image_of(rust, RUST)
    return build()


def build():
    return run("buildah", "bud", "--quiet", "--no-cache", "--timestamp", "0", "--ignorefile",
               "deploy/Dockerfile.dockerignore", "--build-arg", f"RUST_IMAGE={RUST}", "--build-arg", f"BASE_IMAGE={BASE}",
               "--build-arg", "REVISION=abc", "-f", "deploy/Dockerfile", "-t", IMAGE, ".", cwd=ROOT).splitlines()[-1]


def test_the_binary_runs_as_nobody(image):
    container = run("buildah", "from", "--pull-never", image)
    try:
        said = run("buildah", "run", "--user", "65532:65532", container, "--", "/usr/local/bin/tenantgate", "--version")
        assert said.startswith("tenantgate ")
    finally:
        run("buildah", "rm", container)


def test_the_config_of_the_image(image):
    config = json.loads(run("buildah", "inspect", "--type", "image", image))["OCIv1"]["config"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/local/bin/tenantgate"]
    assert config["Cmd"] == ["serve", "--config", "/etc/tenantgate/tenantgate.yaml"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.revision"] == "abc"


def test_the_same_sources_make_the_same_image(image):
    assert build() == image


def test_every_base_has_a_registry():
    lines = (ROOT / "deploy/Dockerfile").read_text().splitlines()
    bases = [line.partition("=")[2] for line in lines if line.startswith("ARG ") and "_IMAGE=" in line]
    assert len(bases) == 2 and all("." in base.split("/")[0] for base in bases)
    assert all("${" in line for line in lines if line.startswith("FROM "))
