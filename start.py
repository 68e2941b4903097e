"""Sets rayface up in .venv beside this file, then runs it. It needs only Python 3.11 or newer, and pip.

    python3 start.py detect tests/photos     the main job (any `rayface` command goes here)
    python3 start.py test                    the tests (arguments go to pytest)

It changes nothing outside this folder, except that it keeps the model in your cache folder. It installs again
only if pyproject.toml or constraints.txt have changed.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".venv"
SCRIPTS = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")


def main() -> int:
    """Set up what the command needs and run it; returns its exit code."""
    if sys.version_info < (3, 11):
        found = sys.version.split()[0]
        print(
            f"rayface needs Python 3.11 or newer; this is {found}. Run start.py with a newer one.",
            file=sys.stderr,
        )
        return 2
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    problem = set_up()
    if problem:
        print(problem, file=sys.stderr)
        return 2
    module = ["pytest", *sys.argv[2:]] if sys.argv[1] == "test" else ["cluster", *sys.argv[1:]]
    where = HERE if sys.argv[1] == "test" else None
    try:
        return subprocess.run([str(PYTHON), "-m", *module], cwd=where, check=False).returncode
    except KeyboardInterrupt:
        return 130  # the command also got this Ctrl+C, and has written that it stopped


def set_up() -> str:
    """Make or renew the environment; return a sentence that says what went wrong, or ""."""
    recipe = hashlib.sha256(f"{sys.version} {HERE}".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        recipe.update((HERE / name).read_bytes())
    done = ENVIRONMENT / "set-up"
    if done.exists() and done.read_text(encoding="ascii") == recipe.hexdigest():
        return ""
    print("Setting up rayface in .venv (Ray is large: a minute or two, once) …", file=sys.stderr)
    # The environment has no pip, because Debian's Python lacks the part that installs it. The system's pip
    # installs into the environment from outside, so it cannot change the system's own packages.
    venv.create(ENVIRONMENT, with_pip=False, clear=True)
    pip = [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "--quiet"]
    pip += ["--disable-pip-version-check"]
    # In two steps: pip refuses a folder, which has no hash, together with packages whose hashes it checks.
    # The pins name every package. Were pip to look for dependencies itself, it would take the newest release
    # where a package wants another one with an extra (coverage[toml]), and refuse that for want of a hash.
    for step in (
        ["--no-deps", "--require-hashes", "--requirement", str(HERE / "constraints.txt")],
        ["--no-deps", "--no-build-isolation", "--editable", str(HERE)],
    ):
        if subprocess.run([*pip, *step], check=False).returncode:
            return (
                "Setting up did not work; pip's own message stands above. If it is 'No module named pip', "
                "install pip first (Debian: apt install python3-pip), then run this again."
            )
    done.write_text(recipe.hexdigest(), encoding="ascii")
    return ""


if __name__ == "__main__":
    sys.exit(main())
