//! How far the inputs of late are from those that the model was made for.
//!
//! Each feature's values are counted in ten bins between the deciles of a baseline. Two figures compare the counts:
//! the population stability index (PSI: the symmetric Kullback-Leibler divergence of the bins; the usual reading is
//! below 0.1 stable, above 0.25 shifted) and the Kolmogorov-Smirnov statistic (KS: the largest difference of the
//! cumulated shares, at the bins' edges). The first requests make the baseline, which stays when a version is unloaded and
//! loaded again.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use types::DigestWriter;

use crate::kept::Kept;
use crate::{Datatype, Element, LoadRequest, Tensor};

/// Features of one input that are told apart; an input with more is one feature as a whole.
const MAX_FEATURES: usize = 64;
/// Values of one tensor that are looked at.
const MAX_VALUES: usize = 4096;
const BINS: usize = 10;
/// Versions whose figures go on when they are loaded again.
const MAX_KNOWN: usize = 1024;
/// A share of nothing would make the index infinite.
const FLOOR: f64 = 1e-4;

/// The drift of one feature.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureDrift {
    /// Name of the input.
    pub input: String,
    /// Place in the last dimension; `None` where the input is looked at as a whole.
    pub feature: Option<usize>,
    /// Population stability index; `None` until the window is full.
    pub psi: Option<f64>,
    /// Kolmogorov-Smirnov statistic, 0 to 1; `None` until the window is full.
    pub ks: Option<f64>,
    /// Share of the window's values that are NaN, 0 to 1.
    pub missing: f64,
}

/// What each version saw, loaded or not; those that were loaded longest ago are forgotten first. What inputs are
/// compared with outlives the process.
#[derive(Default)]
pub(crate) struct Drifts {
    known: Mutex<VecDeque<Known>>,
    kept: Arc<Kept>,
}

struct Known {
    name: String,
    version: String,
    /// Another file is another model.
    path: PathBuf,
    drift: Arc<Mutex<Drift>>,
}

impl Drifts {
    pub fn keeping(kept: Arc<Kept>) -> Drifts {
        Drifts { known: Mutex::default(), kept }
    }

    /// What a version that is loaded goes on with; `None` where its inputs aren't watched.
    pub fn of(&self, request: &LoadRequest) -> Option<Arc<Mutex<Drift>>> {
        let settings = request.serving.drift.as_ref()?;
        let LoadRequest { name, version, path, .. } = request;
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.iter().position(|known| known.name == *name && known.version == *version);
        let before = at.and_then(|at| all.remove(at)).filter(|known| {
            let drift = known.drift.lock().unwrap_or_else(PoisonError::into_inner);
            known.path == *path && drift.settings == *settings
        });
        let new = || {
            let note =
                Note { kept: Arc::clone(&self.kept), key: format!("{name}/{version}"), file: content(path) };
            Arc::new(Mutex::new(Drift::recalled(settings.clone(), note)))
        };
        let drift = before.map_or_else(new, |known| known.drift);
        if all.len() >= MAX_KNOWN {
            all.pop_front();
        }
        let (name, version, path) = (name.clone(), version.clone(), path.clone());
        all.push_back(Known { name, version, path, drift: Arc::clone(&drift) });
        Some(drift)
    }
}

/// The inputs of one model.
pub(crate) struct Drift {
    settings: types::Drift,
    features: Vec<(String, Option<usize>, Feature)>,
    /// Features whose baseline was written down.
    noted: usize,
    note: Option<Note>,
}

const TABLE: &str = "drift-baselines";
/// Of the records; others are passed over.
const FORMAT: u32 = 1;

/// Where baselines are written down.
struct Note {
    kept: Arc<Kept>,
    key: String,
    file: String,
}

/// The baselines of a version; numbers as their bits, since some are infinite.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    /// What the model was, by its content: its path may be another one each time.
    file: String,
    settings: types::Drift,
    features: Vec<Learnt>,
}

#[derive(Serialize, Deserialize)]
struct Learnt {
    input: String,
    place: Option<usize>,
    edges: Vec<u64>,
    shares: [u64; BINS],
}

