//! Which site is connected to which, and how far that makes them from one another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use types::Site;
use types::names;

use super::{Fleet, Slot};

/// One measured connection, as the site at its beginning told it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Edge {
    to: Slot,
    milliseconds: f32,
    /// NaN where it was not measured.
    megabits: f32,
}

/// Distances of all rows from the nearest of some.
#[derive(Debug, Clone, Default)]
pub(crate) struct Field {
    /// Milliseconds of a round trip; infinite where there is no way.
    milliseconds: Vec<f32>,
    /// The narrowest connection on the way; NaN where one was not measured.
    megabits: Vec<f32>,
}

impl Field {
    pub fn milliseconds(&self, slot: Slot) -> Option<f64> {
        self.milliseconds.get(slot as usize).map(|value| f64::from(*value)).filter(|value| value.is_finite())
    }

    pub fn megabits(&self, slot: Slot) -> Option<f64> {
        self.megabits.get(slot as usize).map(|value| f64::from(*value)).filter(|value| !value.is_nan())
    }
}

/// How many fields are kept.
const FIELDS: usize = 64;

#[derive(Default)]
pub(super) struct Links {
    from: Vec<Vec<Edge>>,
    /// Who has an edge to a row.
    back: Vec<Vec<Slot>>,
    version: u64,
    fields: Vec<(Vec<Slot>, Arc<Field>)>,
}

/// How many connections of one site count; those that it tells first.
const LINKS: usize = 256;

/// The edges that a site tells. A location is at no distance from those that are there.
pub(super) fn edges(fleet: &mut Fleet, site: &Site) -> Vec<Edge> {
    let links = site.status.links.get(..LINKS).unwrap_or(&site.status.links);
    let mut edges = Vec::with_capacity(links.len() + 1);
    if !site.spec.location.is_empty() {
        let to = fleet.location(&site.spec.location);
        edges.push(Edge { to, milliseconds: 0.0, megabits: f32::INFINITY });
    }
    for link in links {
        if !(link.round_trip_milliseconds.is_finite() && link.round_trip_milliseconds >= 0.0) {
            continue;
        }
        let to = if link.location.is_empty() {
            if !names::is_dns_subdomain(&link.site) {
                continue;
            }
            fleet.slot_for(&link.site)
        } else {
            fleet.location(&link.location)
        };
        let megabits = link.megabits_per_second.filter(|megabits| *megabits >= 0.0).unwrap_or(f64::NAN);
        edges.push(Edge { to, milliseconds: link.round_trip_milliseconds as f32, megabits: megabits as f32 });
    }
    edges
}

/// The narrower of two connections, unknown if one is.
fn narrower(one: f32, other: f32) -> f32 {
    if one.is_nan() || other.is_nan() { f32::NAN } else { one.min(other) }
}

impl Links {
    pub fn grow(&mut self) {
        self.from.push(vec![]);
        self.back.push(vec![]);
    }

    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn forget(&mut self) {
        self.version += 1;
        self.fields.clear();
    }

    fn edges(&self, slot: Slot) -> &[Edge] {
        self.from.get(slot as usize).map_or(&[], Vec::as_slice)
    }

    fn is_origin(&self, slot: Slot) -> bool {
        self.fields.iter().any(|(origins, _)| origins.contains(&slot))
    }

    /// Replaces the edges of a row.
    pub fn set(&mut self, slot: Slot, edges: Vec<Edge>) {
        if self.edges(slot) == edges {
            return;
        }
        let targets = |edges: &[Edge]| edges.iter().map(|edge| edge.to).collect::<Vec<_>>();
        let (old, new) = (targets(self.edges(slot)), targets(&edges));
        if old != new {
            for to in old {
                if let Some(back) = self.back.get_mut(to as usize) {
                    back.retain(|from| *from != slot);
                }
            }
            for to in &new {
                if let Some(back) = self.back.get_mut(*to as usize) {
                    back.push(slot);
                }
            }
        }
        let was_end = self.edges(slot).len() <= 1;
        if let Some(known) = self.from.get_mut(slot as usize) {
            *known = edges;
        }
        let ends_here = was_end
            && self.edges(slot).len() <= 1
            && self.back.get(slot as usize).is_none_or(Vec::is_empty)
            && !self.is_origin(slot);
        if ends_here {
            // No way leads through it, so nobody else's distance changed.
            self.update_end(slot);
        } else {
            self.forget();
        }
    }

