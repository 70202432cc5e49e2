//! Who takes work that a busy site offers. Each site that is asked judges by itself ([`judge`]): from what it has free,
//! how long the function took there before, and how far its own way to the hub is. The one that asked takes the earliest
//! end, transfers included, if that beats its own by a margin ([`choose`]). All times are spans of seconds from now, so no
//! two sites have to agree on a clock.

use serde::{Deserialize, Serialize};

/// How wide a way is taken to be that nobody measured, in bytes per second.
const UNMEASURED: f64 = 1e6;
/// How long a function is taken to run that nobody measured, in seconds.
const UNKNOWN_SERVICE: f64 = 1.0;
/// How much the last run counts beside those before.
const WEIGHT: f64 = 0.3;
/// After how many runs a measurement is worth half of a certain one.
const HALF_SURE: f64 = 3.0;
/// Another site must be faster by so many seconds at least, however small the margin is.
const LEAST_GAIN: f64 = 0.05;

/// How fast runs of one function ended at one site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// Moving average of what a run took, in seconds.
    pub service_seconds: f64,
    /// Moving average of what a run made, in bytes.
    pub output_bytes: f64,
    /// How many runs were measured.
    pub count: u64,
}

impl Rate {
    /// Adds a run.
    pub fn add(&mut self, seconds: f64, output_bytes: f64) {
        let weight = if self.count == 0 { 1.0 } else { WEIGHT };
        self.service_seconds += weight * (seconds - self.service_seconds);
        self.output_bytes += weight * (output_bytes - self.output_bytes);
        self.count = self.count.saturating_add(1);
    }

    /// How much the measurement is worth: 0 for nothing, towards 1 with many runs.
    pub fn confidence(&self) -> f64 {
        self.count as f64 / (self.count as f64 + HALF_SURE)
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Size of the input.
    pub input_bytes: u64,
    /// Probable size of the outputs.
    pub output_bytes: u64,
    /// Memory that a run may allocate, in bytes.
    pub memory_bytes: u64,
    /// How long a run takes where it comes from, in seconds, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_seconds: Option<f64>,
    /// Within how many seconds from now it is to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within_seconds: Option<f64>,
}

/// A way to the hub and back.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Way {
    /// Round trip, in seconds.
    pub round_trip_seconds: f64,
    /// How wide it is; `None` where nobody measured.
    pub bytes_per_second: Option<f64>,
}

impl Way {
    /// The way of the site that is beside the hub.
    pub fn none() -> Self {
        Self { round_trip_seconds: 0.0, bytes_per_second: Some(f64::INFINITY) }
    }

    /// How long so much takes, in seconds.
    pub fn seconds_for(&self, bytes: u64) -> f64 {
        let width = self.bytes_per_second.filter(|width| *width > 0.0).unwrap_or(UNMEASURED);
        self.round_trip_seconds + bytes as f64 / width
    }
}

/// What a site that is asked knows of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Situation {
    /// Runs of the function that may be under way at once.
    pub places: u32,
    /// How many of them are free.
    pub free: u32,
    /// Runs for others that were taken or promised and are not under way.
    pub promised: u32,
    /// Whether its own work waits.
    pub is_busy: bool,
    /// Memory that can be allocated now, in bytes.
    pub free_memory_bytes: u64,
    /// How fast the function was here.
    pub rate: Option<Rate>,
    /// How much of the function's code would have to be fetched first, in bytes.
    pub missing_bytes: u64,
}

/// What a site offers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// When the outputs would be at the hub, in seconds from when the input is there.
    pub finish_seconds: f64,
    /// How much the site's own measurements are behind it, from 0 to 1.
    pub confidence: f64,
}

/// Why a site does not take it: a word for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Refusal {
    /// Its operator wants no work of others there.
    Unwilling,
    /// It has not what the function needs: a runtime, the architecture, a model, a signature.
    Unfit,
    /// Its own work waits.
    Busy,
    /// Its places are taken or promised.
    Full,
    /// It lacks memory.
    Memory,
    /// It can't be done in time.
    TooLate,
    /// It did not answer in time.
    Silent,
}