impl Drift {
    #[cfg(test)]
    pub fn new(settings: types::Drift) -> Drift {
        Drift { settings, features: Vec::new(), noted: 0, note: None }
    }

    /// Goes on with the baselines that another process learnt from the same file with the same settings.
    fn recalled(settings: types::Drift, note: Note) -> Drift {
        let known = note.kept.get::<Record>(TABLE, &note.key);
        let same =
            |known: &Record| known.format == FORMAT && known.file == note.file && known.settings == settings;
        let learnt = known.filter(same).map(|known| known.features).unwrap_or_default();
        let features: Vec<_> = learnt.into_iter().map(Learnt::feature).collect();
        Drift { settings, noted: features.len(), features, note: Some(note) }
    }

    /// Writes down what was learnt since the last time.
    fn note(&mut self) {
        let Some(Note { kept, key, file }) = &self.note else { return };
        let learnt = self.features.iter().filter_map(|(input, place, feature)| {
            feature.baseline.as_ref().map(|baseline| Learnt::of(input, *place, baseline))
        });
        let features: Vec<Learnt> = learnt.collect();
        self.noted = features.len();
        let (file, settings) = (file.clone(), self.settings.clone());
        kept.put(TABLE, key.clone(), &Record { format: FORMAT, file, settings, features });
    }

    /// Looks at one request's numeric inputs.
    pub fn observe(&mut self, inputs: &[Tensor]) {
        for tensor in inputs {
            let Some(values) = numbers(tensor) else { continue };
            let width = tensor.shape().last().copied().unwrap_or(1);
            if width == 0 || tensor.count() == 0 {
                continue;
            }
            let apart = tensor.shape().len() == 2 && width <= MAX_FEATURES;
            for (index, value) in values.into_iter().enumerate() {
                let place = apart.then_some(index % width);
                let settings = self.settings.clone();
                if let Some(feature) = self.feature(tensor.name(), place) {
                    feature.observe(value, &settings);
                }
            }
        }
        let learnt = self.features.iter().filter(|(_, _, feature)| feature.baseline.is_some()).count();
        if learnt > self.noted {
            self.note();
        }
    }

    pub fn report(&self) -> Vec<FeatureDrift> {
        let line = |(input, feature, state): &(String, Option<usize>, Feature)| {
            let (psi, ks) = state.compare(size(self.settings.window_values)).unzip();
            FeatureDrift { input: input.clone(), feature: *feature, psi, ks, missing: state.missing() }
        };
        self.features.iter().map(line).collect()
    }

    fn feature(&mut self, input: &str, place: Option<usize>) -> Option<&mut Feature> {
        let known = self.features.iter().position(|(name, at, _)| name == input && *at == place);
        let index = known.unwrap_or_else(|| {
            self.features.push((input.to_owned(), place, Feature::default()));
            self.features.len() - 1
        });
        self.features.get_mut(index).map(|(_, _, feature)| feature)
    }
}

impl Learnt {
    fn of(input: &str, place: Option<usize>, Baseline { edges, shares }: &Baseline) -> Learnt {
        let edges = edges.iter().map(|edge| edge.to_bits()).collect();
        Learnt { input: input.to_owned(), place, edges, shares: shares.map(f64::to_bits) }
    }

    fn feature(self) -> (String, Option<usize>, Feature) {
        let edges = self.edges.into_iter().map(f64::from_bits).collect();
        let baseline = Some(Baseline { edges, shares: self.shares.map(f64::from_bits) });
        (self.input, self.place, Feature { baseline, ..Feature::default() })
    }
}

#[derive(Default)]
struct Feature {
    /// Values that the baseline is made of, until there are enough.
    first: Vec<f64>,
    baseline: Option<Baseline>,
    /// Bins of the last values, oldest first; `None` is NaN.
    window: VecDeque<Option<u8>>,
    counts: [usize; BINS],
}

struct Baseline {
    /// Upper edges of all bins but the last, ascending.
    edges: Vec<f64>,
    /// Share of the baseline in each bin: tied values make bins of other sizes than a tenth.
    shares: [f64; BINS],
}

