"""Writes the classical models that the tests load and, for each, rows with the answers of the library that made it:

    pip install -r requirements.txt
    python make_classical.py

`NAME.onnx`, `NAME.json`, `NAME.ubj` and `NAME.txt` are models; `NAME.case` holds inputs and expected outputs as JSON.
"""

import json
import pathlib

import lightgbm
import numpy as np
import pandas
import xgboost
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as MlFloat
from skl2onnx import to_onnx
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import (AdaBoostClassifier, ExtraTreesRegressor, GradientBoostingClassifier,
                              GradientBoostingRegressor, IsolationForest,
                              RandomForestClassifier, RandomForestRegressor)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (Binarizer, MinMaxScaler, Normalizer, OneHotEncoder, OrdinalEncoder,
                                   PolynomialFeatures, StandardScaler)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier

HERE = pathlib.Path(__file__).parent
NAMES = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}
OPSET = {"": 18, "ai.onnx.ml": 3}

iris = load_iris()
iris_x, iris_y = iris.data.astype(np.float32), iris.target
iris_names = iris.target_names[iris_y]
two = iris_y < 2
diabetes_x, diabetes_y = load_diabetes(return_X_y=True)
diabetes_x = diabetes_x.astype(np.float32)


def tensor(name, array):
    array = np.asarray(array)
    if array.dtype.kind in "UO":
        return {"name": name, "datatype": "BYTES", "shape": list(array.shape), "data": [str(x) for x in array.ravel()]}
    data = [None if x != x else x for x in array.ravel().tolist()]
    return {"name": name, "datatype": NAMES[str(array.dtype)], "shape": list(array.shape), "data": data}


def case(name, inputs, outputs):
    content = {"inputs": [tensor(n, a) for n, a in inputs.items()], "outputs": [tensor(n, a) for n, a in outputs.items()]}
    (HERE / f"{name}.case").write_text(json.dumps(content) + "\n")


def onnx(name, model, x, outputs, initial=None, **options):
    """`outputs` makes the expected arrays, in the order of the graph's outputs."""
    rows = x[::17][:12]
    graph = to_onnx(model, None if initial else x[:1], initial_types=initial, target_opset=OPSET, **options)
    (HERE / f"{name}.onnx").write_bytes(graph.SerializeToString())
    inputs = {"X": rows} if initial is None or len(initial) == 1 else {n: rows[[n]].to_numpy() for n, _ in initial}
    case(name, inputs, dict(zip([o.name for o in graph.graph.output], outputs(rows))))


def classes(model):
    return lambda rows: (model.predict(rows), model.predict_proba(rows).astype(np.float32))


def numbers(model):
    return lambda rows: (model.predict(rows).reshape(-1, 1).astype(np.float32),)


