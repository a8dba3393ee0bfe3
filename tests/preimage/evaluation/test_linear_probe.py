import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from preimage.evaluation import linear_probe
from preimage.evaluation.linear_probe import LinearProbe
from tests.preimage.evaluation.test_probes import classes


@pytest.mark.parametrize("number", [2, 7])
def test_many_codes_are_learned_from_to_the_weights_of_scikit_learn(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, labels = classes(1500, 20, number, 0)
    labels += 3  # nor do labels begin at 0
    reference = LogisticRegression(C=0.5, tol=1e-7, max_iter=10_000).fit(codes.double().numpy(), labels.numpy())
    monkeypatch.setattr(linear_probe, "LARGE", 0)
    monkeypatch.setattr(linear_probe, "_CHUNK", 400)
    start = LinearProbe(0.01).fit(codes, labels)
    for probe in (LinearProbe(0.5), LinearProbe(0.5, start=start)):
        probe.fit(codes, labels)
        assert np.abs(probe.weight.T - reference.coef_).max() < 0.003 * np.abs(reference.coef_).max()
        agree = probe.predict(codes).numpy() == reference.predict(codes.numpy())
        assert agree.mean() > 0.998
    assert np.abs(start.weight.T - reference.coef_).max() > 0.1 * np.abs(reference.coef_).max()


def test_few_codes_are_left_to_scikit_learn() -> None:
    codes, labels = classes(100, 4, 3, 0)
    reference = LogisticRegression(C=10, max_iter=300).fit(codes.numpy(), labels.numpy())
    assert np.array_equal(LinearProbe(10).fit(codes, labels).predict(codes), reference.predict(codes.numpy()))