impl Refusal {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unwilling => "Unwilling",
            Self::Unfit => "Unfit",
            Self::Busy => "Busy",
            Self::Full => "Full",
            Self::Memory => "Memory",
            Self::TooLate => "TooLate",
            Self::Silent => "Silent",
        }
    }
}

/// Whether a site takes what it is asked for, and when it would be done.
///
/// # Errors
/// Why not.
pub fn judge(request: &Request, here: &Situation, way: &Way) -> Result<Offer, Refusal> {
    if here.is_busy {
        return Err(Refusal::Busy);
    }
    // As many may wait as can run, so that who fetches its input leaves no place empty.
    if here.places == 0 || here.promised >= here.free.saturating_add(here.places) {
        return Err(Refusal::Full);
    }
    if request.memory_bytes > here.free_memory_bytes {
        return Err(Refusal::Memory);
    }
    let service = here.rate.map(|rate| rate.service_seconds).or(request.service_seconds);
    let service = service.filter(|seconds| seconds.is_finite() && *seconds >= 0.0).unwrap_or(UNKNOWN_SERVICE);
    let ahead = u32::saturating_sub(here.promised.saturating_add(1), here.free);
    let wait = f64::from(ahead) * service / f64::from(here.places);
    let fetch = if here.missing_bytes > 0 { way.seconds_for(here.missing_bytes) } else { 0.0 };
    let finish_seconds =
        way.seconds_for(request.input_bytes) + fetch + wait + service + way.seconds_for(request.output_bytes);
    if request.within_seconds.is_some_and(|within| finish_seconds > within) {
        return Err(Refusal::TooLate);
    }
    Ok(Offer { finish_seconds, confidence: here.rate.map_or(0.0, |rate| rate.confidence()) })
}

/// What a site that asks knows of its own queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Queue {
    /// Runs of the function that may be under way at once.
    pub places: u32,
    /// How many are.
    pub running: u32,
    /// How many wait before the one in question.
    pub ahead: u32,
    /// How fast the function was here.
    pub rate: Option<Rate>,
}

impl Queue {
    /// When the one in question would be done here, in seconds from now. What runs is taken to be half done.
    pub fn finish_seconds(&self) -> f64 {
        let service = self.rate.map_or(UNKNOWN_SERVICE, |rate| rate.service_seconds);
        let before = f64::from(self.ahead) + f64::from(self.running) / 2.0;
        let wait = if self.running < self.places && self.ahead == 0 { 0.0 } else { before * service };
        wait / f64::from(self.places.max(1)) + service
    }
}

/// The best of several offers, by its index, and when the outputs would be back, in seconds; `None` if nobody beats
/// the site's own end by the margin. `way` is that of the site that asks.
pub fn choose(
    own_seconds: f64,
    request: &Request,
    way: &Way,
    offers: &[Offer],
    margin_percent: u32,
) -> Option<(usize, f64)> {
    let transfers = way.seconds_for(request.input_bytes) + way.seconds_for(request.output_bytes);
    let told = offers.iter().enumerate().filter(|(_, offer)| offer.finish_seconds.is_finite());
    let ends =
        told.map(|(index, offer)| (index, offer.finish_seconds.max(0.0) + transfers, offer.confidence));
    let best = ends.min_by(|one, other| {
        one.1.total_cmp(&other.1).then_with(|| other.2.total_cmp(&one.2)).then_with(|| one.0.cmp(&other.0))
    });
    let (index, seconds, _) = best?;
    let in_time = request.within_seconds.is_none_or(|within| seconds <= within || seconds < own_seconds);
    let margin = 1.0 + f64::from(margin_percent) / 100.0;
    let is_better = seconds * margin < own_seconds && seconds + LEAST_GAIN < own_seconds;
    (in_time && is_better).then_some((index, seconds))
}