def scikit_learn():
    forest = RandomForestClassifier(10, max_depth=5, random_state=1).fit(iris_x, iris_y)
    onnx("iris_forest", forest, iris_x, classes(forest))
    onnx("iris_forest_table", forest, iris_x, classes(forest), options={"zipmap": False})
    named = RandomForestClassifier(5, max_depth=3, random_state=1).fit(iris_x, iris_names)
    onnx("iris_forest_names", named, iris_x, classes(named))
    binary = RandomForestClassifier(9, max_depth=3, random_state=2).fit(iris_x[:, :2], iris_y == 1)
    onnx("binary_forest", binary, iris_x[:, :2], lambda rows: (binary.predict(rows).astype(np.int64), binary.predict_proba(rows).astype(np.float32)), options={"zipmap": False})
    tree = DecisionTreeClassifier(max_depth=4, random_state=0).fit(iris_x, iris_y)
    onnx("tree", tree, iris_x, classes(tree), options={"zipmap": False})
    boosted = GradientBoostingRegressor(n_estimators=20, max_depth=3, random_state=0).fit(diabetes_x, diabetes_y)
    onnx("boosted_regressor", boosted, diabetes_x, numbers(boosted))
    boosted3 = GradientBoostingClassifier(n_estimators=5, random_state=0).fit(iris_x, iris_y)
    onnx("boosted_classifier", boosted3, iris_x, classes(boosted3), options={"zipmap": False})
    boosted2 = GradientBoostingClassifier(n_estimators=8, max_depth=2, random_state=0).fit(iris_x[:, :2], (iris_y == 2).astype(int))
    onnx("boosted_binary", boosted2, iris_x[:, :2], classes(boosted2), options={"zipmap": False})
    regressor = RandomForestRegressor(8, max_depth=5, random_state=0).fit(diabetes_x, diabetes_y)
    onnx("forest_regressor", regressor, diabetes_x, numbers(regressor))
    both = ExtraTreesRegressor(6, max_depth=4, random_state=0).fit(diabetes_x, np.stack([diabetes_y, -diabetes_y], 1))
    onnx("two_targets", both, diabetes_x, lambda rows: (both.predict(rows).astype(np.float32),))
    doubles = RandomForestClassifier(4, max_depth=4, random_state=0).fit(iris.data, iris_y)
    onnx("double_forest", doubles, iris.data, classes(doubles), initial=[("X", DoubleTensorType([None, 4]))], options={"zipmap": False})
    logistic = make_pipeline(StandardScaler(), LogisticRegression()).fit(iris_x, iris_names)
    onnx("logistic", logistic, iris_x, classes(logistic))
    logistic2 = make_pipeline(MinMaxScaler(), LogisticRegression()).fit(iris_x, (iris_y == 1).astype(int))
    onnx("logistic_binary", logistic2, iris_x, classes(logistic2), options={"zipmap": False})
    linear = make_pipeline(PolynomialFeatures(2), LinearRegression()).fit(iris_x, iris_x @ [1, 2, 3, 4] + iris_y)
    onnx("linear_regressor", linear, iris_x, numbers(linear))
    whole = LinearRegression().fit(iris_x.astype(np.int64), iris_y)
    onnx("linear_of_whole_numbers", whole, iris_x.astype(np.int64), numbers(whole), initial=[("X", Int64TensorType([None, 4]))])
    sgd = SGDClassifier(loss="log_loss", random_state=0).fit(iris_x, iris_y)
    onnx("sgd", sgd, iris_x, classes(sgd), options={"zipmap": False})
    flat = make_pipeline(Normalizer(), Binarizer(threshold=0.3), LogisticRegression()).fit(iris_x, iris_y)
    onnx("normalized", flat, iris_x, classes(flat), options={"zipmap": False})
    bayes = GaussianNB().fit(iris_x, iris_y)
    onnx("bayes", bayes, iris_x, classes(bayes), options={"zipmap": False})
    mlp = MLPClassifier((8,), max_iter=400, random_state=0).fit(iris_x, iris_y)
    onnx("mlp", mlp, iris_x, classes(mlp), options={"zipmap": False})
    ada = AdaBoostClassifier(n_estimators=5, random_state=0).fit(iris_x, iris_y)
    onnx("ada", ada, iris_x, classes(ada), options={"zipmap": False})
    svc = SVC(probability=True, random_state=0).fit(iris_x[::2], iris_y[::2])
    onnx("svc_probability", svc, iris_x, lambda rows: (svc.predict(rows), svc.predict_proba(rows).astype(np.float32)), options={"zipmap": False})
    svc2 = SVC(kernel="poly", degree=2, probability=True, random_state=0).fit(iris_x[two][::2], iris_y[two][::2])
    onnx("svc_binary", svc2, iris_x[two], lambda rows: (svc2.predict(rows), svc2.predict_proba(rows).astype(np.float32)), options={"zipmap": False})
    scores = SVC(kernel="sigmoid", gamma=0.01, decision_function_shape="ovo").fit(iris_x[::3], iris_names[::3])
    onnx("svc_scores", scores, iris_x, lambda rows: (scores.predict(rows), scores.decision_function(rows).astype(np.float32)), options={"zipmap": False, "raw_scores": True})
    plain = LinearSVC(random_state=0).fit(iris_x, iris_y)
    onnx("linear_svc", plain, iris_x, lambda rows: (plain.predict(rows), plain.decision_function(rows).astype(np.float32)))
    svr = SVR(C=10).fit(diabetes_x[::6], diabetes_y[::6])
    onnx("svr", svr, diabetes_x, numbers(svr))
    isolation = IsolationForest(n_estimators=5, max_samples=32, random_state=0).fit(iris_x)
    onnx("isolation", isolation, iris_x, lambda rows: (isolation.predict(rows).reshape(-1, 1), isolation.decision_function(rows).reshape(-1, 1).astype(np.float32)))
    near = KNeighborsClassifier(3).fit(iris_x[::5], iris_y[::5])
    onnx("neighbours", near, iris_x, classes(near))


def mixed():
    random = np.random.default_rng(3)
    count = 120
    table = pandas.DataFrame({
        "colour": random.choice(["red", "green", "blue"], count),
        "size": random.choice(["s", "m", "l"], count),
        "weight": random.normal(5, 2, count).astype(np.float32),
        "height": random.normal(1, 1, count).astype(np.float32),
    })
    table.loc[::5, "weight"] = np.nan
    target = np.where((table.colour == "red") ^ (table.height > 1), "yes", "no")
    encode = ColumnTransformer([
        ("texts", OneHotEncoder(handle_unknown="ignore"), ["colour"]),
        ("order", OrdinalEncoder(categories=[["s", "m", "l"]]), ["size"]),
        ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["weight", "height"]),
    ])
    model = make_pipeline(encode, LogisticRegression()).fit(table, target)
    initial = [("colour", StringTensorType([None, 1])), ("size", StringTensorType([None, 1])),
               ("weight", FloatTensorType([None, 1])), ("height", FloatTensorType([None, 1]))]
    onnx("mixed", model, table, classes(model), initial=initial)


