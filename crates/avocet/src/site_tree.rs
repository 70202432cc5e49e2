//! `site tree`: who joined whom.

use std::collections::BTreeMap;

use anyhow::ensure;
use serde_json::{Value, json};
use types::{Site, SiteSpec, condition};

use crate::cli::{ClientOptions, Format};
use crate::{config, output};

/// Sites by the name of the one that they are joined to; roots by the empty name.
type Below<'a> = BTreeMap<&'a str, Vec<&'a Site>>;

/// How deep a tree is drawn: sites that are said to be below each other have no end.
const DEEPEST: usize = 16;

/// Prints the tree, or the branch of one site.
pub async fn print(options: &ClientOptions, top: Option<&str>, format: Format) -> anyhow::Result<()> {
    let (sites, _) = config::hub_client(options)?.list::<SiteSpec>("").await?;
    let (below, tops) = tree(&sites, top);
    ensure!(!tops.is_empty() || top.is_none(), "sites \"{}\" not found", top.unwrap_or_default());
    match format {
        Format::Json | Format::Yaml => {
            let items: Vec<Value> = tops.iter().map(|site| value(site, &below, DEEPEST)).collect();
            return output::print_value(&json!({ "items": items }), format);
        }
        Format::Name => names(&tops, &below, DEEPEST),
        Format::Table | Format::Wide => {
            let heading = ["NAME", "TIER", "READY", "DISTANCE", "MESSAGE"].map(str::to_owned);
            output::print_table(&heading, &rows(&sites, top), true);
        }
    }
    Ok(())
}

/// A site with those below it.
fn value(site: &Site, below: &Below, depth: usize) -> Value {
    let fields = ["tier", "ready", "distance", "message"];
    let mut shown = json!({"name": site.name()});
    let cells = row(site, "").into_iter().skip(1);
    let children = below.get(site.name()).filter(|_| depth > 0).map_or(&[][..], Vec::as_slice);
    let children: Vec<Value> = children.iter().map(|child| value(child, below, depth - 1)).collect();
    if let Some(shown) = shown.as_object_mut() {
        shown.extend(fields.into_iter().zip(cells).map(|(name, cell)| (name.to_owned(), cell.into())));
        shown.insert("children".into(), children.into());
    }
    shown
}

fn names(sites: &[&Site], below: &Below, depth: usize) {
    for site in sites {
        println!("site/{}", site.name());
        if let Some(children) = below.get(site.name()).filter(|_| depth > 0) {
            names(children, below, depth - 1);
        }
    }
}

/// Who is below whom, and where the drawing begins.
fn tree<'a>(sites: &'a [Site], top: Option<&str>) -> (Below<'a>, Vec<&'a Site>) {
    let is_known = |name: &str| sites.iter().any(|site| site.name() == name);
    let mut below = Below::new();
    for site in sites {
        // What is below a site that is gone stands for itself.
        let parent = site.spec.parent.as_str();
        let parent = if is_known(parent) && parent != site.name() { parent } else { "" };
        below.entry(parent).or_default().push(site);
    }
    let tops: Vec<&Site> = match top {
        Some(top) => sites.iter().filter(|site| site.name() == top).collect(),
        None => below.get("").cloned().unwrap_or_default(),
    };
    (below, tops)
}

fn rows(sites: &[Site], top: Option<&str>) -> Vec<Vec<String>> {
    let (below, tops) = tree(sites, top);
    let mut rows = Vec::new();
    for site in tops {
        rows.push(row(site, ""));
        branch(site, "", &below, DEEPEST, &mut rows);
    }
    rows
}

fn branch(site: &Site, indent: &str, below: &Below, depth: usize, rows: &mut Vec<Vec<String>>) {
    let children = below.get(site.name()).filter(|_| depth > 0).map_or(&[][..], Vec::as_slice);
    for (index, child) in children.iter().enumerate() {
        let (corner, next) =
            if index + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        rows.push(row(child, &format!("{indent}{corner}")));
        branch(child, &format!("{indent}{next}"), below, depth - 1, rows);
    }
}

fn row(site: &Site, indent: &str) -> Vec<String> {
    let ready = condition(&site.status.conditions, "Ready");
    let links = site.status.links.iter();
    let distance = links.filter(|link| link.site == site.spec.parent && !link.site.is_empty());
    let distance = distance.map(|link| format!("{} ms", link.round_trip_milliseconds)).next();
    vec![
        format!("{indent}{}", site.name()),
        site.spec.tier.clone(),
        ready.map_or_else(|| "-".to_owned(), |ready| format!("{:?}", ready.status)),
        distance.unwrap_or_else(|| "-".to_owned()),
        ready.map(|ready| ready.message.clone()).unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use types::ObjectMeta;

    use super::*;

    fn site(name: &str, parent: &str) -> Site {
        let spec = SiteSpec { tier: "edge".to_owned(), parent: parent.to_owned(), ..SiteSpec::default() };
        Site::new(ObjectMeta::named(name), spec)
    }

    fn names(sites: &[Site], top: Option<&str>) -> Vec<String> {
        rows(sites, top).into_iter().map(|row| row[0].clone()).collect()
    }

    #[test]
    fn sites_hang_below_those_that_they_are_joined_to() {
        let sites = [
            site("cloud", ""),
            site("line-1", "plant"),
            site("line-2", "plant"),
            site("plant", "cloud"),
            site("shop", "cloud"),
            site("stray", "gone"),
        ];
        let tree = ["cloud", "├─ plant", "│  ├─ line-1", "│  └─ line-2", "└─ shop", "stray"];
        assert_eq!(names(&sites, None), tree);
        assert_eq!(names(&sites, Some("plant")), ["plant", "├─ line-1", "└─ line-2"]);
        assert_eq!(names(&sites, Some("nowhere")), [""; 0]);
    }

    #[test]
    fn sites_that_are_below_each_other_do_not_hang_the_drawing() {
        let sites = [site("a", "b"), site("b", "a"), site("c", "")];
        assert_eq!(names(&sites, None), ["c"]);
        assert_eq!(names(&sites, Some("a")).len(), 1 + DEEPEST);
    }
}
