from errors import condense


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
