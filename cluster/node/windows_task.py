"""The scheduled task that lets a Windows machine join by itself; schtasks.exe makes it, no PowerShell."""

from __future__ import annotations

import getpass
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

from cluster.errors import ConfigurationError

NAME = "rayface"
#: "No time limit" in the Task Scheduler's schema; by default it ends a task after three days.
_NO_LIMIT = "PT0S"


def describe(head_address: str, at_boot: bool, config: Path | None) -> str:
    """The task as XML: runs `rayface join HEAD --wait`, again a minute after a failure, on batteries too."""
    arguments = ["-m", "cluster", "join", head_address, "--wait"]
    if config is not None:
        arguments += ["--config", str(config.resolve())]
    user = escape(getpass.getuser())
    purpose = f"Lends this machine's GPU to {escape(head_address)}"
    # S-1-5-18 is the system account, the only one that needs neither a log-on nor a stored password.
    principal = (
        "<UserId>S-1-5-18</UserId><RunLevel>HighestAvailable</RunLevel>"
        if at_boot
        else f"<UserId>{user}</UserId><LogonType>InteractiveToken</LogonType>"
    )
    trigger = "<BootTrigger/>" if at_boot else f"<LogonTrigger><UserId>{user}</UserId></LogonTrigger>"
    return f"""<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo><Description>{purpose}</Description></RegistrationInfo>
  <Triggers>{trigger}</Triggers>
  <Principals><Principal id="Author">{principal}</Principal></Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>true</StartWhenAvailable>
    <ExecutionTimeLimit>{_NO_LIMIT}</ExecutionTimeLimit>
    <RestartOnFailure><Interval>PT1M</Interval><Count>999</Count></RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{escape(sys.executable)}</Command>
      <Arguments>{escape(subprocess.list2cmdline(arguments))}</Arguments>
      <WorkingDirectory>{escape(str(Path(__file__).resolve().parents[2]))}</WorkingDirectory>
    </Exec>
  </Actions>
</Task>"""


def removal() -> str:
    """The commands that `remove` runs, as a person would type them."""
    return f"schtasks /End /TN {NAME}\nschtasks /Delete /TN {NAME} /F"


def register(task: str) -> None:
    """Register the task; it replaces an earlier one.

    Raises:
        ConfigurationError: this system is not Windows, or Windows refuses.
    """
    _windows_only()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task.xml"
        file.write_text(task, encoding="utf-16")
        _schtasks(
            "Only an administrator can register a task at boot.",
            "/Create",
            "/TN",
            NAME,
            "/XML",
            str(file),
            "/F",
        )


def remove() -> None:
    """End what the task runs, and remove the task.

    Raises:
        ConfigurationError: this system is not Windows, or there is no such task.
    """
    _windows_only()
    subprocess.run(["schtasks", "/End", "/TN", NAME], capture_output=True, check=False)
    _schtasks("Perhaps there is no such task, or an administrator made it.", "/Delete", "/TN", NAME, "/F")


def _windows_only() -> None:
    if sys.platform != "win32":
        raise ConfigurationError(
            "Only Windows has scheduled tasks. Here, let your init system run `rayface join HEAD --wait`; "
            "--print shows the Windows task."
        )


def _schtasks(hint: str, *arguments: str) -> None:
    done = subprocess.run(["schtasks", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        problem = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise ConfigurationError(f"Windows refused `schtasks {' '.join(arguments)}`: {problem}. {hint}")
