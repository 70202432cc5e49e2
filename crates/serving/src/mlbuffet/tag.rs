//! `TAG`, `TAG:default`, `TAG:N`.

use axum::http::StatusCode;

use super::Buffet;
use super::reply::Reply;
use crate::shelf::{Tag, Version};

/// A tag, and the version that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TagRef<'a> {
    pub name: &'a str,
    /// What follows the colon.
    pub selector: Option<&'a str>,
}

impl<'a> TagRef<'a> {
    pub fn parse(text: &'a str) -> TagRef<'a> {
        match text.split_once(':') {
            None => TagRef { name: text, selector: None },
            Some((name, selector)) => TagRef { name, selector: Some(selector) },
        }
    }

    /// The version that a number names; `None` is the default one.
    pub fn number(&self) -> Result<Option<u32>, Reply> {
        match self.selector {
            None | Some("default") => Ok(None),
            Some(number) => number.parse().map(Some).map_err(|_| no_version(number)),
        }
    }

    /// The uploaded version that is meant.
    pub fn find(&self, buffet: &Buffet) -> Result<(Tag, u32, Version), Reply> {
        let Some(tag) = buffet.shelf.tag(self.name) else { return Err(not_uploaded(buffet, self.name)) };
        let number = self.number()?.unwrap_or(tag.default_version());
        let version = tag.version(number).cloned().ok_or_else(|| no_version(number))?;
        Ok((tag, number, version))
    }
}

/// For a name that nothing was uploaded under.
fn not_uploaded(buffet: &Buffet, name: &str) -> Reply {
    if buffet.state.repository.list().iter().any(|model| model.name == name) {
        let text = format!(
            "Model {name} was assigned by the hub; it can be asked here, and changed or taken from the hub"
        );
        return Reply::new(StatusCode::CONFLICT, text);
    }
    no_tag(name)
}

pub(super) fn no_tag(name: &str) -> Reply {
    let name: String = name.chars().take(64).collect();
    Reply::new(StatusCode::NOT_FOUND, format!("Tag {name} not found, please check the name introduced"))
}

pub(super) fn no_version(version: impl std::fmt::Display) -> Reply {
    let version: String = version.to_string().chars().take(64).collect();
    let text = format!("Version not found, please check if the version {version} is correct");
    Reply::new(StatusCode::NOT_FOUND, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_names_the_default_or_a_number() {
        let number = |text| TagRef::parse(text).number().ok();
        assert_eq!(number("iris"), Some(None));
        assert_eq!(number("iris:default"), Some(None));
        assert_eq!(number("iris:7"), Some(Some(7)));
        for wrong in ["iris:", "iris:-1", "iris:x", "iris:1:2", "iris:99999999999"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
        assert_eq!(TagRef::parse("iris:7").name, "iris");
    }
}
