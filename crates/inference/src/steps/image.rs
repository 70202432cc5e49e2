//! A picture as a model's input tensor.
//!
//! Resized pixels are within 1 of 255 of Pillow's, and without antialiasing within 2 of OpenCV's.

use std::borrow::Cow;
use std::error::Error;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use half::{bf16, f16};
use types::{Channels, ImageInput, Interpolation, Layout};

use super::StepError;
use super::fit::{Fit, Frame};
use super::picture::Picture;
use crate::{Datatype, Element, Limits, Signature, Tensor, TensorSpec};

/// A declared picture, fitted to a model's input.
#[derive(Clone, Debug)]
pub struct Image {
    declared: ImageInput,
    input: String,
    datatype: Datatype,
    layout: Layout,
    /// Whether the input's first dimension counts samples.
    batched: bool,
    width: usize,
    height: usize,
    /// How each of the input's channels is made of a picture's.
    planes: Vec<Plane>,
}

/// One channel of the input: `value * factor + offset` of a picture's channel.
#[derive(Clone, Copy, Debug)]
struct Plane {
    source: usize,
    factor: f64,
    offset: f64,
}

fn misfit(field: &str, problem: impl Into<String>) -> StepError {
    StepError::declaration(&format!("preprocessing.image{field}"), problem)
}

impl Image {
    pub fn compile(declared: &ImageInput, signature: &Signature) -> Result<Image, StepError> {
        let spec = find_input(declared, signature)?;
        let (batched, dimensions) = dimensions(spec)?;
        let planes = planes(declared, spec.datatype)?;
        let layout = match declared.layout.or_else(|| guess_layout(dimensions, planes.len())) {
            Some(layout) => layout,
            None => return Err(misfit(".layout", format!("is needed: {} leaves it open", shown(spec)))),
        };
        let (channels, height, width) = match (layout, dimensions) {
            (Layout::Nchw, [channels, height, width]) => (channels, height, width),
            (Layout::Nhwc, [height, width, channels]) => (channels, height, width),
        };
        if channels >= 0 && usize::try_from(channels) != Ok(planes.len()) {
            let problem = format!("gives {} channels, but {} takes {channels}", planes.len(), shown(spec));
            return Err(misfit(".channels", problem));
        }
        let width = side(".width", declared.width, width, spec)?;
        let height = side(".height", declared.height, height, spec)?;
        if width.saturating_mul(height).saturating_mul(planes.len()) > Limits::default().elements {
            return Err(misfit(
                ".width",
                format!("makes a picture of {width} x {height}, which is too large"),
            ));
        }
        let (input, datatype) = (spec.name.clone(), spec.datatype);
        Ok(Image { declared: declared.clone(), input, datatype, layout, batched, width, height, planes })
    }

    pub fn apply(&self, content: &[u8]) -> Result<(Vec<Tensor>, Frame), StepError> {
        let picture = Picture::decode(content)?;
        let size = picture.orientation.swap((picture.width, picture.height));
        let fit = Fit::new(&self.declared, size, (self.width, self.height));
        let seen = self.resize(&picture, &fit)?;
        Ok((vec![self.tensor(&seen, &fit)?], fit.frame))
    }

    pub fn frame(&self, inputs: &[Tensor]) -> Option<Frame> {
        let tensor = inputs.iter().find(|tensor| tensor.name() == self.input)?;
        let shape = if self.batched { tensor.shape().get(1..)? } else { tensor.shape() };
        match (self.layout, shape) {
            (Layout::Nchw, &[_, height, width]) | (Layout::Nhwc, &[height, width, _]) => {
                Some(Frame::of(width, height))
            }
            _ => None,
        }
    }

    /// The part of the picture that is seen, upright, at its size in the model.
    fn resize(&self, picture: &Picture, fit: &Fit) -> Result<Pixels, StepError> {
        let (width, height) = picture.orientation.swap((fit.width, fit.height));
        let [left, top, across, down] = fit.frame.seen(picture.orientation.transpose);
        let options = ResizeOptions::new().resize_alg(self.algorithm()).crop(left, top, across, down);
        let resized = match picture.channels {
            1 => resized::<U8>(picture, width, height, &options),
            _ => resized::<U8x3>(picture, width, height, &options),
        };
        let values = resized.map_err(|error| misfit("", format!("can't be done: {error}")))?;
        let values = picture.orientation.apply(values, width, picture.channels);
        let pixels = Pixels { channels: picture.channels, values };
        Ok(if self.declared.channels == Channels::Gray { pixels.into_gray() } else { pixels })
    }

