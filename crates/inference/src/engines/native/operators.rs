//! The operators that are done here. Each is a function from a node to what its step does.

mod arithmetic;
mod encode;
mod linear;
mod matrix;
mod places;
mod post;
mod reduce;
mod scale;
mod select;
mod shape;
mod svm;
mod trees;

use super::Refused;
use super::node::Kernel;
use super::onnx::Node;

/// The domain of classical models' operators.
pub(super) const CLASSICAL: &str = "ai.onnx.ml";

pub(super) use linear::greatest;

type Builder = fn(&Node) -> Result<Kernel, Refused>;

/// How to make a step of an operator; `None` for those that are left to other engines.
pub(super) fn builder(domain: &str, operator: &str) -> Option<Builder> {
    match domain {
        CLASSICAL => classical(operator),
        "" | "ai.onnx" => plain(operator),
        _ => None,
    }
}

fn classical(operator: &str) -> Option<Builder> {
    Some(match operator {
        "ArrayFeatureExtractor" => select::array_feature_extractor,
        "Binarizer" => scale::binarizer,
        "CategoryMapper" => encode::category_mapper,
        "FeatureVectorizer" => scale::feature_vectorizer,
        "Imputer" => scale::imputer,
        "LabelEncoder" => encode::label_encoder,
        "LinearClassifier" => linear::classifier,
        "LinearRegressor" => linear::regressor,
        "Normalizer" => scale::normalizer,
        "OneHotEncoder" => encode::one_hot_encoder,
        "SVMClassifier" => svm::classifier,
        "SVMRegressor" => svm::regressor,
        "Scaler" => scale::scaler,
        "TreeEnsemble" => trees::ensemble,
        "TreeEnsembleClassifier" => trees::classifier,
        "TreeEnsembleRegressor" => trees::regressor,
        "ZipMap" => encode::zip_map,
        _ => return None,
    })
}

fn plain(operator: &str) -> Option<Builder> {
    Some(match operator {
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Sum" => arithmetic::binary,
        "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Equal" => arithmetic::comparison,
        "And" | "Or" | "Xor" | "Not" => arithmetic::logic,
        "Abs" | "Ceil" | "Exp" | "Floor" | "Log" | "Neg" | "Reciprocal" | "Relu" | "Sigmoid" | "Sign"
        | "Sqrt" | "Tanh" => arithmetic::unary,
        "IsNaN" => arithmetic::is_nan,
        "Cast" => shape::cast,
        "Constant" => shape::constant,
        "ConstantOfShape" => shape::constant_of_shape,
        "Concat" => shape::concat,
        "Flatten" => shape::flatten,
        "Identity" => shape::identity,
        "Reshape" => shape::reshape,
        "Shape" => shape::shape,
        "Squeeze" => shape::squeeze,
        "Unsqueeze" => shape::unsqueeze,
        "Gather" => select::gather,
        "Slice" => select::slice,
        "Transpose" => select::transpose,
        "Where" => select::choose,
        "Gemm" => matrix::gemm,
        "MatMul" => matrix::matmul,
        "ArgMax" | "ArgMin" => reduce::arg,
        "ReduceL1" | "ReduceL2" | "ReduceLogSumExp" | "ReduceMax" | "ReduceMean" | "ReduceMin"
        | "ReduceProd" | "ReduceSum" | "ReduceSumSquare" => reduce::reduce,
        "Softmax" => reduce::softmax,
        _ => return None,
    })
}

/// Which output of a node has a column per class, and the classes' names.
pub(super) fn labels(node: &Node) -> Option<(usize, Vec<String>)> {
    let (output, ints) = match (node.domain.as_str(), node.operator.as_str()) {
        (CLASSICAL, "ZipMap") => (0, "classlabels_int64s"),
        (CLASSICAL, "TreeEnsembleClassifier") => (1, "classlabels_int64s"),
        (CLASSICAL, "LinearClassifier" | "SVMClassifier") => (1, "classlabels_ints"),
        _ => return None,
    };
    let texts =
        node.texts("classlabels_strings").iter().map(|text| String::from_utf8_lossy(text).into_owned());
    let labels: Vec<String> = texts.chain(node.ints(ints).iter().map(i64::to_string)).collect();
    Some((output, labels)).filter(|(_, labels)| !labels.is_empty())
}
