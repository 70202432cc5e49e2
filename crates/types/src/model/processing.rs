//! What a model's inputs are made of and what its outputs mean, so that plain pictures and tables need no code.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How plain content becomes the model's inputs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.image) != has(self.csv)",
    "message": "says what content the model takes: give one of image and csv",
}]))]
pub struct Preprocessing {
    /// The model takes a picture: JPEG, PNG or WebP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageInput>,
    /// The model takes a table: comma-separated values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub csv: Option<CsvInput>,
}

/// How a picture becomes a tensor. It is turned upright as its EXIF data say, fitted into `width` x `height`, and
/// each value becomes `(value * scale - mean) / std` with `value` from 0 to 255.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ImageInput {
    /// The input that takes the picture; absent is the model's only input.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub input: Option<String>,
    /// Width in pixels that the model takes; 0 takes it from the model's shape.
    #[schemars(range(max = 8192))]
    pub width: u32,
    /// Height in pixels that the model takes; 0 takes it from the model's shape.
    #[schemars(range(max = 8192))]
    pub height: u32,
    /// How a picture of other proportions is fitted in.
    pub resize: Resize,
    /// Where `letterbox` puts the picture.
    pub align: Align,
    /// Value from 0 to 255 of what `letterbox` leaves free; models of Ultralytics are trained with 114.
    #[schemars(range(min = 0.0, max = 255.0))]
    pub pad_value: f64,
    /// Share of the picture's width and height that `crop` keeps before it cuts to proportions: 0.875 is the
    /// resize to 256 and crop to 224 of many classifiers.
    #[schemars(extend("minimum" = 0, "exclusiveMinimum" = true, "maximum" = 1))]
    pub crop_fraction: f64,
    /// How pixels are computed from their neighbours.
    pub interpolation: Interpolation,
    /// Averages over all pixels that become one when a picture shrinks, as Pillow does. OpenCV's `resize` does not.
    pub antialias: bool,
    /// The order of dimensions; absent takes it from the model's shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// The channels and their order.
    pub channels: Channels,
    /// Factor before `mean` is taken off; absent is 1/255 for floating-point inputs and 1 for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// Taken off, one for each channel or one for all; empty is 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3))]
    pub mean: Vec<f64>,
    /// Divided by, one for each channel or one for all; empty is 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("items" = {
        "type": "number", "format": "double", "minimum": 0, "exclusiveMinimum": true,
    }))]
    pub std: Vec<f64>,
}

impl Default for ImageInput {
    fn default() -> Self {
        ImageInput {
            input: None,
            width: 0,
            height: 0,
            resize: Resize::default(),
            align: Align::default(),
            pad_value: 0.0,
            crop_fraction: 1.0,
            interpolation: Interpolation::default(),
            antialias: true,
            layout: None,
            channels: Channels::default(),
            scale: None,
            mean: vec![],
            std: vec![],
        }
    }
}

/// How a picture of other proportions is fitted in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Resize {
    /// Width and height are scaled apart.
    #[default]
    Stretch,
    /// Scaled to fit inside; the rest is filled.
    Letterbox,
    /// Scaled to cover; what stands out is cut off on both sides alike.
    Crop,
}

/// Where a smaller picture lies in a larger area.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Align {
    /// In the middle.
    #[default]
    Center,
    /// At the top and the left.
    TopLeft,
}

/// How pixels are computed from their neighbours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Interpolation {
    /// The nearest pixel alone.
    Nearest,
    /// Linear in both directions.
    #[default]
    Bilinear,
    /// Cubic (Catmull-Rom) in both directions.
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

/// The order of a picture's dimensions: N samples, C channels, H rows, W columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Layout {
    /// Channel by channel, as PyTorch has it.
    #[serde(rename = "NCHW")]
    Nchw,
    /// Pixel by pixel, as TensorFlow has it.
    #[serde(rename = "NHWC")]
    Nhwc,
}

/// The channels of a picture and their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Channels {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red: what OpenCV reads.
    Bgr,
    /// Luma alone, as ITU-R BT.601 weighs the colours.
    Gray,
}

/// How a table becomes tensors: one of `[rows, columns]` for a model with one input, or one per column for a model
/// with several.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CsvInput {
    /// Whether the first line names the columns.
    pub header: Header,
    /// The columns that the model takes, in its order: picked by name where there is a header, else their names.
    /// Empty takes all as they stand.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16384), inner(length(min = 1, max = 1024)))]
    pub columns: Vec<String>,
    /// The one character between values; absent is a comma.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[\\t !#-,./:;<=>?@^_|~]$"), length(max = 1))]
    pub delimiter: Option<String>,
}

