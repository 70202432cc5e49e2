//! All versions of a model at once: they are loaded beside the old ones, then requests are switched to them.

use std::sync::PoisonError;

use super::catalog::{Purpose, Ticket};
use super::served::file_bytes;
use super::{Composed, LoadRequest, Repository, Routing, check_name};
use crate::LoadError;
use crate::engine::chain;

/// What is to be done about a version.
enum Plan {
    /// It is loaded when somebody asks for it.
    Wait,
    Make(Option<Composed>),
}

impl Repository {
    /// Makes these the versions of a model, and answers by this routing, in one step: no request ever sees some of
    /// them beside old ones. Versions that aren't named go. With `lazy` settings a version that nobody is served by
    /// yet is only made known, unless `now`. Blocks until all is loaded, beside what is there.
    ///
    /// # Errors
    /// When one can't be loaded, or the routing names another version: then everything stays as it is.
    pub fn replace(&self, versions: Vec<LoadRequest>, routing: Routing, now: bool) -> Result<(), LoadError> {
        for request in &versions {
            check_name(&request.name)?;
            check_name(&request.version)?;
        }
        check_routing(&versions, &routing)?;
        let begun = versions.into_iter().map(|request| {
            let file_bytes = file_bytes(&request.path);
            let ticket = self.write(|catalog| catalog.begin(&request, Purpose::ForGood, file_bytes))?;
            Ok((request, ticket))
        });
        let begun: Vec<(LoadRequest, Ticket)> = begun.collect::<Result<_, LoadError>>()?;
        // The models of steps take turns, too: they go first.
        let plans = begun.iter().map(|(request, _)| match &request.ensemble {
            _ if !now && self.waits(request) => Plan::Wait,
            None => Plan::Make(None),
            Some(ensemble) => Plan::Make(Some(self.load_ensemble(request, ensemble))),
        });
        let plans: Vec<Plan> = plans.collect();
        let loads = &self.inner.loads;
        let _turns = loads.wait_for_versions(begun.iter().map(|(request, _)| request));
        let has_ensembles = begun.iter().any(|(request, _)| request.ensemble.is_some());
        let _alone = has_ensembles.then(|| loads.ensembles.lock().unwrap_or_else(PoisonError::into_inner));
        let mut made = Vec::new();
        for ((request, ticket), plan) in begun.iter().zip(plans) {
            let served = match plan {
                Plan::Wait => None,
                Plan::Make(ensemble) => {
                    let _place = loads.wait_for_place(request);
                    Some(self.make(request, ensemble).map_err(|error| {
                        let version = &request.version;
                        self.give_up(&begun, version, &chain(&error));
                        match begun.len() {
                            1 => error,
                            _ => LoadError::Together { version: version.clone(), source: Box::new(error) },
                        }
                    })?)
                }
            };
            made.push((request.clone(), *ticket, served));
        }
        let gone = self.write(|catalog| catalog.replace(&made, routing)).inspect_err(|error| {
            self.give_up(&begun, "", &chain(error));
        })?;
        gone.into_iter().for_each(|old| self.forget(Some(old)));
        self.make_room();
        Ok(())
    }

    /// Notes why none of these versions was loaded: this one can't be.
    fn give_up(&self, begun: &[(LoadRequest, Ticket)], version: &str, reason: &str) {
        for (request, ticket) in begun {
            let reason = match request.version == version || version.is_empty() {
                true => reason.to_owned(),
                false => format!("version `{version}` can't be loaded: {reason}"),
            };
            self.write(|catalog| catalog.failed(request, *ticket, reason));
        }
    }

    /// Whether it is loaded when somebody asks for it.
    fn waits(&self, request: &LoadRequest) -> bool {
        let LoadRequest { name, version, serving, .. } = request;
        serving.lazy && !self.read(|catalog| catalog.is_served(name, version))
    }
}

fn check_routing(versions: &[LoadRequest], routing: &Routing) -> Result<(), LoadError> {
    let traffic = routing.traffic.iter();
    let split = traffic.clone().flat_map(|traffic| traffic.split.iter().map(|share| &share.version));
    let shadow = traffic.filter_map(|traffic| traffic.shadow.as_ref().map(|shadow| &shadow.version));
    let mut named = routing.aliases.values().chain(split).chain(shadow);
    let stranger = named.find(|named| versions.iter().all(|request| request.version != **named));
    stranger.map_or(Ok(()), |version| Err(LoadError::Routing { version: version.clone() }))
}