def boosted_data(classes=0, missing=False, seed=0, count=160, width=5):
    random = np.random.default_rng(seed)
    x = random.normal(0, 1, (count, width)).astype(np.float32)
    x[:, 1] = np.round(x[:, 1], 1)
    y = x[:, 0] * 2 + np.abs(x[:, 1]) - x[:, 2] * x[:, 3]
    if missing:
        x[random.random(x.shape) < 0.2] = np.nan
        x[random.random(x.shape) < 0.2] = 0
    if classes:
        y = np.digitize(y, np.quantile(y, np.arange(1, classes) / classes))
    return x, y


def with_categories(x):
    x = x.copy()
    x[:, 2] = np.random.default_rng(9).integers(0, 40, len(x))
    return x


def xgb(name, params, x, y, rounds=6, categories=False, ubj=False, **more):
    types = ["c" if categories and i == 2 else "q" for i in range(x.shape[1])]
    data = lambda rows, label=None: xgboost.DMatrix(rows, label=label, feature_types=types, enable_categorical=True, **more)
    booster = xgboost.train({"max_depth": 3, "seed": 1, "nthread": 1, **params}, data(x, y), rounds)
    booster.save_model(HERE / f"{name}.{'ubj' if ubj else 'json'}")
    rows = x[:16]
    given = booster.predict(xgboost.DMatrix(rows, feature_types=types, enable_categorical=True))
    return case(name, {"input": rows}, answers(params["objective"], given))


def answers(objective, given):
    given = np.asarray(given, dtype=np.float32)
    if objective in ("binary:logistic", "binary", "cross_entropy_binary"):
        return {"label": (given > 0.5).astype(np.int64), "probabilities": np.stack([1 - given, given], 1)}
    if objective in ("multi:softprob", "multiclass", "multiclassova"):
        return {"label": given.argmax(1).astype(np.int64), "probabilities": given}
    return {"prediction": given.reshape(len(given), -1)}


