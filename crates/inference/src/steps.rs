//! Plain content in, readable answers out: what a model declares as `preprocessing` and `postprocessing`.
//!
//! Both are compiled against the model's signature once, when it is loaded, so that what doesn't fit is an error
//! there. Applying them is computation alone: no I/O and no clock, and time and memory are bounded by [`limits`].
//! Decoding a large photo takes a tenth of a second: call from a thread that may block.
//!
//! ```
//! use avocet_inference::steps::{Input, Output};
//! use avocet_inference::{Datatype, Signature, Tensor, TensorSpec};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let spec = |name: &str, shape: &[i64]| TensorSpec {
//!     name: name.into(), datatype: Datatype::Fp32, shape: Some(shape.to_vec()),
//! };
//! let signature = Signature { inputs: vec![spec("x", &[-1, 2])], outputs: vec![spec("y", &[-1, 3])] };
//! let preprocessing = types::Preprocessing { csv: Some(types::CsvInput::default()), image: None };
//! let postprocessing = types::Postprocessing { classes: Some(types::ClassesOutput::default()), boxes: None };
//! let (input, output) = (Input::compile(&preprocessing, &signature)?, Output::compile(&postprocessing, &signature)?);
//!
//! let tensors = input.csv(b"length,width\n5.1,3.5\n")?;
//! assert_eq!(tensors[0].shape(), [1, 2]);
//! let answer = Tensor::from_vec("y", [1, 3], vec![0.1_f32, 0.7, 0.2])?;
//! let reading = output.read(&[answer], None)?;
//! assert!(serde_json::to_string(&reading)?.starts_with(r#"{"classes":[[{"index":1,"score":0.7}"#));
//! # Ok(())
//! # }
//! ```

mod error;

mod fit;
mod image;
mod orientation;
mod picture;

mod table;

mod boxes;
mod classes;
mod decoders;
mod nms;
mod reading;
mod values;

pub use error::StepError;
pub use fit::Frame;
pub use reading::{Class, Found, Reading};

use bytes::Bytes;
use types::{Postprocessing, Preprocessing};

use crate::{Signature, Tensor, TensorSpec};
use boxes::Boxes;
use classes::Classes;
use image::Image;
use picture::Picture;
use table::Table;

/// Bounds on what a stranger may send, and on what a model may answer.
pub mod limits {
    /// Most pixels of a picture: what the largest phones take.
    pub const PIXELS: usize = 50_000_000;
    /// What decoding a picture takes for each pixel, at most.
    pub const BYTES_PER_PIXEL: u64 = 9;
    /// Most bytes of a picture or table.
    pub const BYTES: usize = 64 << 20;
    /// How much larger than its text a table gets while it is read: `1,` is a number of 8 bytes, in a list that grows
    /// by doubling.
    pub const TABLE_GROWTH: u64 = 8;
    /// Most rows of a table.
    pub const ROWS: usize = 1 << 20;
    /// Most columns of a table.
    pub const COLUMNS: usize = 16 << 10;
    /// Most boxes that are compared with each other; of more, those that score highest are.
    pub const CANDIDATES: usize = 30_000;
}

/// Content as it comes.
#[derive(Clone, Debug)]
pub enum Plain {
    /// A JPEG, PNG or WebP picture.
    Picture(Bytes),
    /// A table of comma-separated values.
    Table(Bytes),
}

/// Compiled `preprocessing`.
#[derive(Clone, Debug)]
pub struct Input(InputKind);

#[derive(Clone, Debug)]
enum InputKind {
    Image(Image),
    Table(Table),
}

impl Input {
    /// Fits a declaration to a model.
    ///
    /// # Errors
    /// When they don't fit, or the declaration leaves open what the model leaves open, too.
    pub fn compile(declared: &Preprocessing, signature: &Signature) -> Result<Input, StepError> {
        match (&declared.image, &declared.csv) {
            (Some(image), None) => {
                Image::compile(image, signature).map(|image| Input(InputKind::Image(image)))
            }
            (None, Some(csv)) => Table::compile(csv, signature).map(|table| Input(InputKind::Table(table))),
            _ => Err(StepError::declaration("preprocessing", "needs one of `image` and `csv`")),
        }
    }

    /// Whether the model takes pictures; if not, it takes tables.
    pub fn takes_pictures(&self) -> bool {
        matches!(self.0, InputKind::Image(_))
    }

    /// Bytes of memory that [`Input::read`] takes at most, by what the content's first bytes say.
    ///
    /// # Errors
    /// When it would fail for what these bytes say.
    pub fn memory(&self, content: &Plain) -> Result<u64, StepError> {
        match (content, &self.0) {
            (Plain::Picture(content), InputKind::Image(_)) => {
                let pixels = Picture::pixels(content)?;
                Ok(pixels as u64 * limits::BYTES_PER_PIXEL)
            }
            (Plain::Table(content), InputKind::Table(_)) => Ok(content.len() as u64 * limits::TABLE_GROWTH),
            // Reading it refuses it.
            (Plain::Picture(_), InputKind::Table(_)) | (Plain::Table(_), InputKind::Image(_)) => Ok(0),
        }
    }

