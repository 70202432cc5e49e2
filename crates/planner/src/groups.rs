//! Dividing selected sites into groups.

use types::{DecisionGroups, GroupSize, Site};

use crate::policy::{Misconfigured, check_selector, selects};

/// A group of selected sites.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// From 0, in the order in which a rollout takes them.
    pub index: u32,
    /// Empty for sites that no selector took.
    pub name: String,
    /// By name.
    pub sites: Vec<String>,
}

/// How many of `total` a size means; none and more than there are mean all.
///
/// # Errors
/// If it is a text that is no percentage.
pub fn size(size: Option<&GroupSize>, total: usize) -> Result<usize, Misconfigured> {
    let length = match size {
        None => total as f64,
        Some(GroupSize::Count(count)) => *count as f64,
        Some(GroupSize::Text(text)) => {
            let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
            let percent = percent.ok_or_else(|| {
                Misconfigured::new(
                    "DecisionGroups",
                    format!("{text} invalid type: string is not a percentage"),
                )
            })?;
            (percent / 100.0 * total as f64).ceil()
        }
    };
    Ok(if length >= 1.0 && length <= total as f64 { length as usize } else { total })
}

/// Divides sites. Each group takes those it selects of which none took before, by name, so many at a time; the rest
/// comes last. There always is a group.
///
/// # Errors
/// If what divides them can't be followed.
pub fn divide(groups: &DecisionGroups, sites: &[&Site]) -> Result<Vec<Group>, Misconfigured> {
    check(groups)?;
    let size = size(groups.sites_per_group.as_ref(), sites.len())?;
    let mut left: Vec<&Site> = sites.to_vec();
    left.sort_by_key(|site| site.name());
    left.dedup_by_key(|site| site.name());
    let mut divided: Vec<Group> = Vec::new();
    let mut add = |name: &str, sites: &[&Site]| {
        for part in sites.chunks(size.max(1)) {
            divided.push(Group {
                index: u32::try_from(divided.len()).unwrap_or(u32::MAX),
                name: name.to_owned(),
                sites: part.iter().map(|site| site.name().to_owned()).collect(),
            });
        }
    };
    for group in &groups.groups {
        let (taken, rest): (Vec<&Site>, Vec<&Site>) =
            left.into_iter().partition(|site| selects(&group.label_selector, &group.claim_selector, site));
        add(&group.name, &taken);
        left = rest;
    }
    add("", &left);
    if divided.is_empty() {
        divided.push(Group { index: 0, name: String::new(), sites: vec![] });
    }
    Ok(divided)
}

/// Whether sites can be divided so, whichever they are.
///
/// # Errors
/// If what divides them can't be followed.
pub(crate) fn check(groups: &DecisionGroups) -> Result<(), Misconfigured> {
    size(groups.sites_per_group.as_ref(), 0)?;
    for group in &groups.groups {
        for selector in [&group.label_selector, &group.claim_selector] {
            check_selector(selector).map_err(|problem| {
                Misconfigured::new("DecisionGroups", format!("group `{}`: {problem}", group.name))
            })?;
        }
    }
    Ok(())
}
