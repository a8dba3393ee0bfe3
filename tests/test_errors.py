from errors import CommandParser, condense


def test_condense_keeps_the_path_and_the_reason() -> None:
    tree = """Parser key "data":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'Data'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'Data':
        Option 'siez' is not accepted
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'siez': 3}"""
    assert condense(tree) == "Parser key \"data\": Problem with given class_path 'Data': Option 'siez' is not accepted"


def test_values_are_joined_to_the_flags_that_a_command_hands_on() -> None:
    flags = [
        "--data.root",
        "a b",
        "--test_after_fit",
        "--trainer.max_epochs=-1",
        "--model.beta",
        "-1",
        "--x=1",
        "stray",
    ]
    expected = ["--data.root=a b", "--test_after_fit", "--trainer.max_epochs=-1", "--model.beta=-1", "--x=1", "stray"]
    assert CommandParser("preimage").parse_known_args(flags)[1] == expected
