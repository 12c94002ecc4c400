"""NVIDIA's prestart hook, SIMULATED: device nodes and nvidia-smi for the GPUs a box was given.

runc runs it on the host's side, before the box has its own root, with the container's state on
standard input. Stands alone: a copy of this file is all that the engine sees.
"""

import json
import subprocess
import sys
from pathlib import Path

LAB = Path(__file__).parent.parent
REFUSAL = LAB / "refusal"  # while it is there: what NVIDIA's tool would say, written by a test
VARIABLE = "NVIDIA_VISIBLE_DEVICES="
# Runs in the box's mount namespace, where the host's own files are still in sight.
INJECT = """
mkdir -p "$root/dev/simulated-gpus" "$root/usr/bin"
for index in $indexes; do
    number=$(printf %02d "$index")
    mknod -m 666 "$root/dev/nvidia$index" c 1 3
    cp "$lab/gpus/$number" "$root/dev/simulated-gpus/$number"
done
[ -e "$root/usr/bin/nvidia-smi" ] || : >"$root/usr/bin/nvidia-smi"
mount --bind "$lab/nvidia-smi" "$root/usr/bin/nvidia-smi"
"""


def known() -> dict[str, int]:
    """Every way to say a GPU of this host, index or UUID, to its index."""
    names: dict[str, int] = {}
    for identity in sorted((LAB / "gpus").iterdir()):
        index = int(identity.name)
        names |= {str(index): index, identity.read_text().split("\n")[1]: index}
    return names


def wanted(environment: list[str]) -> list[int]:
    """The indexes that NVIDIA_VISIBLE_DEVICES asks for; the last setting counts."""
    values = [line.partition("=")[2] for line in environment if line.startswith(VARIABLE)]
    words = [word for word in (values or [""])[-1].split(",") if word not in ("", "void", "none")]
    names = known()
    if words == ["all"]:
        return sorted(set(names.values()))
    for word in words:
        if word not in names:
            sys.exit(f"nvidia-container-cli: device error: {word}: unknown device")
    return sorted({names[word] for word in words})


def main() -> None:
    state = json.load(sys.stdin)
    bundle = Path(state["bundle"])
    config = json.loads((bundle / "config.json").read_text())
    indexes = wanted(config["process"]["env"])
    if not indexes:
        return
    if REFUSAL.exists():
        sys.exit(REFUSAL.read_text())
    settings = {
        "root": str(bundle / config["root"]["path"]),
        "lab": str(LAB),
        "indexes": " ".join(map(str, indexes)),
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    into = ["/usr/bin/nsenter", "--target", str(state["pid"]), "--mount", "sh", "-euc", INJECT]
    done = subprocess.run(into, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"simulated nvidia hook: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
