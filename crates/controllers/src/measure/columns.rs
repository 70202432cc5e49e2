//! Values of metrics as columns of a fleet, made again only where something changed.

use std::borrow::Cow;
use std::sync::Arc;

use planner::{Fleet, MetricColumn, metric_column, metrics};
use types::{Metric, PlacementSpec};

use super::{Measurements, Values};
use crate::Snapshot;

/// The values of one placement's metrics, from 0 to 1.
#[derive(Default)]
pub(crate) struct Columns {
    columns: Vec<MetricColumn>,
    made_of: Option<Sources>,
}

/// What columns were made of, but for the spec.
struct Sources {
    changes: u64,
    rows: usize,
    told: Vec<Option<Arc<Values>>>,
}

impl Sources {
    fn are_same(&self, other: &Self) -> bool {
        let is_same = |pair: (&Option<Arc<Values>>, &Option<Arc<Values>>)| match pair {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        (self.changes, self.rows, self.told.len()) == (other.changes, other.rows, other.told.len())
            && self.told.iter().zip(&other.told).all(is_same)
    }
}

impl Columns {
    /// One column a metric, in the order of the spec.
    pub fn all(&self) -> &[MetricColumn] {
        &self.columns
    }

    /// Takes over what was told and what sites claim; always of the same spec. A column that is the same keeps its version.
    pub fn update(
        &mut self,
        measurements: &Measurements,
        spec: &PlacementSpec,
        snapshot: &Snapshot,
        fleet: &Fleet,
    ) {
        if spec.metrics.is_empty() {
            return;
        }
        let told = spec.metrics.iter().map(|metric| measurements.told(&metric.provider)).collect();
        let sources = Sources { changes: fleet.changes(), rows: fleet.rows(), told };
        if self.made_of.as_ref().is_some_and(|known| known.are_same(&sources)) {
            return;
        }
        let next = self.columns.iter().map(|column| column.version).max().unwrap_or(0) + 1;
        let mut old = std::mem::take(&mut self.columns).into_iter();
        for (metric, told) in spec.metrics.iter().zip(&sources.told) {
            let new =
                metric_column(&normalized(metric, &raw(metric, told.as_deref(), snapshot)), fleet, next);
            let is_same = |before: &MetricColumn| {
                let bits = |column: &MetricColumn| {
                    column.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
                };
                before.values.len() == new.values.len() && bits(before) == bits(&new)
            };
            self.columns.push(old.next().filter(is_same).unwrap_or(new));
        }
        self.made_of = Some(sources);
    }
}

fn raw<'a>(metric: &'a Metric, told: Option<&'a Values>, snapshot: &Snapshot) -> Cow<'a, Values> {
    if let Some(values) = &metric.provider.fixed {
        return Cow::Borrowed(values);
    }
    if let Some(usage) = &metric.provider.site {
        let number = |site: &types::Site| {
            let value = site.status.usage.get(usage.metric.name())?;
            Some((site.name().to_owned(), *value))
        };
        return Cow::Owned(snapshot.sites.iter().filter_map(number).collect());
    }
    if let Some(claim) = &metric.provider.claim {
        let number = |site: &types::Site| {
            let claim = site.status.claims.iter().find(|known| known.name == *claim)?;
            Some((site.name().to_owned(), claim.value.trim().parse().ok()?))
        };
        return Cow::Owned(snapshot.sites.iter().filter_map(number).collect());
    }
    told.map_or_else(Cow::default, Cow::Borrowed)
}

/// Values that may be, as shares. Others count as missing.
fn normalized(metric: &Metric, values: &Values) -> Values {
    let shares = values.iter().filter_map(|(site, value)| {
        let share = metrics::normalize(*value, metric.min, metric.max, &metric.allowed_values).ok()?;
        Some((site.clone(), share))
    });
    shares.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use types::Site;

    use super::*;

    #[test]
    fn values_that_may_not_be_count_as_missing() {
        let metric: Metric = serde_json::from_value(json!({"name": "load", "min": 0, "max": 10,
            "provider": {"claim": "load"}}))
        .unwrap();
        let values = Values::from([("a".into(), 5.0), ("b".into(), 11.0), ("c".into(), f64::NAN)]);
        assert_eq!(normalized(&metric, &values), Values::from([("a".into(), 0.5)]));
    }

    #[test]
    fn what_sites_measure_of_themselves_counts_and_who_tells_nothing_has_no_value() {
        let telling = |name: &str, usage: serde_json::Value| -> Site {
            serde_json::from_value(json!({"apiVersion": types::API_VERSION, "kind": "Site",
                "metadata": {"name": name}, "spec": {"tier": "edge"}, "status": {"usage": usage}}))
            .unwrap()
        };
        let spec: PlacementSpec = serde_json::from_value(json!({"metrics": [
            {"name": "busy", "min": 0, "max": 2, "provider": {"site": {"metric": "cpu"}}},
            {"name": "queue", "min": 0, "max": 100, "provider": {"site": {"metric": "invocations"}}}]}))
        .unwrap();
        let sites = vec![
            telling("a", json!({"cpu": 0.5, "invocations": 20})),
            telling("b", json!({"cpu": 4.0})),
            telling("old", json!({})),
        ];
        let (mut fleet, mut columns) = (Fleet::default(), Columns::default());
        sites.iter().for_each(|site| fleet.set(site, &[]));
        let snapshot = Snapshot { sites, ..Snapshot::default() };
        columns.update(&Measurements::default(), &spec, &snapshot, &fleet);
        let of = |metric: usize, site: &str| columns.all()[metric].values[fleet.slot(site).unwrap() as usize];
        assert_eq!((of(0, "a"), of(1, "a")), (0.25, 0.2));
        assert!(of(0, "b").is_nan() && of(1, "b").is_nan() && of(0, "old").is_nan());
    }

    #[test]
    fn columns_are_made_again_where_sites_or_answers_changed_and_only_then() {
        let claims = |load: &str| -> Site {
            serde_json::from_value(
                json!({"apiVersion": types::API_VERSION, "kind": "Site", "metadata": {"name": "a"},
                "spec": {"tier": "edge"}, "status": {"claims": [{"name": "load", "value": load}]}}),
            )
            .unwrap()
        };
        let spec: PlacementSpec = serde_json::from_value(json!({"metrics": [
            {"name": "load", "min": 0, "max": 10, "provider": {"claim": "load"}},
            {"name": "told", "min": 0, "max": 10, "provider": {"http": {"url": "http://a/", "pointer": ""}}}]}))
        .unwrap();
        let (mut fleet, mut columns, measurements) =
            (Fleet::default(), Columns::default(), Measurements::default());
        let mut snapshot = Snapshot { sites: vec![claims("5")], ..Snapshot::default() };
        fleet.set(&snapshot.sites[0], &[]);
        let versions = |columns: &Columns| [columns.all()[0].version, columns.all()[1].version];
        columns.update(&measurements, &spec, &snapshot, &fleet);
        assert_eq!((versions(&columns), columns.all()[0].values[0]), ([1, 1], 0.5));
        columns.update(&measurements, &spec, &snapshot, &fleet);
        assert_eq!(versions(&columns), [1, 1]);
        let asked = super::super::Asked::of(&spec.metrics[1].provider).unwrap();
        measurements.tell(asked, Values::from([("a".into(), 1.0)]));
        columns.update(&measurements, &spec, &snapshot, &fleet);
        assert_eq!((versions(&columns), columns.all()[1].values[0]), ([1, 2], 0.1));
        snapshot.sites[0] = claims("6");
        fleet.set(&snapshot.sites[0], &[]);
        columns.update(&measurements, &spec, &snapshot, &fleet);
        assert_eq!((versions(&columns), columns.all()[0].values[0]), ([3, 2], 0.6));
    }
}
