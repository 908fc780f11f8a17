"""What runs on other machines, read as far as it can be here: against the published schemas, the README, and the versions.

None of it is executed by this test.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: workflow files are not read")

ROOT = Path(__file__).parent.parent
WORKFLOW = ROOT / ".github/workflows/test.yml"
JOB = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["course"]
COMMANDS = "\n".join(step.get("run", "") for step in JOB["steps"])
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
SCHEMAS = {
    "github-workflows": WORKFLOW,
    "github-issue-forms": ROOT / ".github/ISSUE_TEMPLATE/problem.yml",
    "github-issue-config": ROOT / ".github/ISSUE_TEMPLATE/config.yml",
    "citation-file-format": ROOT / "CITATION.cff",
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_for_github_follow_their_schemas(schema):
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", SCHEMAS[schema]]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_workflow_runs_what_the_readme_says():
    for command in ("make course", "make test", "python -m pip install uv", "-m tools.course notebooks build/course"):
        assert command in COMMANDS and command in README
    extras = re.findall(r"uv run --extra (\w+)", COMMANDS + README)
    assert set(extras) == {"lab", "test"} and all(re.search(rf"^{extra} = \[", PROJECT, re.M) for extra in extras)


def test_the_workflow_tries_the_oldest_and_the_newest_versions_on_three_systems():
    matrix = JOB["strategy"]["matrix"]
    oldest, newest = matrix["include"]
    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos", "windows"]
    assert [oldest["versions"], newest["versions"]] == matrix["versions"] == ["oldest", "newest"]
    assert re.search(r'^requires-python = "(.*)"$', PROJECT, re.M)[1] == f">={oldest['python']}"
    assert (oldest["resolution"], newest["resolution"]) == ("lowest-direct", "highest")


def test_the_workflow_may_only_read_and_its_actions_cannot_change():
    assert yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["permissions"] == {"contents": "read"}
    assert "permissions" not in JOB and "secrets" not in WORKFLOW.read_text(encoding="utf-8")
    uses = re.findall(r"uses: (.*)", WORKFLOW.read_text(encoding="utf-8"))
    assert uses and all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action) for action in uses)


def test_the_container_makes_what_the_makefile_can():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert container["postCreateCommand"] == "make .venv/lab.installed"
    assert container["containerEnv"] == {"UV_TORCH_BACKEND": "cpu"}
    dockerfile = (ROOT / ".devcontainer" / container["build"]["dockerfile"]).read_text(encoding="utf-8")
    assert f" {container['remoteUser']}\n" in dockerfile
