"""``rftf check-policy`` and ``rftf export``: the policy beside the library that it comes from."""

import pytest
import torch
from tiny import TINY

from rftf_torchrl import EncoderConfig, PolicySpec, save_policy

pytest.importorskip("transformers")
pytestmark = pytest.mark.metaworld

SETTINGS = ["env.image_size=40", "policy.options.bins=16", "check.observations=3"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from rftf_torchrl import save_tiny_vlm

    folder = save_tiny_vlm(tmp_path_factory.mktemp("model"))
    return [*TINY, *SETTINGS, "policy=smolvlm", f"policy.pretrained={folder}"]


@pytest.fixture
def run(rftf, capsys):
    """A function from a command to its exit code and what it showed."""

    def ended(*arguments):
        code = 0
        try:
            rftf(*arguments)
        except SystemExit as exit:
            code = exit.code
        return code, capsys.readouterr()

    return ended


def test_the_difference_decides_the_exit_code(model, run):
    code, shown = run("check-policy", *model)
    assert code == 0
    assert shown.out.startswith("compared               logits after the prompt, 3 x 320\n")
    code, shown = run("check-policy", *model, "check.bound=1e-15")
    assert code == 1
    assert shown.out.endswith("check_policy: the difference is above check.bound=1e-15\n")


def test_a_tuned_policy_is_exported_and_checked(configure, model, tmp_path):
    from rftf_torchrl.configs.policies import new_policy
    from rftf_torchrl.recipes.check_policy import check_policy
    from rftf_torchrl.recipes.export import export

    words = ["policy.options.decoding=autoregressive", "policy.options.use_state=false"]
    config = configure(*model, *words, f"output={tmp_path / 'exported'}")
    assert check_policy(config).what == "actions"
    policy, spec = new_policy(config, state_dim=4, action_dim=3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_policy(policy, spec, tmp_path / "policy.safetensors")
    config.policy.path = str(tmp_path / "policy.safetensors")
    found = check_policy(config)
    assert found.ours.shape == (3, 2, 3)
    assert torch.equal(found.ours, found.native)
    export(config)
    files = {"config.json", "model.safetensors", "tokenizer.json", "action_head.safetensors"}
    assert files <= {file.name for file in (tmp_path / "exported").iterdir()}
    with pytest.raises(FileExistsError, match="exists, and exported policies are never"):
        export(config)


@pytest.fixture
def small(tmp_path):
    encoder = EncoderConfig(image_size=None, state_dim=3, vocab_size=8)
    spec = PolicySpec(encoder, chunk_size=2, action_dim=4)
    save_policy(spec.build(), spec, tmp_path / "small.safetensors")
    return f"policy.path={tmp_path / 'small.safetensors'}"


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("check-policy", "so there is no inference to compare with"),
        (
            "export",
            "so there is no other format to export it to: its spec has no method 'export'.",
        ),
    ],
)
def test_what_comes_from_nowhere_is_refused(small, run, tmp_path, command, what):
    output = f"output={tmp_path / 'exported'}"
    code, shown = run(command, small, output)
    assert code == 2
    assert shown.err.endswith(
        f"{command.replace('-', '_')}: a policy of the kind 'small' comes from no other library, "
        f"{what}\n(-v shows where it was raised.)\n"
    )
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "check-policy",
            "check_policy: there is nothing to check: give policy.pretrained=<folder or hub id>, "
            "or policy.path=<file>",
        ),
        ("export", "export: there is nothing to export: give policy.path=<file>"),
    ],
)
def test_no_policy(run, command, message):
    code, shown = run(command)
    assert code == 2
    assert message in shown.err
