"""The Debian package: built, judged by lintian where that is installed, and in the lab installed, started and removed.

It takes a network for the Python packages that come along, and minutes: ORCHESTRATOR_SUITES=all has it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, in_suites

pytestmark = in_suites

INSTALLED = """\
set -eu
dpkg --force-depends --install {deb} >/dev/null
test "$(stat -c %a /run/orchestrator)" = 711
getent group orchestrator >/dev/null
for name in orchestrator domains policies .venv; do mount -t tmpfs none {root}/$name; done
cd /
unit=/usr/lib/systemd/system/orchestrator.service
value() {{ sed -n "s/^$1=//p" $unit; }}
capabilities=$(value CapabilityBoundingSet | sed 's/CAP_/+/g; s/ /,/g' | tr A-Z a-z)
setpriv --no-new-privs --bounding-set=-all,$capabilities \\
	$(value ExecStart) 2>/tmp/told &
until grep -q 'serving on' /tmp/told; do kill -0 $! || {{ cat /tmp/told; exit 1; }}; sleep 1; done
orchestrator start heartbeat-i386 --json
until orchestrator logs heartbeat-i386 | grep heartbeat; do sleep 2; done
orchestrator audit pins
kill $!
wait $! || {{ cat /tmp/told; exit 1; }}
orchestrator stop --all
dpkg --remove orchestrator
! test -e /usr/bin/orchestrator
! test -e /usr/lib/orchestrator
echo all is well
"""


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("deb")
    subprocess.run(["make", "deb", f"DIST={out}"], cwd=ROOT, check=True, capture_output=True)
    (found,) = out.glob("orchestrator_*.deb")
    return found


@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed: apt-get install lintian")
def test_lintian_has_nothing_against_it(deb: Path) -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", str(deb)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_it_is_installed_started_as_its_unit_says_and_removed(deb: Path) -> None:
    program = str(Path(sys.executable).with_name("orchestrator"))
    script = INSTALLED.format(deb=deb, root=ROOT)
    command = [program, "lab", "run", "--cpus", "4", "--timeout", "12m", "--", "sh", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stdout.endswith("all is well\n")