    fn algorithm(&self) -> ResizeAlg {
        let filter = match self.declared.interpolation {
            Interpolation::Nearest => return ResizeAlg::Nearest,
            Interpolation::Bilinear => FilterType::Bilinear,
            Interpolation::Bicubic => FilterType::CatmullRom,
            Interpolation::Lanczos => FilterType::Lanczos3,
        };
        if self.declared.antialias {
            ResizeAlg::Convolution(filter)
        } else {
            ResizeAlg::Interpolation(filter)
        }
    }

    fn tensor(&self, seen: &Pixels, fit: &Fit) -> Result<Tensor, StepError> {
        match self.datatype {
            Datatype::Fp16 => self.fill(seen, fit, f16::from_f64),
            Datatype::Bf16 => self.fill(seen, fit, bf16::from_f64),
            Datatype::Fp64 => self.fill(seen, fit, |value| value),
            Datatype::Uint8 => self.fill(seen, fit, |value| value.round() as u8),
            Datatype::Int8 => self.fill(seen, fit, |value| value.round() as i8),
            _ => self.fill(seen, fit, |value| value as f32),
        }
    }

    fn fill<T: Element>(
        &self,
        seen: &Pixels,
        fit: &Fit,
        convert: impl Fn(f64) -> T,
    ) -> Result<Tensor, StepError> {
        let value = |plane: &Plane, value: f64| convert(value.mul_add(plane.factor, plane.offset));
        let pads: Vec<T> = self.planes.iter().map(|plane| value(plane, self.declared.pad_value)).collect();
        let tables: Vec<(usize, [T; 256])> = self
            .planes
            .iter()
            .map(|plane| {
                (plane.source.min(seen.channels - 1), std::array::from_fn(|at| value(plane, at as f64)))
            })
            .collect();
        let mut data = Vec::with_capacity(self.width * self.height * self.planes.len());
        let rows = || seen.values.chunks_exact(fit.width * seen.channels);
        match self.layout {
            Layout::Nchw => {
                for (pad, (source, table)) in pads.iter().zip(&tables) {
                    self.frame_rows(&mut data, std::slice::from_ref(pad), fit, rows(), |data, row| {
                        let pixels = row.chunks_exact(seen.channels);
                        data.extend(pixels.filter_map(|pixel| look_up(table, pixel.get(*source))));
                    });
                }
            }
            Layout::Nhwc => self.frame_rows(&mut data, &pads, fit, rows(), |data, row| {
                for pixel in row.chunks_exact(seen.channels) {
                    data.extend(
                        tables.iter().filter_map(|(source, table)| look_up(table, pixel.get(*source))),
                    );
                }
            }),
        }
        let size = match self.layout {
            Layout::Nchw => [1, self.planes.len(), self.height, self.width],
            Layout::Nhwc => [1, self.height, self.width, self.planes.len()],
        };
        let shape = if self.batched { size.as_slice() } else { size.get(1..).unwrap_or_default() };
        Ok(Tensor::from_vec(&self.input, shape, data)?)
    }

    /// Writes a picture's rows with what is free around them; `pad` is one free pixel.
    fn frame_rows<'a, T: Element>(
        &self,
        data: &mut Vec<T>,
        pad: &[T],
        fit: &Fit,
        rows: impl Iterator<Item = &'a [u8]>,
        write: impl Fn(&mut Vec<T>, &[u8]),
    ) {
        let free = |data: &mut Vec<T>, count: usize| data.extend(pad.iter().cycle().take(count * pad.len()));
        free(data, fit.top * self.width);
        for row in rows {
            free(data, fit.left);
            write(data, row);
            free(data, self.width.saturating_sub(fit.left + fit.width));
        }
        free(data, self.height.saturating_sub(fit.top + fit.height) * self.width);
    }
}

/// The bytes of a picture at another size. Typed, so that the program holds no code for the pixels that no picture has.
fn resized<P: PixelTrait>(
    picture: &Picture,
    width: usize,
    height: usize,
    options: &ResizeOptions,
) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut values = vec![0; width * height * P::size()];
    let from = TypedImageRef::<P>::from_buffer(picture.width as u32, picture.height as u32, &picture.pixels)?;
    let mut to = TypedImage::<P>::from_buffer(width as u32, height as u32, &mut values)?;
    Resizer::new().resize_typed(&from, &mut to, options)?;
    drop(to);
    Ok(values)
}

fn look_up<T: Copy>(table: &[T; 256], value: Option<&u8>) -> Option<T> {
    table.get(usize::from(*value?)).copied()
}

/// Upright pixels: 1 or 3 bytes each.
struct Pixels {
    channels: usize,
    values: Vec<u8>,
}

impl Pixels {
    /// Luma as ITU-R BT.601 has it, with the rounding of Pillow and OpenCV.
    fn into_gray(self) -> Pixels {
        let luma = |pixel: &[u8]| {
            let &[red, green, blue] = pixel else { return 0 };
            let sum = 19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue) + 0x8000;
            (sum >> 16) as u8
        };
        match self.channels {
            1 => self,
            _ => Pixels { channels: 1, values: self.values.chunks_exact(3).map(luma).collect() },
        }
    }
}