/// Whether a table's first line names its columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Header {
    /// It does where one of its values is no number though the model takes a number there, or where it holds all of
    /// `columns`, or all names of the model's inputs.
    #[default]
    Auto,
    /// It does.
    Present,
    /// It is the first row.
    Absent,
}

/// What a model's outputs mean.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.classes) != has(self.boxes)",
    "message": "says what the model finds: give one of classes and boxes",
}]))]
pub struct Postprocessing {
    /// The model says which classes a sample is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<ClassesOutput>,
    /// The model says where in a picture things are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<BoxesOutput>,
}

/// The likeliest classes of each sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClassesOutput {
    /// The output with one value per class, `[samples, classes]`; absent is the model's only output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub output: Option<String>,
    /// What makes scores of the output's values.
    pub activation: Activation,
    /// Most classes in an answer.
    #[schemars(range(min = 1, max = 1000))]
    pub top_k: u32,
    /// Classes that score less are left out.
    pub score_threshold: f64,
    /// The names of classes by their index.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32768), inner(length(max = 256)))]
    pub labels: Vec<String>,
}

impl Default for ClassesOutput {
    fn default() -> Self {
        ClassesOutput {
            output: None,
            activation: Activation::default(),
            top_k: 5,
            score_threshold: 0.0,
            labels: vec![],
        }
    }
}

/// What makes scores of a model's values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Activation {
    /// They are scores.
    #[default]
    None,
    /// They become shares of 1: one class is right.
    Softmax,
    /// Each by itself becomes a share of 1: any number of classes is right.
    Sigmoid,
}

/// Things found in a picture, in pixels of the picture that was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BoxesOutput {
    /// What the outputs hold.
    pub decoder: Decoder,
    /// The outputs in the decoder's order; empty takes the model's outputs in theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), inner(length(min = 1, max = 1024)))]
    pub outputs: Vec<String>,
    /// What the four numbers of a box are; absent is what the decoder usually has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub box_format: Option<BoxFormat>,
    /// Whether boxes are given in shares of the model's width and height, not in its pixels; absent is what the
    /// decoder usually has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalized: Option<bool>,
    /// Boxes that score less are left out.
    #[serde(default = "a_quarter")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub score_threshold: f64,
    /// Of two boxes whose intersection over union is greater, the one that scores less is left out; 1 leaves none out.
    #[serde(default = "nine_twentieths")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub iou_threshold: f64,
    /// Lets boxes suppress boxes of other classes, too.
    #[serde(default)]
    pub agnostic_nms: bool,
    /// Most boxes in an answer.
    #[serde(default = "three_hundred")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_boxes: u32,
    /// The names of classes by their index. Classes with an empty name are left out, for example the background.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32768), inner(length(max = 256)))]
    pub labels: Vec<String>,
}

fn a_quarter() -> f64 {
    0.25
}

fn nine_twentieths() -> f64 {
    0.45
}

fn three_hundred() -> u32 {
    300
}

/// What the outputs of a detector hold. Unless said otherwise, boxes are in the model's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Decoder {
    /// Heatmap `[N, 1, h, w]`, scale and offset `[N, 2, h, w]`, landmarks `[N, 10, h, w]`, at a quarter of the picture's size.
    CenterFace,
    /// `[N, boxes, 5 + classes]`: centre, size, objectness, a score per class. Also YOLOv7.
    Yolov5,
    /// `[N, 4 + classes, boxes]`: centre, size, a score per class. Also YOLOv9, YOLO11, YOLO12 and NudeNet.
    Yolov8,
    /// Boxes `[N, boxes, 4]`, scores `[N, boxes]` or `[N, boxes, classes]`; where scores have no classes, the classes
    /// `[N, boxes]`, and how many boxes count `[N]`. Corners in shares of the picture's width and height.
    Ssd,
    /// `[N, boxes, 6]`: corners, score, class; or 5 without a class. Also YOLOv10 and YOLO26.
    Rows,
}

/// What the four numbers of a box are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BoxFormat {
    /// Left, top, right, bottom.
    Xyxy,
    /// Top, left, bottom, right: what TensorFlow gives.
    Yxyx,
    /// Left, top, width, height.
    Xywh,
    /// The centre, width, height.
    Cxcywh,
}
