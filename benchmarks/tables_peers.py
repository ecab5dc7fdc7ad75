"""What a user would reach for instead, in scikit-learn, on the rows of `benchmarks.tables`."""

import warnings

import numpy as np

from benchmarks.tables_data import Split

FACTORS = {"breast_cancer": (5, 10, 15), "wine": (1, 2, 3, 4, 5, 6)}
COVARIANCES = ("full", "tied", "diag")
COMPONENTS = (1, 2, 3, 5, 8)


def log_density(name: str, train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """log p(x) of each test row, [N]: by the number of factors, and by the mixture, that are the
    best **on the test rows**, which favours the peers.
    """
    from sklearn.decomposition import FactorAnalysis
    from sklearn.mixture import GaussianMixture

    factors = [FactorAnalysis(number, max_iter=1000) for number in FACTORS[name]]
    mixtures = [
        GaussianMixture(number, covariance_type=kind, reg_covar=1e-3, random_state=0)
        for kind in COVARIANCES
        for number in COMPONENTS
    ]
    return {
        "factor analysis": _best(factors, train, test),
        "Gaussian mixture": _best(mixtures, train, test),
    }


def _best(models: list, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence, at the largest numbers
        scores = [model.fit(train).score_samples(test) for model in models]
    return max(scores, key=np.mean)


def impute(split: Split, seen_train: np.ndarray, seen_test: np.ndarray) -> dict[str, np.ndarray]:
    """The test rows filled in, [N, D]."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

    train = np.where(seen_train, split.train, np.nan)
    test = np.where(seen_test, split.test, np.nan)
    imputers = {
        "mean": SimpleImputer(),
        "10 nearest neighbours": KNNImputer(n_neighbors=10),
        "iterative": IterativeImputer(max_iter=30, random_state=0),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of convergence
        return {name: one.fit(train).transform(test) for name, one in imputers.items()}
