//! The Common Expression Language, as Kubernetes has it: compiled once, evaluated over named JSON values, with a
//! budget that no expression outruns.
//!
//! What is known of types is checked when an expression is compiled: those of literals, of functions and of variables
//! that are declared as objects; the rest when it is evaluated.

mod check;
mod comprehension;
mod cost;
mod eval;
mod formats;
mod functions;
mod interpolate;
mod lexer;
mod lists;
mod literals;
mod net;
mod operators;
mod parser;
mod quantity;
mod semver;
mod signatures;
mod strings;
mod syntax;
mod time;
mod types;
mod url;
mod value;

use types::Type;

pub use quantity::Quantity;
pub use semver::Semver;
pub use time::duration as go_duration;
pub use url::Url;
pub use value::{List, Map, Value};

/// The longest expression, in bytes.
pub const MAX_LENGTH: usize = 10_000;
/// The deepest nesting of an expression.
pub const MAX_DEPTH: usize = 96;
/// What one evaluation may cost, as cel-go counts it: one for each name, field and call, ten for each list and thirty
/// for each map that is made, more for texts.
pub const EVALUATION_BUDGET: u64 = 1_000_000;

/// Not an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ERROR: <input>:{line}:{column}: {problem}")]
pub struct CompileError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: String,
}

impl CompileError {
    fn at(source: &str, at: usize, problem: impl Into<String>) -> Self {
        let before = source.get(..at).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        Self { line, column, problem: problem.into() }
    }
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationError {
    /// No such key, no such overload, division by zero and the like.
    #[error("{0}")]
    Failed(String),
    /// The budget is used up.
    #[error("operation cancelled: actual cost limit exceeded")]
    OutOfBudget,
}

/// An expression, ready to be evaluated any number of times, on any thread.
#[derive(Debug)]
pub struct Expression {
    source: String,
    root: syntax::Expr,
    variables: Vec<String>,
}

impl Expression {
    /// Compiles `source`, which may use these variables.
    ///
    /// # Errors
    /// [`CompileError`] for what is too long, too deep, no expression, uses what isn't declared, or gives a function
    /// or an operator what it can't take.
    pub fn compile(source: &str, variables: &[&str]) -> Result<Self, CompileError> {
        let variables: Vec<_> = variables.iter().map(|name| (*name, Type::Dyn)).collect();
        Self::compile_typed(source, &variables)
    }

    /// The same where the variable is an object, so that what is asked of it must be what objects have.
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn compile_over_object(source: &str, variable: &str) -> Result<Self, CompileError> {
        Self::compile_typed(source, &[(variable, Type::named("map<string,dyn>"))])
    }

    fn compile_typed(source: &str, variables: &[(&str, Type)]) -> Result<Self, CompileError> {
        if source.len() > MAX_LENGTH {
            let problem = format!(
                "expression code point size exceeds limit: size: {}, limit {MAX_LENGTH}",
                source.len()
            );
            return Err(CompileError::at(source, 0, problem));
        }
        let mut root = parser::parse(source)?;
        let mut found = Vec::new();
        root.free_variables(&mut Vec::new(), &mut found);
        let undeclared =
            |name: &&&str| !variables.iter().any(|(known, _)| known == *name) && !functions::is_type(name);
        if let Some(name) = found.iter().find(undeclared) {
            let problem = format!("undeclared reference to '{name}' (in container '')");
            return Err(CompileError::at(source, source.find(*name).unwrap_or(0), problem));
        }
        let found = found.into_iter().map(str::to_owned).collect();
        check::check(source, &mut root, variables)?;
        Ok(Self { source: source.to_owned(), root, variables: found })
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the expression uses the variable.
    pub fn mentions(&self, variable: &str) -> bool {
        self.variables.iter().any(|name| name == variable)
    }

    /// The expression's value where variables have these values. What it costs is taken from `budget`.
    ///
    /// # Errors
    /// [`EvaluationError`] where it has none or the budget does not suffice, which then is 0.
    pub fn evaluate<'a>(
        &'a self,
        variables: &[(&str, Value<'a>)],
        budget: &mut u64,
    ) -> Result<Value<'a>, EvaluationError> {
        eval::evaluate(&self.root, variables, budget)
    }
}
