//! What is counted of the requests that are alike.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::Method;
use types::{KindInfo, kinds};

use crate::discovery::{self, REVIEWS, Review};
use crate::request::RequestInfo;
use crate::target::Subresource;

/// What requests have in common that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    pub group: &'static str,
    pub version: &'static str,
    pub resource: &'static str,
    pub subresource: &'static str,
    pub verb: &'static str,
    pub scope: &'static str,
    /// `All` where nothing is to be kept.
    pub dry_run: &'static str,
}

/// What `dryRun` says of requests that change nothing.
const DRY: &str = "All";
const SCOPES: [&str; 3] = ["cluster", "namespace", "resource"];
const METHODS: [&str; 8] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "other"];

impl Labels {
    /// All that there can be.
    pub fn all() -> impl Iterator<Item = Self> {
        let of_kinds = kinds().flat_map(|info| {
            Subresource::all_of(info).flat_map(move |(part, verbs)| {
                let apply = verbs.contains(&"patch").then_some("APPLY");
                let verbs = verbs.iter().map(|verb| verb_label(verb)).chain(apply);
                verbs.flat_map(move |verb| SCOPES.map(|scope| Self::of_kind(info, part, verb, scope)))
            })
        });
        let of_kinds = of_kinds.flat_map(|labels| {
            let dry = (!matches!(labels.verb, "GET" | "LIST" | "WATCH")).then_some(labels.dry());
            [labels].into_iter().chain(dry)
        });
        let of_reviews = REVIEWS.iter().flat_map(|review| {
            METHODS.into_iter().flat_map(move |verb| SCOPES.map(|scope| Self::of_review(review, verb, scope)))
        });
        let of_paths = METHODS.into_iter().map(Self::of_other);
        of_kinds.chain(of_reviews).chain(of_paths)
    }

    /// Those of a request.
    pub fn of(info: &RequestInfo, method: &Method) -> Self {
        if let Some(target) = &info.target {
            let scope = match (target.name.as_str(), target.namespace.as_str()) {
                ("", "") => "cluster",
                ("", _) => "namespace",
                _ => "resource",
            };
            let verb = if info.is_apply { "APPLY" } else { verb_label(info.verb) };
            let labels = Self::of_kind(target.info, target.subresource, verb, scope);
            return if info.text("dryRun") == DRY { labels.dry() } else { labels };
        }
        let review = info
            .review
            .as_ref()
            .and_then(|review| discovery::review_at(&review.group, &review.version, &review.plural));
        match review {
            Some(review) => Self::of_review(review, method_label(method), "cluster"),
            None => Self::of_path(method),
        }
    }

    /// Those of a request that is about no resource.
    pub fn of_path(method: &Method) -> Self {
        Self::of_other(method_label(method))
    }

    fn dry(self) -> Self {
        Self { dry_run: DRY, ..self }
    }

    pub fn of_kind(
        info: &KindInfo,
        subresource: Subresource,
        verb: &'static str,
        scope: &'static str,
    ) -> Self {
        let (group, version, resource) = (info.group, info.version, info.plural);
        Self { group, version, resource, subresource: subresource.name(), verb, scope, dry_run: "" }
    }

    fn of_review(review: &'static Review, verb: &'static str, scope: &'static str) -> Self {
        let Review { group, version, plural, .. } = *review;
        Self { group, version, resource: plural, subresource: "", verb, scope, dry_run: "" }
    }

    fn of_other(verb: &'static str) -> Self {
        Self { group: "", version: "", resource: "", subresource: "", verb, scope: "", dry_run: "" }
    }

    /// As Prometheus has them.
    pub fn pairs<'a>(&self, code: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
        let code = code.map(|code| ("code", code));
        let others = [
            ("component", "apiserver"),
            ("dry_run", self.dry_run),
            ("group", self.group),
            ("resource", self.resource),
            ("scope", self.scope),
            ("subresource", self.subresource),
            ("verb", self.verb),
            ("version", self.version),
        ];
        code.into_iter().chain(others).collect()
    }
}

/// A verb, as Kubernetes counts it: by the method, but for those that share one.
fn verb_label(verb: &str) -> &'static str {
    match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "update" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    }
}

fn method_label(method: &Method) -> &'static str {
    METHODS.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

/// The answers that are counted by their code; all others together.
const CODES: [u16; 20] =
    [200, 201, 202, 304, 307, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 500, 503, 504];

/// Up to how many seconds an answer took that a bucket counts.
pub const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// Numbers about requests that are alike.
#[derive(Default)]
pub struct Series {
    codes: [AtomicU64; CODES.len()],
    other: AtomicU64,
    /// Of each bucket alone; the last is for what took longer than all.
    buckets: [AtomicU64; BUCKETS.len()],
    longer: AtomicU64,
    microseconds: AtomicU64,
}

impl Series {
    /// Counts an answer.
    pub fn count(&self, code: u16) {
        let known = CODES.iter().zip(&self.codes).find(|(known, _)| **known == code);
        known.map_or(&self.other, |(_, count)| count).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long an answer took.
    pub fn took(&self, time: Duration) {
        let fitting = BUCKETS.iter().zip(&self.buckets).find(|(most, _)| time.as_secs_f64() <= **most);
        fitting.map_or(&self.longer, |(_, count)| count).fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// Codes that were answered, and how often.
    pub fn codes(&self) -> impl Iterator<Item = (String, u64)> {
        let known = CODES.iter().zip(&self.codes).map(|(code, count)| (code.to_string(), count));
        let all = known.chain([("other".to_owned(), &self.other)]);
        all.map(|(code, count)| (code, count.load(Ordering::Relaxed))).filter(|(_, count)| *count > 0)
    }

    /// How many took no longer than each bucket says, how many there were, and their seconds together.
    pub fn times(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut sum = 0;
        let mut add = |count: &AtomicU64| {
            sum += count.load(Ordering::Relaxed);
            sum
        };
        let buckets = BUCKETS.iter().zip(&self.buckets).map(|(most, count)| (*most, add(count))).collect();
        let all = add(&self.longer);
        (buckets, all, Duration::from_micros(self.microseconds.load(Ordering::Relaxed)).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_of_every_kind_has_a_label() {
        for verb in types::VERBS {
            assert_ne!(verb_label(verb), "other", "{verb}");
        }
        assert!(Labels::all().all(|labels| labels.resource.is_empty() || !labels.version.is_empty()));
    }

    #[test]
    fn buckets_hold_what_took_no_longer() {
        let series = Series::default();
        for milliseconds in [1, 5, 30, 70_000] {
            series.took(Duration::from_millis(milliseconds));
        }
        let (buckets, all, seconds) = series.times();
        assert_eq!(buckets.first(), Some(&(0.005, 2)));
        assert_eq!(buckets.get(2), Some(&(0.05, 3)));
        assert_eq!(buckets.last(), Some(&(60.0, 3)));
        assert_eq!((all, seconds), (4, 70.036));
    }

    #[test]
    fn answers_are_counted_by_their_code() {
        let series = Series::default();
        [200, 200, 404, 418].into_iter().for_each(|code| series.count(code));
        let counted: Vec<(String, u64)> = series.codes().collect();
        let expected = [("200", 2), ("404", 1), ("other", 1)];
        assert_eq!(counted, expected.map(|(code, count)| (code.to_owned(), count)));
    }
}