def boosters():
    x, y = boosted_data()
    binary, three, missing = boosted_data(2), boosted_data(3), boosted_data(missing=True)
    xgb("xgb_regression", {"objective": "reg:squarederror"}, x, y)
    xgb("xgb_binary", {"objective": "binary:logistic", "scale_pos_weight": 3}, *binary)
    xgb("xgb_binary_ubj", {"objective": "binary:logistic"}, *binary, ubj=True)
    xgb("xgb_multi", {"objective": "multi:softprob", "num_class": 3}, *three, rounds=4)
    xgb("xgb_multi_ubj", {"objective": "multi:softprob", "num_class": 3}, *three, rounds=4, ubj=True)
    xgb("xgb_missing", {"objective": "reg:squarederror"}, *missing, ubj=True)
    xgb("xgb_categories", {"objective": "reg:squarederror", "max_cat_to_onehot": 4}, with_categories(x), y, categories=True, ubj=True)
    xgb("xgb_one_category", {"objective": "reg:squarederror", "max_cat_to_onehot": 99}, with_categories(x), y, categories=True)
    xgb("xgb_dart", {"objective": "reg:squarederror", "booster": "dart", "rate_drop": 0.4}, x, y, rounds=8)
    xgb("xgb_forest", {"objective": "binary:logistic", "num_parallel_tree": 4, "subsample": 0.5}, *binary, rounds=2, ubj=True)
    xgb("xgb_linear", {"objective": "reg:squarederror", "booster": "gblinear"}, x, y)
    xgb("xgb_linear_multi", {"objective": "multi:softprob", "num_class": 3, "booster": "gblinear"}, *three, ubj=True)
    xgb("xgb_poisson", {"objective": "count:poisson"}, x, np.abs(y) // 1)
    xgb("xgb_gamma", {"objective": "reg:gamma"}, x, np.abs(y) + 0.1, ubj=True)
    xgb("xgb_tweedie", {"objective": "reg:tweedie"}, x, np.abs(y), ubj=True)
    xgb("xgb_logistic", {"objective": "reg:logistic"}, x, 1 / (1 + np.exp(-y)))
    xgb("xgb_targets", {"objective": "reg:squarederror"}, x, np.stack([y, -y + 1], 1), ubj=True)
    ranking = xgboost.DMatrix(x, label=(y > 0).astype(int))
    ranking.set_group([40] * 4)
    ranker = xgboost.train({"objective": "rank:ndcg", "max_depth": 3, "nthread": 1}, ranking, 4)
    ranker.save_model(HERE / "xgb_rank.ubj")
    case("xgb_rank", {"input": x[:16]}, answers("rank", ranker.predict(xgboost.DMatrix(x[:16]))))
    early = xgboost.train({"objective": "reg:squarederror", "eta": 1.0, "max_depth": 4, "nthread": 1}, xgboost.DMatrix(x[:80], y[:80]), 30,
                          evals=[(xgboost.DMatrix(x[80:], y[80:]), "e")], early_stopping_rounds=5, verbose_eval=False)
    early.save_model(HERE / "xgb_best.ubj")
    best = early.predict(xgboost.DMatrix(x[:16]), iteration_range=(0, early.best_iteration + 1))
    assert early.num_boosted_rounds() > early.best_iteration + 1
    case("xgb_best", {"input": x[:16]}, answers("reg", best))
    xgb_onnx = xgboost.XGBClassifier(n_estimators=4, max_depth=3).fit(*three)
    graph = convert_xgboost(xgb_onnx, initial_types=[("X", MlFloat([None, 5]))], target_opset=15)
    (HERE / "xgb_converted.onnx").write_bytes(graph.SerializeToString())
    case("xgb_converted", {"X": x[:16]}, {"label": xgb_onnx.predict(x[:16]).astype(np.int64), "probabilities": xgb_onnx.predict_proba(x[:16])})


def lgb(name, params, x, y, rounds=6, categories=(), weight=None, group=None, **more):
    data = lightgbm.Dataset(x, y, categorical_feature=list(categories), weight=weight, group=group, params={"verbose": -1, **more})
    params = {"num_leaves": 7, "min_data_in_leaf": 5, "verbose": -1, "num_threads": 1, "seed": 1, **more, **params}
    booster = lightgbm.train(params, data, rounds)
    booster.save_model(HERE / f"{name}.txt")
    rows = x[:16]
    case(name, {"input": rows}, answers(params["objective"], booster.predict(rows)))
    return booster


def lightgbms():
    x, y = boosted_data()
    binary, three, missing = boosted_data(2), boosted_data(3), boosted_data(missing=True)
    lgb("lgb_regression", {"objective": "regression"}, x, y)
    lgb("lgb_sqrt", {"objective": "regression", "reg_sqrt": True}, x, y)
    lgb("lgb_l1", {"objective": "regression_l1"}, x, y, rounds=3)
    lgb("lgb_binary", {"objective": "binary", "sigmoid": 0.7}, *binary)
    lgb("lgb_multi", {"objective": "multiclass", "num_class": 3}, *three, rounds=4)
    lgb("lgb_each", {"objective": "multiclassova", "num_class": 3}, *three, rounds=4)
    lgb("lgb_missing", {"objective": "regression"}, *missing)
    lgb("lgb_zero", {"objective": "regression"}, *missing, zero_as_missing=True)
    lgb("lgb_no_missing", {"objective": "regression"}, x, y, use_missing=False)
    lgb("lgb_categories", {"objective": "regression", "min_data_per_group": 5, "cat_smooth": 1}, with_categories(x), y, categories=[2])
    lgb("lgb_forest", {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}, *binary)
    lgb("lgb_dart", {"objective": "regression", "boosting": "dart", "drop_rate": 0.5}, x, y)
    lgb("lgb_poisson", {"objective": "poisson"}, x, np.abs(y))
    lgb("lgb_gamma", {"objective": "gamma"}, x, np.abs(y) + 0.1, rounds=3)
    lgb("lgb_tweedie", {"objective": "tweedie"}, x, np.abs(y), rounds=3)
    lgb("lgb_cross", {"objective": "cross_entropy"}, x, 1 / (1 + np.exp(-y)), rounds=3)
    lgb("lgb_rank", {"objective": "lambdarank"}, x, (y > 0).astype(int), rounds=3, group=[40] * 4)
    lgb("lgb_linear", {"objective": "regression"}, x, y, rounds=2, linear_tree=True)
    # The converter knows no other sigmoid than 1.
    booster = lightgbm.train({"objective": "binary", "num_leaves": 7, "verbose": -1, "num_threads": 1}, lightgbm.Dataset(*binary), 5)
    graph = convert_lightgbm(booster, initial_types=[("X", MlFloat([None, 5]))], target_opset=15)
    (HERE / "lgb_converted.onnx").write_bytes(graph.SerializeToString())
    p = booster.predict(x[:16]).astype(np.float32)
    case("lgb_converted", {"X": x[:16]}, {"label": (p > 0.5).astype(np.int64), "probabilities": np.stack([1 - p, p], 1)})


scikit_learn()
mixed()
boosters()
lightgbms()