    fn update_end(&mut self, slot: Slot) {
        let edge = self.edges(slot).first().copied();
        for (_, field) in &mut self.fields {
            let field = Arc::make_mut(field);
            let row = slot as usize;
            if field.milliseconds.len() <= row {
                field.milliseconds.resize(row + 1, f32::INFINITY);
                field.megabits.resize(row + 1, f32::NAN);
            }
            let (milliseconds, megabits) = match edge {
                Some(edge) => {
                    let there = field.milliseconds.get(edge.to as usize).copied().unwrap_or(f32::INFINITY);
                    let narrowest = field.megabits.get(edge.to as usize).copied().unwrap_or(f32::NAN);
                    (there + edge.milliseconds, narrower(narrowest, edge.megabits))
                }
                None => (f32::INFINITY, f32::NAN),
            };
            if let (Some(known), Some(width)) = (field.milliseconds.get_mut(row), field.megabits.get_mut(row))
            {
                *known = milliseconds;
                *width = megabits;
            }
        }
    }

    /// How far all rows are from the nearest of these.
    pub fn field(&mut self, origins: &[Slot]) -> Arc<Field> {
        if let Some((_, field)) = self.fields.iter().find(|(known, _)| known == origins) {
            return field.clone();
        }
        let field = Arc::new(self.walk(origins));
        if self.fields.len() >= FIELDS {
            self.fields.remove(0);
        }
        self.fields.push((origins.to_vec(), field.clone()));
        field
    }

    /// Dijkstra's algorithm; connections count in both directions.
    fn walk(&self, origins: &[Slot]) -> Field {
        let rows = self.from.len();
        let field = Field { milliseconds: vec![f32::INFINITY; rows], megabits: vec![f32::NAN; rows] };
        let mut walk = Walk { links: self, field, open: BinaryHeap::new() };
        for origin in origins {
            walk.arrive(*origin, 0.0, f32::INFINITY);
            walk.open.push(Reverse((0, *origin)));
        }
        let mut done = vec![false; rows];
        while let Some(Reverse((bits, at))) = walk.open.pop() {
            let Some(done) = done.get_mut(at as usize).filter(|done| !**done) else { continue };
            *done = true;
            let milliseconds = f32::from_bits(bits);
            let megabits = walk.field.megabits.get(at as usize).copied().unwrap_or(f32::NAN);
            for edge in self.edges(at) {
                walk.arrive(edge.to, milliseconds + edge.milliseconds, narrower(megabits, edge.megabits));
            }
            for from in self.back.get(at as usize).into_iter().flatten() {
                for edge in self.edges(*from).iter().filter(|edge| edge.to == at) {
                    walk.arrive(*from, milliseconds + edge.milliseconds, narrower(megabits, edge.megabits));
                }
            }
        }
        walk.field
    }
}

struct Walk<'a> {
    links: &'a Links,
    field: Field,
    /// Positive floats are in the order of their bits.
    open: BinaryHeap<Reverse<(u32, Slot)>>,
}

impl Walk<'_> {
    fn arrive(&mut self, to: Slot, milliseconds: f32, megabits: f32) {
        let row = to as usize;
        let (Some(known), Some(width)) =
            (self.field.milliseconds.get_mut(row), self.field.megabits.get_mut(row))
        else {
            return;
        };
        if milliseconds >= *known {
            return;
        }
        (*known, *width) = (milliseconds, megabits);
        let degree = self.links.edges(to).len() + self.links.back.get(row).map_or(0, Vec::len);
        // At an end of the graph there is nowhere to go on to.
        if degree > 1 {
            self.open.push(Reverse((milliseconds.to_bits(), to)));
        }
    }
}