impl Feature {
    fn observe(&mut self, value: f64, settings: &types::Drift) {
        let Some(baseline) = &self.baseline else {
            if !value.is_nan() {
                self.first.push(value);
            }
            if self.first.len() >= size(settings.baseline_values).max(BINS) {
                self.baseline = Some(Baseline::of(std::mem::take(&mut self.first)));
            }
            return;
        };
        let bin = (!value.is_nan()).then(|| baseline.bin(value));
        self.window.push_back(bin.and_then(|bin| u8::try_from(bin).ok()));
        count(&mut self.counts, bin, |count| count + 1);
        while self.window.len() > size(settings.window_values).max(1) {
            let oldest = self.window.pop_front().flatten().map(usize::from);
            count(&mut self.counts, oldest, |count| count.saturating_sub(1));
        }
    }

    /// PSI and KS once the window is full.
    fn compare(&self, window: usize) -> Option<(f64, f64)> {
        let baseline = self.baseline.as_ref().filter(|_| self.window.len() >= window.max(1))?;
        let total: usize = self.counts.iter().sum();
        if total == 0 {
            return None;
        }
        let (mut psi, mut ks, mut expected_sum, mut actual_sum) = (0.0, 0.0_f64, 0.0, 0.0);
        for (&expected, &count) in baseline.shares.iter().zip(&self.counts) {
            let actual = share(count, total);
            expected_sum += expected;
            actual_sum += actual;
            ks = ks.max((expected_sum - actual_sum).abs());
            let (expected, actual) = (expected.max(FLOOR), actual.max(FLOOR));
            psi += (actual - expected) * (actual / expected).ln();
        }
        Some((psi, ks))
    }

    fn missing(&self) -> f64 {
        let missing = self.window.iter().filter(|bin| bin.is_none()).count();
        share(missing, self.window.len().max(1))
    }
}

impl Baseline {
    fn of(mut values: Vec<f64>) -> Baseline {
        values.sort_by(f64::total_cmp);
        let last = values.len().saturating_sub(1);
        let edges = (1..BINS).filter_map(|tenth| values.get(last * tenth / BINS).copied()).collect();
        let mut baseline = Baseline { edges, shares: [0.0; BINS] };
        let mut counts = [0; BINS];
        for &value in &values {
            count(&mut counts, Some(baseline.bin(value)), |count| count + 1);
        }
        baseline.shares = counts.map(|count| share(count, values.len()));
        baseline
    }

    fn bin(&self, value: f64) -> usize {
        self.edges.partition_point(|&edge| edge < value)
    }
}

/// The digest of a file; of a folder where it is and when it was changed.
fn content(path: &Path) -> String {
    let mut digest = DigestWriter::default();
    let read = File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut digest));
    if read.is_err() {
        let changed = path.metadata().and_then(|folder| folder.modified());
        digest.update(format!("{:?} {:?}", path.canonicalize().ok(), changed.ok()).as_bytes());
    }
    digest.digest().hex()
}

fn size(values: u32) -> usize {
    usize::try_from(values).unwrap_or(usize::MAX)
}

