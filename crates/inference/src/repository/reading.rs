//! Pictures and tables become tensors a few at a time: each takes many times its own size while it is read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::infer::Model;
use crate::stats::Failure;
use crate::steps::{Frame, Input, Plain, StepError};
use crate::{Error, Tensor};

/// Memory is given out in pieces of so many bytes.
const PIECE: u64 = 64 << 10;
/// Most pictures and tables that are read at once, however small they are: others need threads that may block, too.
const AT_ONCE: u32 = 64;
/// How long one waits for memory before it is told to come again.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });

/// The memory in which pictures and tables are read.
pub(super) struct Desk {
    pieces: Arc<Semaphore>,
    all: u32,
}

impl Desk {
    pub fn new(bytes: u64) -> Desk {
        const MOST: u64 = 1 << 24;
        let all = u32::try_from((bytes / PIECE).clamp(1, MOST)).unwrap_or(1);
        Desk { pieces: Arc::new(Semaphore::new(usize::try_from(all).unwrap_or(1))), all }
    }

    /// Waits for so much memory, or for all where it is more than there is; `None` after [`PATIENCE`].
    async fn place(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let least = (self.all / AT_ONCE).max(1);
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).unwrap_or(u32::MAX).clamp(least, self.all);
        let place = Arc::clone(&self.pieces).acquire_many_owned(pieces);
        tokio::time::timeout(PATIENCE, place).await.ok()?.ok()
    }
}

impl Model {
    /// Reads a picture or table as the model's inputs, by its own steps ([`Model::input_steps`]) or others that fit it:
    /// on a thread that may block, and when there is memory for it. Must be awaited inside a tokio runtime.
    ///
    /// # Errors
    /// When it can't be read, or others need the memory for too long.
    pub async fn read(&self, steps: &Input, content: Plain) -> Result<(Vec<Tensor>, Option<Frame>), Error> {
        let asked = Instant::now();
        let (own, measured) = (steps.clone(), content.clone());
        let bytes = aside(self.name(), move || own.memory(&measured)).await?;
        let Some(place) = self.desk().place(bytes).await else {
            self.served().stats.failed(Failure::Rejected, asked.elapsed());
            return Err(Error::Crowded);
        };
        let steps = steps.clone();
        aside(self.name(), move || {
            // Nobody stops a thread: who goes away leaves its memory in use.
            let _place = place;
            steps.read(&content)
        })
        .await
    }
}

/// Decoding and reading take a while: they have threads that may block.
pub(super) async fn aside<T: Send + 'static>(
    model: &str,
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|source| Error::Content { model: model.into(), source }),
        Err(_) => Err(Error::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use types::{CsvInput, ImageInput, Preprocessing, Serving};

    use super::*;
    use crate::{EngineOptions, Engines, LoadRequest, Options, Repository};

    /// A small picture that says of itself that it is large: 7,000 x 7,000 pixels.
    fn large_png() -> Bytes {
        let mut content = Vec::new();
        let mut encoder = png::Encoder::new(&mut content, 7_000, 7_000);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::One);
        encoder.write_header().unwrap().write_image_data(&vec![0; 7_000 * 875]).unwrap();
        assert!(content.len() < 100_000, "{}", content.len());
        content.into()
    }

    fn model(preprocessing: Preprocessing) -> Model {
        let engines =
            Engines::discover(&EngineOptions { onnxruntime: Some("off".into()), ..EngineOptions::default() });
        let options = Options { workers: 1, reading_bytes: 1 << 30, ..Options::default() };
        let repository = Repository::new(engines, options).unwrap();
        let file = if preprocessing.image.is_some() { "convolution" } else { "affine" };
        let serving = Serving { preprocessing: Some(Box::new(preprocessing)), ..Serving::default() };
        let path = format!("tests/data/{file}.onnx");
        repository.load(LoadRequest { serving, ..LoadRequest::new("m", "1", path) }).unwrap();
        repository.get("m", None).unwrap()
    }

    async fn read(model: &Model, content: &Plain) -> Result<Vec<Tensor>, Error> {
        let steps = model.input_steps().unwrap();
        model.read(steps, content.clone()).await.map(|(tensors, _)| tensors)
    }

    /// One is read as long as there is memory, and refused after a while where others have it.
    async fn waits_for_memory(model: &Model, content: &Plain, needed: u64) {
        let left = model.desk().all - u32::try_from(needed / PIECE).unwrap();
        let others = Arc::clone(&model.desk().pieces).acquire_many_owned(left).await.unwrap();
        read(model, content).await.unwrap();
        let one_more = Arc::clone(&model.desk().pieces).acquire_many_owned(1).await.unwrap();
        let refused = read(model, content).await.unwrap_err();
        assert!(matches!(refused, Error::Crowded), "{refused}");
        assert_eq!(model.stats().failures.rejected, 1);
        drop(one_more);
        read(model, content).await.unwrap();
        drop(others);
    }

    #[tokio::test]
    async fn a_small_picture_of_many_pixels_waits_for_the_memory_that_it_takes() {
        let image = Some(ImageInput::default());
        let model = model(Preprocessing { image, csv: None });
        waits_for_memory(&model, &Plain::Picture(large_png()), (49_000_000_u64 * 9).next_multiple_of(PIECE))
            .await;
    }

    #[tokio::test]
    async fn a_table_waits_for_memory_too() {
        let model = model(Preprocessing { csv: Some(CsvInput::default()), image: None });
        let rows = "1,2,3,4\n".repeat(400_000);
        let needed = (rows.len() as u64 * 8).next_multiple_of(PIECE);
        waits_for_memory(&model, &Plain::Table(rows.into()), needed).await;
    }

    #[tokio::test]
    async fn what_takes_more_than_there_is_is_read_alone() {
        let desk = Desk::new(10 * PIECE);
        let all = desk.place(u64::MAX).await.unwrap();
        assert!(desk.place(0).await.is_none(), "even the smallest takes a piece");
        drop(all);
        let _one = desk.place(0).await.unwrap();
        assert!(desk.place(9 * PIECE).await.is_some());
        assert!(desk.place(10 * PIECE).await.is_none());
    }
}