    /// [`Input::image`] or [`Input::csv`].
    ///
    /// # Errors
    /// As these.
    pub fn read(&self, content: &Plain) -> Result<(Vec<Tensor>, Option<Frame>), StepError> {
        match content {
            Plain::Picture(content) => self.image(content).map(|(tensors, frame)| (tensors, Some(frame))),
            Plain::Table(content) => self.csv(content).map(|tensors| (tensors, None)),
        }
    }

    /// A JPEG, PNG or WebP picture as the model's inputs, and how the model sees it. One picture is one sample.
    ///
    /// # Errors
    /// When the model takes tables, or the content is no picture, damaged or too large.
    pub fn image(&self, content: &[u8]) -> Result<(Vec<Tensor>, Frame), StepError> {
        match &self.0 {
            InputKind::Image(image) => image.apply(content),
            InputKind::Table(_) => Err(StepError::NotTaken { given: "picture", taken: "CSV table" }),
        }
    }

    /// A table as the model's inputs; one row is one sample.
    ///
    /// # Errors
    /// When the model takes pictures, or the content is no table, too large, or of other columns.
    pub fn csv(&self, content: &[u8]) -> Result<Vec<Tensor>, StepError> {
        match &self.0 {
            InputKind::Table(table) => table.apply(content),
            InputKind::Image(_) => Err(StepError::NotTaken { given: "CSV table", taken: "picture" }),
        }
    }

    /// How the model sees pictures that come as tensors: their own pixels.
    pub fn frame(&self, inputs: &[Tensor]) -> Option<Frame> {
        match &self.0 {
            InputKind::Image(image) => image.frame(inputs),
            InputKind::Table(_) => None,
        }
    }
}

/// Compiled `postprocessing`.
#[derive(Clone, Debug)]
pub struct Output(OutputKind);

#[derive(Clone, Debug)]
enum OutputKind {
    Classes(Classes),
    Boxes(Boxes),
}

impl Output {
    /// Fits a declaration to a model.
    ///
    /// # Errors
    /// When they don't fit.
    pub fn compile(declared: &Postprocessing, signature: &Signature) -> Result<Output, StepError> {
        let kind = match (&declared.classes, &declared.boxes) {
            (Some(classes), None) => OutputKind::Classes(Classes::compile(classes, signature)?),
            (None, Some(boxes)) => OutputKind::Boxes(Boxes::compile(boxes, signature)?),
            _ => return Err(StepError::declaration("postprocessing", "needs one of `classes` and `boxes`")),
        };
        Ok(Output(kind))
    }

    /// Names classes as the model's file does, where the declaration doesn't; `known` is asked for an output's.
    #[must_use]
    pub fn name_classes<'a>(mut self, known: impl FnOnce(&str) -> Option<&'a [String]>) -> Output {
        if let OutputKind::Classes(classes) = &mut self.0 {
            classes.name(known);
        }
        self
    }

    /// The names of the classes that an output scores; `None` for other outputs, and without names.
    pub fn labels(&self, output: &str) -> Option<&[String]> {
        match &self.0 {
            OutputKind::Classes(classes) if classes.output == output => classes.labels(),
            OutputKind::Classes(_) | OutputKind::Boxes(_) => None,
        }
    }

    /// The model's outputs that [`Output::read`] needs.
    pub fn needs(&self) -> &[String] {
        match &self.0 {
            OutputKind::Classes(classes) => std::slice::from_ref(&classes.output),
            OutputKind::Boxes(boxes) => &boxes.outputs,
        }
    }

    /// Reads a model's outputs. Boxes are in pixels of the frame's picture; without a frame they stay as the model
    /// gives them.
    ///
    /// # Errors
    /// When the outputs are not what is declared.
    pub fn read(&self, outputs: &[Tensor], frame: Option<&Frame>) -> Result<Reading, StepError> {
        match &self.0 {
            OutputKind::Classes(classes) => classes.read(outputs).map(Reading::Classes),
            OutputKind::Boxes(boxes) => boxes.read(outputs, frame).map(Reading::Boxes),
        }
    }

    /// A reading as tensors, named and shaped as [`Output::specs`] says.
    ///
    /// # Errors
    /// When they are larger than memory can be.
    pub fn tensors(&self, reading: &Reading) -> Result<Vec<Tensor>, StepError> {
        reading::tensors(reading, self.landmarks())
    }

    /// The tensors that [`Output::tensors`] makes, for a model's metadata.
    pub fn specs(&self) -> Vec<TensorSpec> {
        reading::specs(matches!(self.0, OutputKind::Boxes(_)), self.landmarks())
    }

    fn landmarks(&self) -> usize {
        match &self.0 {
            OutputKind::Classes(_) => 0,
            OutputKind::Boxes(boxes) => boxes.landmarks(),
        }
    }
}
