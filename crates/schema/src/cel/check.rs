//! Types that are known beforehand: what no overload takes is refused before it is evaluated.

use super::CompileError;
use super::functions;
use super::signatures::{self, Resolved};
use super::syntax::{Call, Comprehension, Expr, Kind, Macro, Operator};
use super::types::{BOOL, INT, Type};

/// Where a mismatch lies, in bytes, and what it is.
pub type Mismatch = (usize, String);

/// Finds the type of an expression, and notes in it which overloads are only known when it is evaluated.
pub fn check(source: &str, root: &mut Expr, variables: &[(&str, Type)]) -> Result<Type, CompileError> {
    let mut checker = Checker { bound: Vec::new(), variables };
    checker.check(root).map_err(|(at, problem)| CompileError::at(source, at, problem))
}

struct Checker<'c> {
    bound: Vec<(String, Type)>,
    variables: &'c [(&'c str, Type)],
}

fn mismatch(at: usize, function: &str, is_method: bool, given: &[Type]) -> Mismatch {
    let all: Vec<String> = given.iter().map(Type::to_string).collect();
    let said = match all.split_first() {
        Some((target, rest)) if is_method => format!("{target}.({})", rest.join(", ")),
        _ => format!("({})", all.join(", ")),
    };
    (at, format!("found no matching overload for '{function}' applied to '{said}'"))
}

impl Checker<'_> {
    fn check(&mut self, expr: &mut Expr) -> Result<Type, Mismatch> {
        let at = expr.at;
        Ok(match &mut expr.kind {
            Kind::Null => Type::Null,
            Kind::Bool(_) => BOOL,
            Kind::Int(_) => INT,
            Kind::Uint(_) => Type::Plain("uint"),
            Kind::Double(_) => Type::Plain("double"),
            Kind::String(_) => Type::Plain("string"),
            Kind::Bytes(_) => Type::Plain("bytes"),
            Kind::Variable(name) => self.variable(name),
            Kind::List(entries) => Type::list(self.joined(entries.iter_mut())?),
            Kind::Map(entries) => {
                let keys = self.joined(entries.iter_mut().map(|(key, _)| key))?;
                let values = self.joined(entries.iter_mut().map(|(_, value)| value))?;
                Type::Map(Box::new(keys), Box::new(values))
            }
            Kind::Select { operand, is_optional, .. } => {
                let operand = self.check(operand)?;
                field(at, operand, *is_optional)?
            }
            Kind::Has { operand, .. } => {
                let operand = self.check(operand)?;
                field(at, operand, false)?;
                BOOL
            }
            Kind::Index { operand, index, is_optional } => {
                let (operand, index) = (self.check(operand)?, self.check(index)?);
                entry(at, operand, index, *is_optional)?
            }
            Kind::Not(operand) => {
                let operand = self.check(operand)?;
                if !BOOL.fits(&operand) {
                    return Err(mismatch(at, "!_", false, &[operand]));
                }
                BOOL
            }
            Kind::Negate(operand) => {
                let given = [self.check(operand)?];
                signatures::resolve("-_", false, &given)
                    .ok_or_else(|| mismatch(at, "-_", false, &given))?
                    .result
            }
            Kind::And(terms) => self.terms(at, "_&&_", terms)?,
            Kind::Or(terms) => self.terms(at, "_||_", terms)?,
            Kind::Binary { operator, left, right, is_dynamic } => {
                let given = [self.check(left)?, self.check(right)?];
                let found =
                    binary(*operator, &given).ok_or_else(|| mismatch(at, operator.name(), false, &given))?;
                *is_dynamic = found.is_dynamic;
                found.result
            }
            Kind::Conditional(three) => {
                let given = [self.check(&mut three.0)?, self.check(&mut three.1)?, self.check(&mut three.2)?];
                let [condition, then, otherwise] = &given;
                if !BOOL.fits(condition) || !then.fits(otherwise) {
                    return Err(mismatch(at, "_?_:_", false, &given));
                }
                then.clone().or(otherwise.clone())
            }
            Kind::Call(call) => self.call(at, call)?,
            Kind::Comprehension(one) => self.comprehension(at, one)?,
        })
    }

    fn variable(&self, name: &str) -> Type {
        if let Some((_, type_)) = self.bound.iter().rev().find(|(bound, _)| bound == name) {
            return type_.clone();
        }
        match self.variables.iter().find(|(known, _)| *known == name) {
            Some((_, type_)) => type_.clone(),
            None if functions::is_type(name) => Type::Plain("type"),
            None => Type::Dyn,
        }
    }

    fn joined<'e>(&mut self, mut entries: impl Iterator<Item = &'e mut Expr>) -> Result<Type, Mismatch> {
        let Some(first) = entries.next() else { return Ok(Type::Dyn) };
        let mut joined = self.check(first)?;
        for entry in entries {
            joined = joined.or(self.check(entry)?);
        }
        Ok(joined)
    }

    fn terms(&mut self, at: usize, name: &str, terms: &mut [Expr]) -> Result<Type, Mismatch> {
        let given = terms.iter_mut().map(|term| self.check(term)).collect::<Result<Vec<_>, _>>()?;
        match given.iter().all(|term| BOOL.fits(term)) {
            true => Ok(BOOL),
            false => Err(mismatch(at, name, false, &given)),
        }
    }

    fn call(&mut self, at: usize, call: &mut Call) -> Result<Type, Mismatch> {
        let given =
            call.arguments.iter_mut().map(|argument| self.check(argument)).collect::<Result<Vec<_>, _>>()?;
        let found = signatures::resolve(&call.function, call.is_method, &given)
            .ok_or_else(|| mismatch(at, &call.function, call.is_method, &given))?;
        call.is_dynamic = found.is_dynamic;
        Ok(found.result)
    }

    fn comprehension(&mut self, at: usize, one: &mut Comprehension) -> Result<Type, Mismatch> {
        let is_of_optional = matches!(one.macro_, Macro::OptMap | Macro::OptFlatMap);
        let range = self.check(&mut one.range)?;
        let each = match range {
            Type::List(entry) if !is_of_optional => *entry,
            Type::Map(key, _) if !is_of_optional => *key,
            Type::Optional(inner) if is_of_optional => *inner,
            Type::Dyn => Type::Dyn,
            other if is_of_optional => return Err(mismatch(at, "hasValue", true, &[other])),
            other => {
                let problem = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return Err((at, problem));
            }
        };
        self.bound.push((one.variable.clone(), each.clone()));
        let filter = one.filter.as_mut().map(|filter| self.check(filter)).transpose();
        let body = self.check(&mut one.body);
        self.bound.pop();
        let (filter, body) = (filter?, body?);
        let test = match one.macro_ {
            Macro::Map => filter,
            Macro::OptMap | Macro::OptFlatMap => None,
            _ => Some(body.clone()),
        };
        if let Some(test) = test.filter(|test| !BOOL.fits(test)) {
            return Err((at, format!("expected type 'bool' but found '{test}'")));
        }
        Ok(match one.macro_ {
            Macro::All | Macro::Exists | Macro::ExistsOne => BOOL,
            Macro::Filter => Type::list(each),
            Macro::Map => Type::list(body),
            Macro::OptMap => Type::Optional(Box::new(body)),
            Macro::OptFlatMap => body,
        })
    }
}

