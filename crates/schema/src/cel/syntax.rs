//! What an expression is made of.

use std::sync::Arc;

use regex::Regex;

/// An expression, how deep its tree is, counting itself, and where its operator or name stands, in bytes.
#[derive(Debug)]
pub struct Expr {
    pub kind: Kind,
    pub depth: usize,
    pub at: usize,
}

#[derive(Debug)]
pub enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    Variable(String),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Select {
        operand: Box<Expr>,
        field: Field,
        is_optional: bool,
    },
    Has {
        operand: Box<Expr>,
        field: Field,
    },
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        is_optional: bool,
    },
    Not(Box<Expr>),
    Negate(Box<Expr>),
    /// All of them.
    And(Vec<Expr>),
    /// Any of them.
    Or(Vec<Expr>),
    Binary {
        operator: Operator,
        left: Box<Expr>,
        right: Box<Expr>,
        /// Whether the overload is only known when it is evaluated.
        is_dynamic: bool,
    },
    Conditional(Box<(Expr, Expr, Expr)>),
    Call(Call),
    Comprehension(Box<Comprehension>),
}

/// The name of a field, and what Kubernetes' escapes in it mean: `a__dash__b` is the field `a-b`.
#[derive(Debug)]
pub struct Field {
    pub name: String,
    pub unescaped: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Operator {
    /// As messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "_+_",
            Self::Subtract => "_-_",
            Self::Multiply => "_*_",
            Self::Divide => "_/_",
            Self::Remainder => "_%_",
            Self::Equal => "_==_",
            Self::NotEqual => "_!=_",
            Self::Less => "_<_",
            Self::LessOrEqual => "_<=_",
            Self::Greater => "_>_",
            Self::GreaterOrEqual => "_>=_",
            Self::In => "@in",
        }
    }
}

#[derive(Debug)]
pub struct Call {
    pub function: String,
    /// What stood before the dot comes first.
    pub arguments: Vec<Expr>,
    pub is_method: bool,
    /// Whether the overload is only known when it is evaluated.
    pub is_dynamic: bool,
    /// The second argument, where it is a regular expression known beforehand.
    pub pattern: Option<Regex>,
}

/// A macro over each entry of a list or key of a map.
#[derive(Debug)]
pub struct Comprehension {
    pub macro_: Macro,
    pub range: Expr,
    pub variable: String,
    /// Which entries `map` takes.
    pub filter: Option<Expr>,
    pub body: Expr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Macro {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    OptMap,
    OptFlatMap,
}

impl Expr {
    /// The expressions directly in this one.
    pub fn children(&self) -> Vec<&Expr> {
        match &self.kind {
            Kind::List(entries) | Kind::And(entries) | Kind::Or(entries) => entries.iter().collect(),
            Kind::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
            Kind::Select { operand, .. } | Kind::Has { operand, .. } => vec![operand],
            Kind::Index { operand, index, .. } => vec![operand, index],
            Kind::Not(operand) | Kind::Negate(operand) => vec![operand],
            Kind::Binary { left, right, .. } => vec![left, right],
            Kind::Conditional(three) => vec![&three.0, &three.1, &three.2],
            Kind::Call(call) => call.arguments.iter().collect(),
            Kind::Comprehension(one) => {
                [Some(&one.range), one.filter.as_ref(), Some(&one.body)].into_iter().flatten().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it names a value or a part of one, so that parts of it cost one step each and itself another.
    pub fn is_attribute(&self) -> bool {
        use Kind::{Conditional, Has, Index, Select, Variable};
        matches!(self.kind, Variable(_) | Select { .. } | Has { .. } | Index { .. } | Conditional(_))
    }

    /// The variables it needs from outside.
    pub fn free_variables<'a>(&'a self, bound: &mut Vec<&'a str>, found: &mut Vec<&'a str>) {
        if let Kind::Variable(name) = &self.kind
            && !bound.contains(&name.as_str())
            && !found.contains(&name.as_str())
        {
            found.push(name);
        }
        let Kind::Comprehension(one) = &self.kind else {
            self.children().into_iter().for_each(|child| child.free_variables(bound, found));
            return;
        };
        one.range.free_variables(bound, found);
        bound.push(&one.variable);
        for child in one.filter.iter().chain([&one.body]) {
            child.free_variables(bound, found);
        }
        bound.pop();
    }
}

impl Field {
    pub fn named(name: String) -> Self {
        let unescaped = name.contains("__").then(|| unescape(&name)).filter(|unescaped| *unescaped != name);
        Self { name, unescaped }
    }
}

fn unescape(name: &str) -> String {
    const KEYWORDS: [&str; 20] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
    ];
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    if let Some(keyword) = inner.filter(|inner| KEYWORDS.contains(inner) || *inner == "while") {
        return keyword.to_owned();
    }
    const ESCAPES: [(&str, &str); 4] =
        [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
    let mut text = String::new();
    let mut rest = name;
    while let Some(next) = rest.chars().next() {
        match ESCAPES.iter().find_map(|(from, to)| Some((rest.strip_prefix(from)?, to))) {
            Some((after, to)) => {
                text.push_str(to);
                rest = after;
            }
            None => {
                text.push(next);
                rest = rest.get(next.len_utf8()..).unwrap_or_default();
            }
        }
    }
    text
}
