"""Certificates for tests, made with the openssl program when they are needed; nothing here is ever committed.

kit = Certificates(folder)
kit.ca                         the authority that a client is told to trust: the path of its certificate
kit.server, kit.client         good ones: .cert, .key, .chain (paths)
kit.issue("expired", names="DNS:localhost", starts=-20, ends=-10)
"""

from __future__ import annotations

import datetime
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOCAL = "DNS:localhost,IP:127.0.0.1,IP:::1"

CONFIG = """
[ca]
default_ca = default
[default]
database = {folder}/{issuer}.index
rand_serial = yes
new_certs_dir = {folder}
unique_subject = no
policy = policy
default_md = sha256
x509_extensions = extensions
[policy]
commonName = optional
[req]
distinguished_name = subject
[subject]
[extensions]
{extensions}
"""


@dataclass(frozen=True)
class Issued:
    name: str
    key: Path
    cert: Path
    chain: Path  # the certificate and the intermediates that a well-behaved server sends with it


class Certificates:
    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).resolve()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = self.issue("ca", issuer=None, authority=True)
        self.ca = self.root.cert
        self.server = self.issue("server", names=LOCAL)
        self.client = self.issue("client", names=None, usage="clientAuth")

    def issue(
        self,
        name: str,
        *,
        issuer: Issued | str | None = "ca",
        names: str | None = None,
        common_name: str | None = None,
        authority: bool = False,
        usage: str | None = "serverAuth",
        starts: float = -1,
        ends: float = 3650,
        key: str = "ec",
        digest: str = "sha256",
        more: tuple[str, ...] = (),
    ) -> Issued:
        """Makes a key and a certificate. `issuer` None signs itself; `names` is a subjectAltName in openssl's words;
        `starts` and `ends` are days from now; `key` is "ec" or the bits of an RSA key; `more` is lines of openssl's
        extension section."""
        if issuer == "ca":
            issuer = self.root
        assert issuer is None or isinstance(issuer, Issued)
        path = self.folder / name
        made = Issued(name, path.with_suffix(".key"), path.with_suffix(".crt"), path.with_suffix(".chain"))
        signer = issuer or made
        extensions = ["subjectKeyIdentifier = hash"]
        if authority:
            extensions += ["basicConstraints = critical,CA:TRUE", "keyUsage = critical,keyCertSign,cRLSign"]
        else:
            extensions += ["basicConstraints = critical,CA:FALSE"]
            if usage:
                extensions += [f"extendedKeyUsage = {usage}"]
        if names:
            extensions += [f"subjectAltName = {names}"]
        replaced = {line.split("=")[0].strip() for line in more}
        extensions = [line for line in extensions if line.split("=")[0].strip() not in replaced] + list(more)
        config = path.with_suffix(".cnf")
        config.write_text(CONFIG.format(folder=self.folder, issuer=signer.name, extensions="\n".join(extensions)))
        (self.folder / f"{signer.name}.index").touch()
        algorithm, size = ("ec", "ec_paramgen_curve:P-256") if key == "ec" else ("rsa", f"rsa_keygen_bits:{key}")
        run("openssl", "genpkey", "-algorithm", algorithm, "-pkeyopt", size, "-out", made.key)
        made.key.chmod(0o600)
        request = path.with_suffix(".csr")
        subject = f"/CN={common_name or f'counterfoil test {name}'}"
        run("openssl", "req", "-new", "-config", config, "-key", made.key, "-subj", subject, "-out", request)
        signing: list[str | Path] = ["-keyfile", signer.key]
        signing += ["-selfsign"] if issuer is None else ["-cert", signer.cert]
        run(
            "openssl",
            "ca",
            "-batch",
            "-config",
            config,
            "-in",
            request,
            "-out",
            made.cert,
            "-notext",
            "-md",
            digest,
            "-startdate",
            moment(starts),
            "-enddate",
            moment(ends),
            *signing,
        )
        chain = made.cert.read_text()
        if issuer is not None and issuer is not getattr(self, "root", None):
            chain += issuer.chain.read_text()
        made.chain.write_text(chain)
        return made


def moment(days: float) -> str:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)).strftime("%Y%m%d%H%M%SZ")


def run(*command: str | Path) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command[:2]))} failed: {done.stderr}")
