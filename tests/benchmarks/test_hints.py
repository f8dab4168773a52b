"""What the command line says where an option is misspelt."""

from commandline import command


def test_hints_are_of_the_command_itself():
    text = command("run", "split_digits", "--method", "ewc").err
    assert "--methods" in text and "python -m benchmarks run --help" in text
    assert "plot" not in text and "tune" not in text


def test_without_a_command_all_are_named():
    for arguments in ((), ("rum",), ("--help",)):
        done = command(*arguments)
        assert all(name in done.out + done.err for name in ("list", "run", "tune", "table", "plot", "data"))


def test_a_suite_without_grids_says_so_whatever_method_is_asked_for(tmp_path):
    for asked in ((), ("--methods", "ewc")):
        told = command("tune", "split_mnist_wide", *asked, out=tmp_path).err
        assert told.startswith(
            "error: split_mnist_wide has no grids, so there is nothing to tune: add them to configs/"
        )
