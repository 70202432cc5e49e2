//! JPEG, PNG and WebP bytes to pixels, within bounds.
//!
//! Three decoders and a resizer, each small and under MIT or Apache-2.0, are ten crates; the crate `image` would bring
//! a colour engine, too, and still need a resizer with SIMD.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image_webp::WebPDecoder;
use png::{ColorType, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::StepError;
use super::error::bound;
use super::limits;
use super::orientation::Orientation;
use crate::engine::panic_text;

/// A decoded picture as it is stored: rows from the top, 8 bits a channel.
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// 1 is luma, 3 is RGB.
    pub channels: usize,
    pub pixels: Vec<u8>,
    /// How it is to be turned before people see it.
    pub orientation: Orientation,
}

/// Scans of a progressive JPEG: ten are usual, and each costs the time of the whole picture.
const MAX_SCANS: usize = 32;
/// Beside its pixels, what a PNG or WebP decoder may keep.
const MAX_WORK: usize = 64 << 20;

impl Picture {
    /// Decodes what the first bytes say it is. Alpha is left out, of animations all but the first picture.
    ///
    /// # Errors
    /// When it is no picture, damaged or too large.
    pub fn decode(content: &[u8]) -> Result<Picture, StepError> {
        let format = Format::of(content)?;
        format.caught(|| (format.decode)(content))
    }

    /// How many pixels it will have, by its header.
    ///
    /// # Errors
    /// When it is no picture, its header is damaged, or it is too large.
    pub fn pixels(content: &[u8]) -> Result<usize, StepError> {
        let format = Format::of(content)?;
        format.caught(|| (format.size)(content)).map(|(width, height)| width * height)
    }

    fn new(size: Size, channels: usize, pixels: Vec<u8>, exif: Option<&[u8]>) -> Result<Picture, Failure> {
        let (width, height) = size;
        if width == 0 || height == 0 || pixels.len() != width * height * channels {
            return Err(Failure::Damaged(format!("{} bytes for {width} x {height} pixels", pixels.len())));
        }
        let orientation = exif.map(Orientation::read).unwrap_or_default();
        Ok(Picture { width, height, channels, pixels, orientation })
    }
}

/// Width and height.
type Size = (usize, usize);
/// A decoder that has read the header, and the size, which is within bounds.
type Opened<D> = Result<(D, Size), Failure>;

struct Format {
    name: &'static str,
    size: fn(&[u8]) -> Result<Size, Failure>,
    decode: fn(&[u8]) -> Result<Picture, Failure>,
}

impl Format {
    fn of(content: &[u8]) -> Result<Format, StepError> {
        bound("bytes of a picture", content.len(), limits::BYTES)?;
        Ok(match content {
            [0xff, 0xd8, 0xff, ..] => {
                Format { name: "JPEG", size: |content| Ok(open_jpeg(content)?.1), decode: jpeg }
            }
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => {
                Format { name: "PNG", size: |content| Ok(open_png(content)?.1), decode: png }
            }
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
                Format { name: "WebP", size: |content| Ok(open_webp(content)?.1), decode: webp }
            }
            _ => return Err(StepError::UnknownFormat),
        })
    }

    /// The decoders are not ours: one that panics has refused this picture, no more.
    fn caught<T>(&self, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, StepError> {
        let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            Err(Failure::Damaged(format!("its decoder panicked: {}", panic_text(&*panic))))
        });
        done.map_err(|failure| match failure {
            Failure::Step(error) => error,
            Failure::Damaged(reason) => StepError::Picture { format: self.name, reason },
        })
    }
}

enum Failure {
    Damaged(String),
    Step(StepError),
}

impl From<StepError> for Failure {
    fn from(error: StepError) -> Self {
        Failure::Step(error)
    }
}

fn damaged(error: impl std::fmt::Display) -> Failure {
    Failure::Damaged(error.to_string())
}

fn check_size(width: usize, height: usize) -> Result<(), StepError> {
    bound("pixels", width.saturating_mul(height), limits::PIXELS)
}

fn jpeg_options() -> DecoderOptions {
    DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .set_strict_mode(true)
        .jpeg_set_max_scans(MAX_SCANS)
}

fn open_jpeg(content: &[u8]) -> Opened<JpegDecoder<ZCursor<&[u8]>>> {
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(content), jpeg_options());
    decoder.decode_headers().map_err(damaged)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| damaged("it has no size"))?;
    check_size(width, height)?;
    Ok((decoder, (width, height)))
}

fn jpeg(content: &[u8]) -> Result<Picture, Failure> {
    let (mut decoder, size) = open_jpeg(content)?;
    let is_gray = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let (colours, channels) = if is_gray { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    decoder.set_options(jpeg_options().jpeg_set_out_colorspace(colours));
    let pixels = decoder.decode().map_err(damaged)?;
    Picture::new(size, channels, pixels, decoder.exif().map(Vec::as_slice))
}

fn open_png(content: &[u8]) -> Opened<png::Reader<Cursor<&[u8]>>> {
    let limits = png::Limits { bytes: MAX_WORK };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(content), limits);
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let reader = decoder.read_info().map_err(damaged)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_size(width, height)?;
    Ok((reader, (width, height)))
}

fn png(content: &[u8]) -> Result<Picture, Failure> {
    let (mut reader, picture) = open_png(content)?;
    let size = reader.output_buffer_size().ok_or_else(|| damaged("it has no size"))?;
    let mut pixels = vec![0; size];
    reader.next_frame(&mut pixels).map_err(damaged)?;
    let (pixels, channels) = match reader.output_color_type().0 {
        ColorType::Grayscale => (pixels, 1),
        ColorType::GrayscaleAlpha => (without_last(pixels, 2), 1),
        ColorType::Rgb | ColorType::Indexed => (pixels, 3),
        ColorType::Rgba => (without_last(pixels, 4), 3),
    };
    Picture::new(picture, channels, pixels, reader.info().exif_metadata.as_deref())
}

fn open_webp(content: &[u8]) -> Opened<WebPDecoder<Cursor<&[u8]>>> {
    let mut decoder = WebPDecoder::new(Cursor::new(content)).map_err(damaged)?;
    decoder.set_memory_limit(MAX_WORK);
    let (width, height) = decoder.dimensions();
    let (width, height) = (width as usize, height as usize);
    check_size(width, height)?;
    Ok((decoder, (width, height)))
}

fn webp(content: &[u8]) -> Result<Picture, Failure> {
    let (mut decoder, picture) = open_webp(content)?;
    let size = decoder.output_buffer_size().ok_or_else(|| damaged("it has no size"))?;
    let mut pixels = vec![0; size];
    decoder.read_image(&mut pixels).map_err(damaged)?;
    let pixels = if decoder.has_alpha() { without_last(pixels, 4) } else { pixels };
    let exif = decoder.exif_metadata().ok().flatten();
    Picture::new(picture, 3, pixels, exif.as_deref())
}

/// Drops the last channel of each pixel, which is alpha.
fn without_last(pixels: Vec<u8>, channels: usize) -> Vec<u8> {
    pixels
        .chunks_exact(channels)
        .filter_map(|pixel| pixel.split_last())
        .flat_map(|(_, colours)| colours)
        .copied()
        .collect()
}
