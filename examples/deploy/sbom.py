"""Writes a bill of materials (CycloneDX 1.5, JSON) of what is linked into the program: sbom.py CARGO_OPTIONS... >FILE

Versions, licences and the graph come from `cargo metadata`, checksums from Cargo.lock. No network is needed.
"""

import json
import os
import subprocess
import sys
import tomllib
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = "x86_64-unknown-linux-gnu"


def metadata(options: list[str]) -> dict:
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--offline", *options]
    target = os.environ.get("CARGO_BUILD_TARGET", TARGET)
    return json.loads(subprocess.check_output([*command, f"--filter-platform={target}"], cwd=ROOT))


def linked(data: dict) -> dict[str, list[str]]:
    """Each package that the program is built from, with those it depends on; tests' own dependencies are left out."""
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    graph, waiting = {}, [data["resolve"]["root"]]
    while waiting:
        name = waiting.pop()
        if name in graph:
            continue
        wanted = [dep["pkg"] for dep in nodes[name]["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"])]
        graph[name] = wanted
        waiting += wanted
    return graph


def component(package: dict, checksums: dict) -> dict:
    name, version = package["name"], package["version"]
    made = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
    }
    if package.get("license"):
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum := checksums.get((name, version)):
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def main() -> None:
    data = metadata(sys.argv[1:])
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
    packages = {package["id"]: package for package in data["packages"]}
    graph, root = linked(data), data["resolve"]["root"]
    made = {name: component(packages[name], checksums) for name in graph}
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {**made.pop(root), "type": "application"},
        },
        "components": sorted(made.values(), key=lambda one: one["bom-ref"]),
        "dependencies": sorted(
            (
                {
                    "ref": component(packages[name], {})["bom-ref"],
                    "dependsOn": sorted({component(packages[other], {})["bom-ref"] for other in others}),
                }
                for name, others in graph.items()
            ),
            key=lambda one: one["ref"],
        ),
    }
    json.dump(bill, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