fn field(at: usize, operand: Type, is_optional: bool) -> Result<Type, Mismatch> {
    let found = match operand {
        Type::Map(_, value) => *value,
        Type::Optional(inner) => return field(at, *inner, true),
        Type::Plain("bool" | "int" | "uint" | "double" | "string" | "bytes") | Type::List(_) | Type::Null => {
            return Err((at, format!("type '{operand}' does not support field selection")));
        }
        _ => Type::Dyn,
    };
    Ok(if is_optional { Type::Optional(Box::new(found)) } else { found })
}

fn entry(at: usize, operand: Type, index: Type, is_optional: bool) -> Result<Type, Mismatch> {
    let found = match &operand {
        Type::List(entry) if INT.fits(&index) => entry.as_ref().clone(),
        Type::Map(key, value) if key.fits(&index) => value.as_ref().clone(),
        Type::Optional(inner) => return entry(at, inner.as_ref().clone(), index, true),
        Type::Dyn => Type::Dyn,
        _ => return Err(mismatch(at, "_[_]", false, &[operand, index])),
    };
    Ok(if is_optional { Type::Optional(Box::new(found)) } else { found })
}

fn binary(operator: Operator, given: &[Type; 2]) -> Option<Resolved> {
    let [left, right] = given;
    let is_bool = |is_dynamic| Some(Resolved { result: BOOL, is_dynamic });
    match operator {
        Operator::Equal | Operator::NotEqual => left.fits(right).then_some(())?,
        Operator::In => match right {
            Type::List(part) | Type::Map(part, _) if part.fits(left) => {}
            Type::Dyn => return is_bool(true),
            _ => return None,
        },
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            return signatures::resolve("_<_", false, given);
        }
        Operator::Add => {
            let mut found = signatures::resolve(operator.name(), false, given)?;
            if matches!(found.result, Type::List(_)) {
                found.result = left.clone().or(right.clone());
            }
            return Some(found);
        }
        _ => return signatures::resolve(operator.name(), false, given),
    }
    is_bool(false)
}