fn count(counts: &mut [usize; BINS], bin: Option<usize>, change: impl Fn(usize) -> usize) {
    if let Some(count) = bin.and_then(|bin| counts.get_mut(bin)) {
        *count = change(*count);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn share(count: usize, total: usize) -> f64 {
    count as f64 / total as f64
}

/// The values of a numeric tensor, from its beginning, or spread evenly over it where there are many.
fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    fn read<T: Element + Copy>(tensor: &Tensor, number: impl Fn(T) -> f64) -> Option<Vec<f64>> {
        let elements = tensor.elements::<T>().ok()?;
        // A step that keeps rows whole where features are told apart.
        let width = tensor.shape().last().copied().unwrap_or(1).clamp(1, MAX_FEATURES);
        let rows = elements.chunks(width);
        let step = rows.len().div_ceil((MAX_VALUES / width).max(1)).max(1);
        Some(rows.step_by(step).flatten().map(|&element| number(element)).collect())
    }
    match tensor.datatype() {
        Datatype::Fp32 => read::<f32>(tensor, f64::from),
        Datatype::Fp64 => read::<f64>(tensor, |value| value),
        Datatype::Fp16 => read::<f16>(tensor, f64::from),
        Datatype::Bf16 => read::<bf16>(tensor, f64::from),
        Datatype::Int8 => read::<i8>(tensor, f64::from),
        Datatype::Int16 => read::<i16>(tensor, f64::from),
        Datatype::Int32 => read::<i32>(tensor, f64::from),
        Datatype::Uint8 => read::<u8>(tensor, f64::from),
        Datatype::Uint16 => read::<u16>(tensor, f64::from),
        Datatype::Uint32 => read::<u32>(tensor, f64::from),
        Datatype::Bool => read::<bool>(tensor, f64::from),
        #[expect(clippy::cast_precision_loss, reason = "the distribution is looked at, not the value")]
        Datatype::Int64 => read::<i64>(tensor, |value| value as f64),
        #[expect(clippy::cast_precision_loss, reason = "the distribution is looked at, not the value")]
        Datatype::Uint64 => read::<u64>(tensor, |value| value as f64),
        Datatype::Bytes => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_vec("x", [1, values.len()], values.to_vec()).unwrap()
    }

    /// Evenly spread over 0 to 1, in an order without a pattern.
    fn spread(n: u32) -> f32 {
        (n.wrapping_mul(2_654_435_769) >> 8) as f32 / (1 << 24) as f32
    }

    fn observed(late: impl Fn(f32) -> f32) -> Vec<FeatureDrift> {
        let mut drift = Drift::new(types::Drift { baseline_values: 1000, window_values: 500 });
        for n in 0..1000 {
            drift.observe(&[row(&[spread(n), 1.0])]);
        }
        for n in 1000..1600 {
            drift.observe(&[row(&[late(spread(n)), 1.0])]);
        }
        drift.report()
    }

    #[test]
    fn the_same_distribution_is_stable() {
        let report = observed(|value| value);
        assert_eq!(report.len(), 2);
        let (psi, ks) = (report[0].psi.unwrap(), report[0].ks.unwrap());
        assert!(psi < 0.05 && ks < 0.1, "{psi} {ks}");
        assert_eq!((report[1].psi, report[1].ks), (Some(0.0), Some(0.0)), "a constant stays what it was");
    }

    #[test]
    fn a_shift_shows_in_both_figures_and_only_in_its_feature() {
        let report = observed(|value| value / 2.0 + 0.5);
        let (psi, ks) = (report[0].psi.unwrap(), report[0].ks.unwrap());
        // Half of the bins are empty, the others have twice their share.
        assert!((ks - 0.5).abs() < 0.05, "{ks}");
        assert!(psi > 1.0, "{psi}");
        assert_eq!(report[1].psi, Some(0.0));
    }

    #[test]
    fn figures_are_those_of_the_definition() {
        let mut drift = Drift::new(types::Drift { baseline_values: 11, window_values: 4 });
        for value in 0..=10_u8 {
            drift.observe(&[row(&[value.into()])]);
        }
        for value in [0.5, 0.5, 1.5, f32::NAN] {
            drift.observe(&[row(&[value])]);
        }
        let report = drift.report().remove(0);
        let share = |actual: f64, expected: f64| (actual - expected) * (actual / expected).ln();
        // The first bin holds two of the baseline's eleven values, 0 and 1, the others one each.
        let one = 1.0 / 11.0;
        let expected = share(2.0 / 3.0, 2.0 * one) + share(1.0 / 3.0, one) + 8.0 * share(FLOOR, one);
        assert!((report.psi.unwrap() - expected).abs() < 1e-9);
        assert!((report.ks.unwrap() - (1.0 - 3.0 * one)).abs() < 1e-9);
        assert!((report.missing - 0.25).abs() < 1e-9);
    }

    #[test]
    fn values_of_every_numeric_type_are_looked_at() {
        fn seen<T: Element>(low: T, high: T) -> Option<f64> {
            let mut drift = Drift::new(types::Drift { baseline_values: 10, window_values: 10 });
            for value in [vec![low; 10], vec![high; 10]] {
                drift.observe(&[Tensor::from_vec("x", [10, 1], value).unwrap()]);
            }
            drift.report().first()?.ks
        }
        let half = |value: f32| (f16::from_f32(value), bf16::from_f32(value));
        let ((low, brain_low), (high, brain_high)) = (half(0.5), half(2.5));
        let all = [
            seen(false, true),
            seen(1_u8, 200),
            seen(1_u16, 60_000),
            seen(1_u32, u32::MAX),
            seen(1_u64, u64::MAX),
            seen(-100_i8, 100),
            seen(-1_i16, 1),
            seen(i32::MIN, i32::MAX),
            seen(i64::MIN, i64::MAX),
            seen(low, high),
            seen(brain_low, brain_high),
            seen(0.5_f32, 2.5),
            seen(0.5_f64, 2.5),
        ];
        assert_eq!(all, [Some(1.0); 13]);
    }

    #[test]
    fn a_version_that_is_loaded_again_goes_on_and_another_file_begins_anew() {
        let request = |version: &str, path: &str, window_values| {
            let mut request = LoadRequest::new("m", version, path);
            request.serving.drift = Some(types::Drift { baseline_values: 10, window_values });
            request
        };
        let drifts = Drifts::default();
        let first = drifts.of(&request("1", "a", 10)).unwrap();
        let other = drifts.of(&request("2", "a", 10)).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        assert!(Arc::ptr_eq(&first, &drifts.of(&request("1", "a", 10)).unwrap()));
        let replaced = drifts.of(&request("1", "b", 10)).unwrap();
        assert!(!Arc::ptr_eq(&first, &replaced));
        assert!(!Arc::ptr_eq(&replaced, &drifts.of(&request("1", "b", 20)).unwrap()), "other settings");
        assert!(drifts.of(&LoadRequest::new("m", "1", "a")).is_none());
        for number in 0..MAX_KNOWN {
            drifts.of(&request(&format!("v{number}"), "a", 10));
        }
        assert_eq!(drifts.known.lock().unwrap().len(), MAX_KNOWN);
        assert!(!Arc::ptr_eq(&other, &drifts.of(&request("2", "a", 10)).unwrap()), "it is long ago");
    }

    #[test]
    fn a_baseline_outlives_the_process_and_what_is_compared_with_it_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let ledger = store::Ledger::open(&folder.path().join("l.db")).unwrap();
            Drifts::keeping(Arc::new(Kept::start(Some(ledger)).unwrap()))
        };
        let request = |path: &str, window_values| {
            let mut request = LoadRequest::new("m", "1", path);
            request.serving.drift = Some(types::Drift { baseline_values: 10, window_values });
            request
        };
        let see = |drifts: &Drifts, name: &str, window, values: [f32; 10]| {
            let path = folder.path().join(name);
            std::fs::write(&path, name).unwrap();
            let drift = drifts.of(&request(path.to_str().unwrap(), window)).unwrap();
            let mut drift = drift.lock().unwrap();
            drift.observe(&[Tensor::from_vec("x", [10, 1], values.to_vec()).unwrap()]);
            drift.report().remove(0).ks
        };
        let (low, high) = ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, f32::INFINITY, -1.0], [5.0; 10]);
        let before = start();
        assert_eq!(see(&before, "a", 10, low), None);
        let expected = see(&before, "a", 10, high);
        assert!(expected.unwrap() > 0.8);
        drop(before);
        let after = start();
        assert_eq!(see(&after, "a", 10, high), expected, "the baseline is what it was");
        drop(after);
        assert_eq!(see(&start(), "b", 10, high), None, "another file");
        // That one was learnt last.
        assert_eq!(see(&start(), "b", 10, high), Some(0.0));
        assert_eq!(see(&start(), "b", 20, high), None, "other settings");
    }

    #[test]
    fn wide_inputs_are_one_feature_and_words_are_none() {
        let mut drift = Drift::new(types::Drift { baseline_values: 10, window_values: 10 });
        let wide = Tensor::from_vec("image", [1, 3, 100, 100], vec![7_u8; 30_000]).unwrap();
        let words = Tensor::from_strings("words", [1], ["a"]).unwrap();
        drift.observe(&[wide, words]);
        let report = drift.report();
        assert_eq!(report.len(), 1);
        assert_eq!((report[0].input.as_str(), report[0].feature), ("image", None));
    }
}
