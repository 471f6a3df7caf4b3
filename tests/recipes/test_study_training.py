"""What a study's runs logged, from files as compare.py leaves them."""

import re

import pytest

pytestmark = pytest.mark.recipe

SPARSE = {3: ["1", "2", "3"], 4: ["3", "4", "5", "6"]}
KEEP = {3: ["8", "", "4"], 4: ["4", "nan", "2"]}


@pytest.fixture
def study(tmp_path):
    for method, seeds in (("sparse", SPARSE), ("keep", KEEP)):
        for seed, values in seeds.items():
            run = tmp_path / "work" / "easy" / method / f"seed{seed}" / "rftf"
            run.mkdir(parents=True)
            rows = [f"{step},{value}" for step, value in enumerate(values)]
            (run / "metrics.csv").write_text(
                "\n".join(["step,loss_critic", *rows]) + "\n", encoding="utf-8"
            )
    return tmp_path


def test_means_over_seeds_with_their_range(study, capsys):
    from rftf_torchrl.recipes.study_training import main

    spans = ["--iterations", "1", "2-3", "last2"]
    main([str(study), "loss_critic", "--divide", "keep=2", *spans, "--out", str(study / "out")])
    said = capsys.readouterr().out
    assert "## loss_critic, easy" in said
    assert "| method | seeds | 1 | 2-3 | last2 |" in said
    # seed 3: 1, (2 + 3) / 2, (2 + 3) / 2; seed 4: 3, (4 + 5) / 2, (5 + 6) / 2
    assert "| sparse | 2 | 2 (1 to 3) | 3.5 (2.5 to 4.5) | 4 (2.5 to 5.5) |" in said
    # halved; the second iteration, empty and not a number, is left out
    assert "| keep | 2 | 3 (2 to 4) | 1.5 (1 to 2) | 1.5 (1 to 2) |" in said
    assert (study / "out" / "loss_critic.md").read_text(encoding="utf-8") + "\n" == said
    assert (study / "out" / "loss_critic_easy.png").stat().st_size > 5000


def test_the_parts_end_with_the_shortest_run(study, capsys):
    from rftf_torchrl.recipes.study_training import main

    main([str(study), "loss_critic", "--methods", "sparse"])
    assert "| method | seeds | 1 | 2 | 3 |" in capsys.readouterr().out


def test_a_method_that_does_not_log_the_metric_is_left_out_and_named(study, capsys):
    from rftf_torchrl.recipes.study_training import main

    run = study / "work" / "easy" / "grpo" / "seed3" / "sparse"
    run.mkdir(parents=True)
    (run / "metrics.csv").write_text("step,success\n0,1\n1,1\n2,1\n", encoding="utf-8")
    main([str(study), "loss_critic", "--iterations", "1"])
    shown = capsys.readouterr()
    assert "| sparse | 2 |" in shown.out
    assert "grpo" not in shown.out
    assert shown.err == "easy: grpo did not log loss_critic\n"
    with pytest.raises(SystemExit):
        main([str(study), "loss_critic", "--methods", "grpo", "sparse"])
    assert "has no 'loss_critic', but step, success" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (
            ["success", "--methods", "sparse"],
            r"sparse/seed3/rftf/metrics\.csv has no 'success', but step, loss_critic",
        ),
        (["loss_critic", "--methods", "bc"], r"no .*bc/seed\*/\*/metrics\.csv"),
        (["loss_critic", "--iterations", "4"], r"keep, seed 3: iterations 4 of a run of 3"),
        (["loss_critic", "--iterations", "last5"], r"iterations last5 of a run of 3"),
        (["loss_critic", "--iterations", "0"], r"iterations 0 of a run"),
        (["loss_critic", "--iterations", "3-2"], r"iterations 3-2 of a run"),
        (["loss_critic", "--iterations", "x"], r"'4', '7-9' or 'last4', not 'x'"),
        (["loss_critic", "--iterations", "2"], r"keep, seed 3: the metric was not logged in"),
        (["loss_critic", "--divide", "rftf=4"], r"there is no 'rftf', but keep, sparse"),
        (["loss_critic", "--divide", "keep=0"], r"no zero, not 'keep=0'"),
        (["loss_critic", "--divide", "keep"], r"no zero, not 'keep'"),
    ],
)
def test_what_is_wrong_is_said(study, capsys, arguments, why):
    from rftf_torchrl.recipes.study_training import main

    with pytest.raises(SystemExit):
        main([str(study), *arguments])
    assert re.search(why, capsys.readouterr().err)


def test_a_folder_without_a_study(tmp_path, capsys):
    from rftf_torchrl.recipes.study_training import main

    with pytest.raises(SystemExit):
        main([str(tmp_path), "loss_critic"])
    assert "holds no task set" in capsys.readouterr().err
