//! One overlay over those that it names: what kustomize does, in its order.

use super::file::{self, Kustomization};
use super::{Resource, file_in, generate, patch, transform};
use crate::build;
use crate::tree::resolve;
use crate::{Error, Tree};

/// How many overlays may lie over each other.
const DEEPEST: usize = 16;

/// The resources of an overlay, without the hashes in their names. `above` are the folders that led here.
pub fn accumulate(tree: &mut Tree, folder: &str, above: &mut Vec<String>) -> Result<Vec<Resource>, Error> {
    let Some(path) = file_in(tree, folder) else {
        return Err(Error::invalid(folder, "is named by a kustomization, but has no kustomization.yaml"));
    };
    if above.iter().any(|known| known == folder) {
        return Err(Error::invalid(path, format!("is its own base, by way of {}", above.join(", "))));
    }
    if above.len() >= DEEPEST {
        return Err(Error::invalid(path, format!("has more than {DEEPEST} overlays over it")));
    }
    let text = tree.read_text(&path)?;
    let kustomization = file::read(&path, &text)?;
    above.push(folder.to_owned());
    let mut resources = resources(tree, folder, &path, &kustomization, above)?;
    above.pop();
    generate::generate(tree, folder, &path, &kustomization, &mut resources)?;
    patch::apply_merges(tree, folder, &path, &kustomization.patches_strategic_merge, &mut resources)?;
    patch::apply(tree, folder, &path, &kustomization.patches, &mut resources)?;
    transform::namespace(&kustomization.namespace, &mut resources);
    transform::names(&kustomization.name_prefix, &kustomization.name_suffix, &mut resources);
    transform::labels(&kustomization, &mut resources);
    resources.iter_mut().for_each(|one| one.add("annotations", &kustomization.common_annotations));
    patch::apply(tree, folder, &path, &kustomization.patches_json6902, &mut resources)?;
    transform::replicas(&path, &kustomization.replicas, &mut resources)?;
    transform::images(&kustomization.images, &mut resources);
    Ok(resources)
}

fn resources(
    tree: &mut Tree,
    folder: &str,
    path: &str,
    kustomization: &Kustomization,
    above: &mut Vec<String>,
) -> Result<Vec<Resource>, Error> {
    let mut resources: Vec<Resource> = Vec::new();
    for named in kustomization.resources.iter().chain(&kustomization.bases) {
        if named.contains("://") || named.contains("?ref=") || named.starts_with("git@") {
            let problem =
                format!("names {named:?}: nothing is fetched from elsewhere; put it into the repository");
            return Err(Error::invalid(path, problem));
        }
        let found = resolve(folder, named);
        let found = found
            .ok_or_else(|| Error::invalid(path, format!("names {named:?}, outside of the repository")))?;
        let brought = if tree.has_folder(&found) {
            accumulate(tree, &found, above)?
        } else if tree.has_file(&found) {
            let manifests = build::read(tree, &found)?.into_iter();
            manifests.map(|manifest| Resource::new(manifest.value, manifest.origin)).collect()
        } else {
            return Err(Error::invalid(path, format!("names {named:?}, which is not in the repository")));
        };
        for one in brought {
            check_new(&resources, &one)?;
            resources.push(one);
        }
        if resources.len() > tree.limits().manifests {
            let most = tree.limits().manifests;
            return Err(Error::TooLarge(format!("{path} brings more than {most} manifests")));
        }
    }
    Ok(resources)
}

/// No layer may state one thing twice.
pub fn check_new(known: &[Resource], one: &Resource) -> Result<(), Error> {
    let is_same = |other: &&Resource| {
        (other.group(), other.kind(), other.name()) == (one.group(), one.kind(), one.name())
    };
    match known.iter().find(is_same) {
        Some(other) => {
            let (kind, name) = (one.kind(), one.name().name);
            let problem = format!("states {kind} {name} a second time; the first is in {}", other.origin);
            Err(Error::invalid(&one.origin, problem))
        }
        None => Ok(()),
    }
}