fn find_input<'a>(declared: &ImageInput, signature: &'a Signature) -> Result<&'a TensorSpec, StepError> {
    let names: Vec<String> = signature.inputs.iter().map(|spec| format!("`{}`", spec.name)).collect();
    let spec = match (&declared.input, signature.inputs.as_slice()) {
        (Some(name), _) => signature
            .input(name)
            .ok_or_else(|| misfit(".input", format!("is `{name}`; the model takes {}", names.join(", "))))?,
        (None, [only]) => only,
        (None, _) => {
            return Err(misfit(".input", format!("is needed: the model takes {}", names.join(", "))));
        }
    };
    if signature.inputs.len() > 1 {
        let problem = format!("fills `{}` alone, but the model takes {}", spec.name, names.join(", "));
        return Err(misfit("", problem));
    }
    match spec.datatype {
        Datatype::Fp16
        | Datatype::Bf16
        | Datatype::Fp32
        | Datatype::Fp64
        | Datatype::Uint8
        | Datatype::Int8 => Ok(spec),
        _ => Err(misfit(
            "",
            format!("can't fill {}: pictures become FP16, BF16, FP32, FP64, UINT8 or INT8", shown(spec)),
        )),
    }
}

/// Whether there is a dimension of samples, and the other three.
fn dimensions(spec: &TensorSpec) -> Result<(bool, [i64; 3]), StepError> {
    match spec.shape.as_deref() {
        None => Ok((true, [-1; 3])),
        Some(&[samples, a, b, c]) if samples == 1 || samples < 0 => Ok((true, [a, b, c])),
        Some(&[a, b, c]) => Ok((false, [a, b, c])),
        Some(_) => Err(misfit("", format!("fills one picture, which {} does not take", shown(spec)))),
    }
}

fn guess_layout([first, _, last]: [i64; 3], channels: usize) -> Option<Layout> {
    let fits = |dimension: i64| usize::try_from(dimension) == Ok(channels);
    match (fits(first), fits(last)) {
        (true, false) => Some(Layout::Nchw),
        (false, true) => Some(Layout::Nhwc),
        _ => None,
    }
}

fn side(field: &str, declared: u32, shape: i64, spec: &TensorSpec) -> Result<usize, StepError> {
    let declared = declared as usize;
    match usize::try_from(shape) {
        Ok(0) => Err(misfit(field, format!("can't be 0 as in {}", shown(spec)))),
        Ok(fixed) if declared == 0 || declared == fixed => Ok(fixed),
        Ok(_) => Err(misfit(field, format!("is {declared}, but {} is fixed; leave it out", shown(spec)))),
        Err(_) if declared == 0 => Err(misfit(field, format!("is needed: {} leaves it open", shown(spec)))),
        Err(_) => Ok(declared),
    }
}

fn planes(declared: &ImageInput, datatype: Datatype) -> Result<Vec<Plane>, StepError> {
    let sources: &[usize] = match declared.channels {
        Channels::Rgb => &[0, 1, 2],
        Channels::Bgr => &[2, 1, 0],
        Channels::Gray => &[0],
    };
    let is_integer = matches!(datatype, Datatype::Uint8 | Datatype::Int8);
    let scale = declared.scale.unwrap_or(if is_integer { 1.0 } else { 1.0 / 255.0 });
    let means = each(".mean", &declared.mean, 0.0, sources.len())?;
    let stds = each(".std", &declared.std, 1.0, sources.len())?;
    if let Some(std) = stds.iter().find(|&&std| !(std.is_normal() && std > 0.0)) {
        return Err(misfit(".std", format!("holds {std}; values can't be divided by it")));
    }
    let plane = |((&source, &mean), &std): ((&usize, &f64), &f64)| Plane {
        source,
        factor: scale / std,
        offset: -mean / std,
    };
    Ok(sources.iter().zip(means.iter()).zip(stds.iter()).map(plane).collect())
}

/// One number for each channel: as declared, or the same for all.
fn each<'a>(
    field: &str,
    declared: &'a [f64],
    default: f64,
    channels: usize,
) -> Result<Cow<'a, [f64]>, StepError> {
    match declared {
        [] => Ok(vec![default; channels].into()),
        [one] => Ok(vec![*one; channels].into()),
        all if all.len() == channels => Ok(all.into()),
        all => Err(misfit(field, format!("has {} numbers; give 1 or {channels}", all.len()))),
    }
}

fn shown(spec: &TensorSpec) -> String {
    let shape = spec.shape.as_ref().map_or("any shape".into(), |shape| format!("shape {shape:?}"));
    format!("input `{}` ({}, {shape})", spec.name, spec.datatype)
}
