//! From tokens to a tree, no deeper than [`MAX_DEPTH`](super::MAX_DEPTH).

use super::functions;
use super::lexer::{Token, TokenKind, tokens};
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
        let at = self.tokens.get(self.at).map_or(self.source.len(), |token| token.at);
        CompileError::at(self.source, at, problem)
    }

    fn node(&self, kind: Kind) -> Result<Expr, CompileError> {
        let mut expr = Expr { kind, depth: 1 };
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
        let expr = if self.take("?") {
            let then = self.any()?;
            self.expect(":")?;
            let otherwise = self.expression()?;
            self.node(Kind::Conditional(Box::new((condition, then, otherwise))))?
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
                self.node(kind(terms))
            }
            None => Err(self.error("Syntax error: empty expression")),
        }
    }

    fn binary(&mut self, level: usize) -> Result<Expr, CompileError> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some((_, operator)) = operators.iter().find(|(symbol, _)| self.take(symbol)) {
            let right = self.binary(level + 1)?;
            left = self.node(Kind::Binary(*operator, Box::new(left), Box::new(right)))?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, CompileError> {
        let mut signs = Vec::new();
        loop {
            if self.take("!") {
                signs.push('!');
            } else if self.take("-") {
                match self.peek().clone() {
                    // The number below zero may have no positive counterpart.
                    TokenKind::LowestInt => {
                        self.at += 1;
                        let lowest = self.node(Kind::Int(i64::MIN))?;
                        return self.signed(lowest, signs);
                    }
                    _ => signs.push('-'),
                }
            } else {
                break;
            }
        }
        let operand = self.postfix()?;
        self.signed(operand, signs)
    }

    fn signed(&self, mut operand: Expr, signs: Vec<char>) -> Result<Expr, CompileError> {
        for sign in signs.into_iter().rev() {
            let wrap = if sign == '!' { Kind::Not } else { Kind::Negate };
            operand = self.node(wrap(Box::new(operand)))?;
        }
        Ok(operand)
    }

    fn postfix(&mut self) -> Result<Expr, CompileError> {
        let mut operand = self.primary()?;
        loop {
            let is_optional = self.take(".?");
            if is_optional || self.take(".") {
                let TokenKind::Identifier(name) = self.advance() else {
                    self.at -= 1;
                    return Err(self.error("Syntax error: no viable alternative after '.'"));
                };
                operand = if !is_optional && self.take("(") {
                    self.method(operand, name)?
                } else {
                    self.node(Kind::Select {
                        operand: Box::new(operand),
                        field: Field::named(name),
                        is_optional,
                    })?
                };
                continue;
            }
            let is_optional = self.take("[?");
            if !is_optional && !self.take("[") {
                return Ok(operand);
            }
            let index = Box::new(self.expression()?);
            self.expect("]")?;
            operand = self.node(Kind::Index { operand: Box::new(operand), index, is_optional })?;
        }
    }

    fn primary(&mut self) -> Result<Expr, CompileError> {
        let kind = match self.advance() {
            TokenKind::Int(number) => Kind::Int(number),
            TokenKind::Uint(number) => Kind::Uint(number),
            TokenKind::Double(number) => Kind::Double(number),
            TokenKind::String(text) => Kind::String(text.into()),
            TokenKind::Identifier(word) => match word.as_str() {
                "true" => Kind::Bool(true),
                "false" => Kind::Bool(false),
                "null" => Kind::Null,
                _ if self.take("(") => return self.function(word),
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
        self.node(kind)
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

    fn function(&mut self, name: String) -> Result<Expr, CompileError> {
        let mut arguments = self.list(")")?;
        if name != "has" {
            return self.call(name, false, arguments);
        }
        match (arguments.pop().map(|argument| argument.kind), arguments.is_empty()) {
            (Some(Kind::Select { operand, field, is_optional: false }), true) => {
                self.node(Kind::Has { operand, field })
            }
            _ => Err(self.error("invalid argument to has() macro")),
        }
    }

    fn method(&mut self, target: Expr, name: String) -> Result<Expr, CompileError> {
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
                    && functions::is_known(&format!("{namespace}.{name}"), false, arguments.len())
                {
                    return self.call(format!("{namespace}.{name}"), false, arguments);
                }
                arguments.insert(0, target);
                return self.call(name, true, arguments);
            }
        };
        let body = arguments.pop();
        let filter = if arguments.len() == 2 { arguments.pop() } else { None };
        match (arguments.pop().map(|argument| argument.kind), body) {
            (Some(Kind::Variable(variable)), Some(body)) => {
                let parts = Comprehension { macro_, range: target, variable, filter, body };
                self.node(Kind::Comprehension(Box::new(parts)))
            }
            _ => Err(self.error("argument is not an identifier")),
        }
    }

    fn call(
        &mut self,
        function: String,
        is_method: bool,
        arguments: Vec<Expr>,
    ) -> Result<Expr, CompileError> {
        let given = arguments.len() - usize::from(is_method);
        if !functions::is_known(&function, is_method, given) {
            self.at -= 1;
            return Err(self.error(if functions::is_name(&function) {
                format!("found no matching overload for '{function}'")
            } else {
                format!("undeclared reference to '{function}' (in container '')")
            }));
        }
        let pattern = match arguments.last().map(|last| &last.kind) {
            Some(Kind::String(text)) if functions::takes_pattern(&function) => Some(
                pattern::compile(text)
                    .map_err(|error| self.error(format!("invalid matches argument: {error}")))?,
            ),
            _ => None,
        };
        self.node(Kind::Call(Call { function, arguments, pattern }))
    }
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
        TokenKind::LowestInt => "'9223372036854775808'".into(),
    }
}
