//! Where a value is, as a chain of borrowed steps: only what is wrong pays for a text.

use std::fmt::Write;

/// A place in an object.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    /// A key of a map, for checks that write it in brackets.
    Key(&'a Path<'a>, &'a str),
}

impl Path<'_> {
    /// `spec.components[0].name`; nothing for the root.
    pub fn render(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    /// The same, but the root is what a missing path reads as.
    pub fn field(&self) -> String {
        match self {
            Self::Root => "<nil>".into(),
            _ => self.render(),
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::Root => {}
            Self::Field(parent, name) => {
                parent.write(text);
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(name);
            }
            Self::Index(parent, index) => {
                parent.write(text);
                let _ = write!(text, "[{index}]");
            }
            Self::Key(parent, key) => {
                parent.write(text);
                let _ = write!(text, "[{key}]");
            }
        }
    }
}
