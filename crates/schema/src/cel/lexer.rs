//! From text to tokens.

use super::{CompileError, literals};

/// One token and where it begins, in bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    pub kind: TokenKind,
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub enum TokenKind {
    Identifier(String),
    Int(i64),
    /// The magnitude of an integer that only fits with a minus before it.
    LowestInt,
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    Symbol(&'static str),
    End,
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 25] = [
    "&&", "||", "==", "!=", "<=", ">=", "[?", ".?", "(", ")", "[", "]", "{", "}", ",", ".", ":", "?", "!",
    "<", ">", "+", "-", "*", "/",
];

pub fn tokens(source: &str) -> Result<Vec<Token>, CompileError> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let kind = lexer.next()?;
        let is_end = kind == TokenKind::End;
        tokens.push(Token { kind, at });
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let length = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn take(&mut self, text: &str) -> bool {
        let is_next = self.rest().starts_with(text);
        if is_next {
            self.at += text.len();
        }
        is_next
    }

    fn error(&self, at: usize, problem: impl Into<String>) -> CompileError {
        CompileError::at(self.source, at, problem)
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(char::is_whitespace);
            if !self.rest().starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn next(&mut self) -> Result<TokenKind, CompileError> {
        let start = self.at;
        let mut ahead = self.rest().chars();
        let Some(first) = ahead.next() else { return Ok(TokenKind::End) };
        let second = ahead.next();
        if matches!(first, '"' | '\'') {
            return self.string(false).map(TokenKind::String);
        }
        if matches!((first, second), ('r' | 'R', Some('"' | '\''))) {
            self.at += 1;
            return self.string(true).map(TokenKind::String);
        }
        // Bytes, raw or not: b"a", rb"a", br"a".
        let prefix: String = self.rest().chars().take_while(char::is_ascii_alphabetic).take(3).collect();
        let is_quoted = self.rest().get(prefix.len()..).is_some_and(|rest| rest.starts_with(['"', '\'']));
        if is_quoted && matches!(prefix.to_ascii_lowercase().as_str(), "b" | "br" | "rb") {
            self.at += prefix.len();
            return self.quoted(prefix.len() == 2, true).map(TokenKind::Bytes);
        }
        if first.is_ascii_digit() || (first == '.' && second.is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let word = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
            return Ok(TokenKind::Identifier(word.to_owned()));
        }
        // Field names between backquotes are taken as they are.
        if self.take("`") {
            let name =
                self.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' '));
            if name.is_empty() || !self.take("`") {
                return Err(self.error(start, "unterminated quoted identifier"));
            }
            return Ok(TokenKind::Identifier(name.to_owned()));
        }
        if self.take("%") {
            return Ok(TokenKind::Symbol("%"));
        }
        match SYMBOLS.iter().find(|symbol| self.rest().starts_with(**symbol)) {
            Some(symbol) => {
                self.at += symbol.len();
                Ok(TokenKind::Symbol(symbol))
            }
            None => Err(self.error(start, format!("token recognition error at: '{first}'"))),
        }
    }

    fn number(&mut self) -> Result<TokenKind, CompileError> {
        let start = self.at;
        if self.take("0x") || self.take("0X") {
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            let number =
                u64::from_str_radix(digits, 16).map_err(|_| self.error(start, "invalid int literal"))?;
            return self.whole(start, number);
        }
        self.take_while(|c| c.is_ascii_digit());
        let mut is_double = false;
        // `1.max()` is a call on 1, `1.5` a number.
        if self.rest().starts_with('.') && self.rest().chars().nth(1).is_some_and(|c| c.is_ascii_digit()) {
            is_double = true;
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        if self.take("e") || self.take("E") {
            is_double = true;
            let _ = self.take("+") || self.take("-");
            self.take_while(|c| c.is_ascii_digit());
        }
        let text = self.source.get(start..self.at).unwrap_or_default();
        if is_double {
            let number = literals::double(text).ok_or_else(|| self.error(start, "invalid double literal"))?;
            return Ok(TokenKind::Double(number));
        }
        let number = text.parse().map_err(|_| self.error(start, "invalid int literal"))?;
        self.whole(start, number)
    }

    fn whole(&mut self, start: usize, number: u64) -> Result<TokenKind, CompileError> {
        if self.take("u") || self.take("U") {
            return Ok(TokenKind::Uint(number));
        }
        match i64::try_from(number) {
            Ok(number) => Ok(TokenKind::Int(number)),
            Err(_) if number == i64::MIN.unsigned_abs() => Ok(TokenKind::LowestInt),
            Err(_) => Err(self.error(start, "invalid int literal")),
        }
    }

    fn string(&mut self, is_raw: bool) -> Result<String, CompileError> {
        let start = self.at;
        String::from_utf8(self.quoted(is_raw, false)?).map_err(|_| self.error(start, "invalid UTF-8"))
    }

    /// A text, or bytes, where `\\xff` is one byte and no character.
    fn quoted(&mut self, is_raw: bool, is_bytes: bool) -> Result<Vec<u8>, CompileError> {
        let start = self.at;
        let quote = ["\"\"\"", "'''", "\"", "'"]
            .into_iter()
            .find(|quote| self.rest().starts_with(quote))
            .unwrap_or("'");
        self.at += quote.len();
        let mut text = Vec::new();
        let mut buffer = [0; 4];
        loop {
            if self.take(quote) {
                return Ok(text);
            }
            let Some(next) = self.rest().chars().next() else {
                return Err(self.error(start, "unterminated string"));
            };
            self.at += next.len_utf8();
            match next {
                '\n' if quote.len() == 1 => return Err(self.error(start, "unterminated string")),
                '\\' if !is_raw => {
                    let is_byte = is_bytes && self.rest().starts_with(|c| matches!(c, 'x' | 'X' | '0'..='3'));
                    let escaped = self.escape()?;
                    match u8::try_from(escaped) {
                        Ok(byte) if is_byte => text.push(byte),
                        _ => text.extend_from_slice(escaped.encode_utf8(&mut buffer).as_bytes()),
                    }
                }
                '\\' => {
                    text.push(b'\\');
                    if let Some(next) = self.rest().chars().next() {
                        self.at += next.len_utf8();
                        text.extend_from_slice(next.encode_utf8(&mut buffer).as_bytes());
                    }
                }
                _ => text.extend_from_slice(next.encode_utf8(&mut buffer).as_bytes()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, CompileError> {
        let start = self.at.saturating_sub(1);
        let Some(letter) = self.rest().chars().next() else {
            return Err(self.error(start, "unterminated string"));
        };
        self.at += letter.len_utf8();
        let digits = match letter {
            'a' => return Ok('\u{7}'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\u{b}'),
            '\\' | '\'' | '"' | '`' | '?' => return Ok(letter),
            'x' | 'X' => 2,
            'u' => 4,
            'U' => 8,
            '0'..='3' => return self.code_point(start, self.at - 1, 3, 8),
            _ => return Err(self.error(start, "invalid escape sequence")),
        };
        self.code_point(start, self.at, digits, 16)
    }

    fn code_point(
        &mut self,
        start: usize,
        from: usize,
        digits: usize,
        radix: u32,
    ) -> Result<char, CompileError> {
        self.at = from + digits;
        let number =
            self.source.get(from..self.at).and_then(|digits| u32::from_str_radix(digits, radix).ok());
        number.and_then(char::from_u32).ok_or_else(|| self.error(start, "invalid escape sequence"))
    }
}
