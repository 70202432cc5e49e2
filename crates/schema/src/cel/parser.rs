//! From tokens to a tree, no deeper than [`MAX_DEPTH`](super::MAX_DEPTH).

use super::lexer::{Token, TokenKind, tokens};
use super::signatures;
use super::syntax::{Call, Comprehension, Expr, Field, Kind, Macro, Operator};
use super::{CompileError, MAX_DEPTH};
use crate::pattern;

pub fn parse(source: &str) -> Result<Expr, CompileError> {
    let mut parser = Parser { source, tokens: tokens(source)?, at: 0, nesting: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        TokenKind::End => Ok(expr),
        other => Err(parser.error(format!("Syntax error: unexpected {}", said(other)))),
    }
}

/// The operators of each level, loosest first.
const LEVELS: [&[(&str, Operator)]; 3] = [
    &[
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<", Operator::Less),
        ("<=", Operator::LessOrEqual),
        (">", Operator::Greater),
        (">=", Operator::GreaterOrEqual),
        ("in", Operator::In),
    ],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[("*", Operator::Multiply), ("/", Operator::Divide), ("%", Operator::Remainder)],
];

struct Parser<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    at: usize,
    nesting: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &TokenKind {
        self.tokens.get(self.at).map_or(&TokenKind::End, |token| &token.kind)
    }

    fn advance(&mut self) -> TokenKind {
        let kind = self.peek().clone();
        self.at += 1;
        kind
    }

    fn take(&mut self, symbol: &str) -> bool {
        let is_next = match self.peek() {
            TokenKind::Symbol(next) => *next == symbol,
            TokenKind::Identifier(word) => symbol == "in" && word == "in",
            _ => false,
        };
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, symbol: &str) -> Result<(), CompileError> {
        if self.take(symbol) {
            return Ok(());
        }
        Err(self.error(format!("Syntax error: unexpected {}, expecting '{symbol}'", said(self.peek()))))
    }

    fn error(&self, problem: impl Into<String>) -> CompileError {
        CompileError::at(self.source, self.position(), problem)
    }

    /// Where the next token begins.
    fn position(&self) -> usize {
        self.tokens.get(self.at).map_or(self.source.len(), |token| token.at)
    }

    fn node(&self, at: usize, kind: Kind) -> Result<Expr, CompileError> {
        let mut expr = Expr { kind, depth: 1, at };
        expr.depth += expr.children().iter().map(|child| child.depth).max().unwrap_or(0);
        if expr.depth > MAX_DEPTH {
            return Err(self.error(format!("expression recursion limit exceeded: {MAX_DEPTH}")));
        }
        Ok(expr)
    }

    fn expression(&mut self) -> Result<Expr, CompileError> {
        self.nesting += 1;
        if self.nesting > MAX_DEPTH {
            return Err(self.error(format!("expression recursion limit exceeded: {MAX_DEPTH}")));
        }
        let condition = self.any()?;
        let at = self.position();
        let expr = if self.take("?") {
            let then = self.any()?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            self.node(at, Kind::Conditional(Box::new((condition, then, otherwise))))?
        } else {
            condition
        };
        self.nesting -= 1;
        Ok(expr)
    }

    fn any(&mut self) -> Result<Expr, CompileError> {
        let first = self.all()?;
        let mut terms = vec![first];
        while self.take("||") {
            terms.push(self.all()?);
        }
        self.joined(terms, Kind::Or)
    }

    fn all(&mut self) -> Result<Expr, CompileError> {
        let first = self.binary(0)?;
        let mut terms = vec![first];
        while self.take("&&") {
            terms.push(self.binary(0)?);
        }
        self.joined(terms, Kind::And)
    }

    fn joined(&self, mut terms: Vec<Expr>, kind: fn(Vec<Expr>) -> Kind) -> Result<Expr, CompileError> {
        match terms.pop() {
            Some(only) if terms.is_empty() => Ok(only),
            Some(last) => {
                terms.push(last);
                let at = terms.first().map_or(0, |first| first.at);
                self.node(at, kind(terms))
            }
            None => Err(self.error("Syntax error: empty expression")),
        }
    }

    fn binary(&mut self, level: usize) -> Result<Expr, CompileError> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let at = self.position();
            let found = operators.iter().find(|(symbol, _)| self.take(symbol));
            let Some((_, operator)) = found.copied() else { return Ok(left) };
            let (inner, right) = (Box::new(left), Box::new(self.binary(level + 1)?));
            left = self.node(at, Kind::Binary { operator, left: inner, right, is_dynamic: false })?;
        }
    }

    fn unary(&mut self) -> Result<Expr, CompileError> {
        let mut signs = Vec::new();
        let at = self.position();
        loop {
            if self.take("!") {
                signs.push('!');
            } else if self.take("-") {
                match self.peek().clone() {
                    // The number below zero may have no positive counterpart.
                    TokenKind::LowestInt => {
                        self.at += 1;
                        let lowest = self.node(at, Kind::Int(i64::MIN))?;
                        return self.signed(at, lowest, signs);
                    }
                    // A minus before a number is a part of it.
                    TokenKind::Int(number) => {
                        let operand = self.literal(Kind::Int(-number))?;
                        return self.signed(at, operand, signs);
                    }
                    TokenKind::Double(number) => {
                        let operand = self.literal(Kind::Double(-number))?;
                        return self.signed(at, operand, signs);
                    }
                    _ => signs.push('-'),
                }
            } else {
                break;
            }
        }
        let operand = self.postfix()?;
        self.signed(at, operand, signs)
    }

    fn literal(&mut self, kind: Kind) -> Result<Expr, CompileError> {
        let literal = self.node(self.position(), kind)?;
        self.at += 1;
        self.parts(literal)
    }

    fn signed(&self, at: usize, mut operand: Expr, signs: Vec<char>) -> Result<Expr, CompileError> {
        for sign in signs.into_iter().rev() {
            let wrap = if sign == '!' { Kind::Not } else { Kind::Negate };
            operand = self.node(at, wrap(Box::new(operand)))?;
        }
        Ok(operand)
    }

    fn postfix(&mut self) -> Result<Expr, CompileError> {
        let operand = self.primary()?;
        self.parts(operand)
    }

    /// What stands behind an operand: fields, entries and methods.
    fn parts(&mut self, mut operand: Expr) -> Result<Expr, CompileError> {
        loop {
            let at = self.position();
            let is_optional = self.take(".?");
            if is_optional || self.take(".") {
                let TokenKind::Identifier(name) = self.advance() else {
                    self.at -= 1;
                    return Err(self.error("Syntax error: no viable alternative after '.'"));
                };
                operand = if !is_optional && self.take("(") {
                    self.method(at, operand, name)?
                } else {
                    let field = Field::named(name);
                    self.node(at, Kind::Select { operand: Box::new(operand), field, is_optional })?
                };
                continue;
            }
            let is_optional = self.take("[?");
            if !is_optional && !self.take("[") {
                return Ok(operand);
            }
            let index = Box::new(self.expression()?);
            self.expect("]")?;
            operand = self.node(at, Kind::Index { operand: Box::new(operand), index, is_optional })?;
        }
    }

    fn primary(&mut self) -> Result<Expr, CompileError> {
        let at = self.position();
        let kind = match self.advance() {
            TokenKind::Int(number) => Kind::Int(number),
            TokenKind::Uint(number) => Kind::Uint(number),
            TokenKind::Double(number) => Kind::Double(number),
            TokenKind::String(text) => Kind::String(text.into()),
            TokenKind::Bytes(bytes) => Kind::Bytes(bytes.into()),
            TokenKind::Identifier(word) => match word.as_str() {
                "true" => Kind::Bool(true),
                "false" => Kind::Bool(false),
                "null" => Kind::Null,
                _ if self.take("(") => return self.function(at, word),
                _ => Kind::Variable(word),
            },
            TokenKind::Symbol("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            TokenKind::Symbol("[") => Kind::List(self.list("]")?),
            TokenKind::Symbol("{") => Kind::Map(self.entries()?),
            other => {
                self.at -= 1;
                return Err(self.error(format!("Syntax error: mismatched input {}", said(&other))));
            }
        };
        self.node(at, kind)
    }

    /// Expressions up to the closing symbol; a comma may stand before it.
    fn list(&mut self, close: &str) -> Result<Vec<Expr>, CompileError> {
        let mut entries = Vec::new();
        while !self.take(close) {
            entries.push(self.expression()?);
            if !self.take(",") {
                self.expect(close)?;
                break;
            }
        }
        Ok(entries)
    }

    fn entries(&mut self) -> Result<Vec<(Expr, Expr)>, CompileError> {
        let mut entries = Vec::new();
        while !self.take("}") {
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(entries)
    }

    fn function(&mut self, at: usize, name: String) -> Result<Expr, CompileError> {
        let mut arguments = self.list(")")?;
        if name != "has" {
            return self.call(at, name, false, arguments);
        }
        match (arguments.pop().map(|argument| argument.kind), arguments.is_empty()) {
            (Some(Kind::Select { operand, field, is_optional: false }), true) => {
                self.node(at, Kind::Has { operand, field })
            }
            _ => Err(self.error("invalid argument to has() macro")),
        }
    }

    fn method(&mut self, at: usize, target: Expr, name: String) -> Result<Expr, CompileError> {
        let mut arguments = self.list(")")?;
        let macro_ = match (name.as_str(), arguments.len()) {
            ("all", 2) => Macro::All,
            ("exists", 2) => Macro::Exists,
            ("exists_one" | "existsOne", 2) => Macro::ExistsOne,
            ("map", 2 | 3) => Macro::Map,
            ("filter", 2) => Macro::Filter,
            ("optMap", 2) => Macro::OptMap,
            ("optFlatMap", 2) => Macro::OptFlatMap,
            _ => {
                // `sets.contains(a, b)` reads like a method of a variable, and is a function.
                if let Kind::Variable(namespace) = &target.kind
                    && signatures::is_known(&format!("{namespace}.{name}"), false, arguments.len())
                {
                    return self.call(at, format!("{namespace}.{name}"), false, arguments);
                }
                arguments.insert(0, target);
                return self.call(at, name, true, arguments);
            }
        };
        let body = arguments.pop();
        let filter = if arguments.len() == 2 { arguments.pop() } else { None };
        match (arguments.pop().map(|argument| argument.kind), body) {
            (Some(Kind::Variable(variable)), Some(body)) => {
                let parts = Comprehension { macro_, range: target, variable, filter, body };
                self.node(at, Kind::Comprehension(Box::new(parts)))
            }
            _ => Err(self.error("argument is not an identifier")),
        }
    }

    fn call(
        &mut self,
        at: usize,
        function: String,
        is_method: bool,
        arguments: Vec<Expr>,
    ) -> Result<Expr, CompileError> {
        let given = arguments.len() - usize::from(is_method);
        if !signatures::is_known(&function, is_method, given) {
            self.at -= 1;
            return Err(self.error(if signatures::is_name(&function) {
                format!("found no matching overload for '{function}'")
            } else {
                format!("undeclared reference to '{function}' (in container '')")
            }));
        }
        let pattern = match arguments.get(1).map(|pattern| &pattern.kind) {
            Some(Kind::String(text)) if takes_pattern(&function) => Some(
                pattern::compile(text)
                    .map_err(|error| self.error(format!("invalid matches argument: {error}")))?,
            ),
            _ => None,
        };
        self.node(at, Kind::Call(Call { function, arguments, is_method, is_dynamic: false, pattern }))
    }
}

fn takes_pattern(name: &str) -> bool {
    matches!(name, "matches" | "find" | "findAll")
}

fn said(kind: &TokenKind) -> String {
    match kind {
        TokenKind::Identifier(word) => format!("'{word}'"),
        TokenKind::Symbol(symbol) => format!("'{symbol}'"),
        TokenKind::End => "'<EOF>'".into(),
        TokenKind::Int(number) => format!("'{number}'"),
        TokenKind::Uint(number) => format!("'{number}u'"),
        TokenKind::Double(number) => format!("'{number}'"),
        TokenKind::String(text) => format!("{text:?}"),
        TokenKind::Bytes(_) => "bytes".into(),
        TokenKind::LowestInt => "'9223372036854775808'".into(),
    }
}
