//! Comma-separated values as a model's input tensors.

use csv::{ByteRecord, ReaderBuilder};
use half::{bf16, f16};
use types::{CsvInput, Header};

use super::error::bound;
use super::{StepError, limits};
use crate::{Datatype, Limits, Signature, Tensor, TensorSpec};

/// A declared table, fitted to a model's inputs.
#[derive(Clone, Debug)]
pub struct Table {
    header: Header,
    columns: Vec<String>,
    delimiter: u8,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    /// One input takes all columns; how many, where the model says so.
    Whole { input: TensorSpec, width: Option<usize> },
    /// Each input takes one column.
    Columns(Vec<TensorSpec>),
}

fn misfit(field: &str, problem: impl Into<String>) -> StepError {
    StepError::declaration(&format!("preprocessing.csv{field}"), problem)
}

impl Table {
    pub fn compile(declared: &CsvInput, signature: &Signature) -> Result<Table, StepError> {
        let delimiter = match declared.delimiter.as_deref().map(str::as_bytes) {
            None => b',',
            Some(&[delimiter]) if delimiter != b'"' => delimiter,
            Some(_) => return Err(misfit(".delimiter", "must be one ASCII character, and no quote")),
        };
        let shape = match signature.inputs.as_slice() {
            [] => return Err(misfit("", "fills inputs, but the model takes none")),
            [input] => whole(input, &declared.columns)?,
            inputs => columns(inputs, &declared.columns)?,
        };
        Ok(Table { header: declared.header, columns: declared.columns.clone(), delimiter, shape })
    }

    pub fn apply(&self, content: &[u8]) -> Result<Vec<Tensor>, StepError> {
        bound("bytes of a table", content.len(), limits::BYTES)?;
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let mut reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(self.delimiter)
            .from_reader(content);
        let mut record = ByteRecord::new();
        let mut next = |record: &mut ByteRecord| {
            reader
                .read_byte_record(record)
                .map_err(|error| StepError::table(format!("can't be read: {error}")))
        };
        if !next(&mut record)? {
            return Err(StepError::table("is empty; send at least one row"));
        }
        let width = record.len();
        bound("columns of a table", width, limits::COLUMNS)?;
        let picks = self.pick(&record)?;
        let mut filling = Filling::new(&self.shape, picks.order.len());
        let mut row = 1;
        let mut more = !picks.is_header || {
            row += 1;
            next(&mut record)?
        };
        while more {
            if record.len() != width {
                let problem = format!(
                    "has {} values in row {row} but {width} in the first; make them equal",
                    record.len()
                );
                return Err(StepError::table(problem));
            }
            bound("rows of a table", filling.rows + 1, limits::ROWS)?;
            filling.push(&picks.order, &record, row)?;
            row += 1;
            more = next(&mut record)?;
        }
        filling.finish()
    }

    /// Which columns of the content are taken, in the model's order, and whether its first row is a header.
    fn pick(&self, first: &ByteRecord) -> Result<Picks, StepError> {
        let wanted: Vec<&str> = match &self.shape {
            _ if !self.columns.is_empty() => self.columns.iter().map(String::as_str).collect(),
            Shape::Columns(inputs) => inputs.iter().map(|input| input.name.as_str()).collect(),
            Shape::Whole { .. } => vec![],
        };
        let position = |name: &str| first.iter().position(|cell| trim(cell) == name.as_bytes());
        let found: Vec<Option<usize>> = wanted.iter().map(|name| position(name)).collect();
        let all_found = !wanted.is_empty() && found.iter().all(Option::is_some);
        let is_header = match self.header {
            Header::Present => true,
            Header::Absent => false,
            Header::Auto => all_found || self.has_words(first),
        };
        let order: Vec<usize> = if is_header && !wanted.is_empty() {
            let missing = found.iter().zip(&wanted).find(|(at, _)| at.is_none());
            if let Some((_, name)) = missing {
                let named = shown_names(first);
                return Err(StepError::table(format!("has no column `{name}`; its columns are {named}")));
            }
            found.into_iter().flatten().collect()
        } else {
            (0..first.len()).collect()
        };
        let width = match &self.shape {
            _ if !wanted.is_empty() => Some(wanted.len()),
            Shape::Whole { width, .. } => *width,
            Shape::Columns(inputs) => Some(inputs.len()),
        };
        match width {
            Some(width) if width != order.len() => {
                let problem = format!("has {} columns, but the model takes {width}", order.len());
                Err(StepError::table(problem))
            }
            _ => Ok(Picks { order, is_header }),
        }
    }

    /// Whether a value is no number where the model takes one.
    fn has_words(&self, first: &ByteRecord) -> bool {
        let is_word = |(at, cell): (usize, &[u8])| {
            let input = match &self.shape {
                Shape::Whole { input, .. } => Some(input),
                Shape::Columns(inputs) => inputs.get(at),
            };
            input.is_some_and(|input| push(input.datatype, cell, &mut vec![]).is_none())
        };
        first.iter().enumerate().any(is_word)
    }
}

struct Picks {
    order: Vec<usize>,
    is_header: bool,
}

fn whole(input: &TensorSpec, columns: &[String]) -> Result<Shape, StepError> {
    let width = match input.shape.as_deref() {
        None | Some([_, ..=-1]) => None,
        Some([_]) => Some(1),
        Some(&[_, width]) => usize::try_from(width).ok(),
        Some(shape) => {
            let problem = format!(
                "can't fill input `{}`, whose shape is {shape:?}: a table is [rows, columns]",
                input.name
            );
            return Err(misfit("", problem));
        }
    };
    match width {
        Some(width) if !columns.is_empty() && columns.len() != width => {
            let problem =
                format!("names {} columns, but input `{}` takes {width}", columns.len(), input.name);
            Err(misfit(".columns", problem))
        }
        _ => Ok(Shape::Whole { input: input.clone(), width }),
    }
}

fn columns(inputs: &[TensorSpec], columns: &[String]) -> Result<Shape, StepError> {
    let is_column = |input: &TensorSpec| matches!(input.shape.as_deref(), None | Some([_] | [_, ..=1]));
    if let Some(other) = inputs.iter().find(|input| !is_column(input)) {
        let shape = other.shape.as_deref().unwrap_or_default();
        let problem = format!("gives each input one column, but input `{}` has shape {shape:?}", other.name);
        return Err(misfit("", problem));
    }
    if !columns.is_empty() && columns.len() != inputs.len() {
        let problem =
            format!("names {} columns for {} inputs; name one for each", columns.len(), inputs.len());
        return Err(misfit(".columns", problem));
    }
    Ok(Shape::Columns(inputs.to_vec()))
}

/// Tensors as they grow, row by row, in the bytes of the wire.
struct Filling<'a> {
    inputs: Vec<(&'a TensorSpec, Vec<u8>)>,
    width: usize,
    rows: usize,
}

impl<'a> Filling<'a> {
    fn new(shape: &'a Shape, width: usize) -> Filling<'a> {
        match shape {
            Shape::Whole { input, .. } => Filling { inputs: vec![(input, vec![])], width, rows: 0 },
            Shape::Columns(inputs) => {
                Filling { inputs: inputs.iter().map(|input| (input, vec![])).collect(), width: 1, rows: 0 }
            }
        }
    }

    fn push(&mut self, order: &[usize], record: &ByteRecord, row: usize) -> Result<(), StepError> {
        let elements = (self.rows + 1).saturating_mul(order.len());
        bound("values of a table", elements, Limits::default().elements)?;
        for (at, &column) in order.iter().enumerate() {
            let cell = record.get(column).unwrap_or_default();
            let at = if self.width == 1 && self.inputs.len() > 1 { at } else { 0 };
            let Some((input, data)) = self.inputs.get_mut(at) else { continue };
            if push(input.datatype, cell, data).is_none() {
                let cell: String = String::from_utf8_lossy(cell).chars().take(64).collect();
                let problem = format!(
                    "has `{cell}` in row {row}, column {}, which is no {}",
                    column + 1,
                    input.datatype
                );
                return Err(StepError::table(problem));
            }
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(self) -> Result<Vec<Tensor>, StepError> {
        if self.rows == 0 {
            return Err(StepError::table("has a header and no rows; send at least one row"));
        }
        let tensor = |(input, data): (&TensorSpec, Vec<u8>)| {
            let is_flat = input.shape.as_ref().is_some_and(|shape| shape.len() == 1);
            let shape = if is_flat { vec![self.rows] } else { vec![self.rows, self.width] };
            Ok(Tensor::from_bytes(&input.name, input.datatype, shape, data.into())?)
        };
        self.inputs.into_iter().map(tensor).collect()
    }
}

/// Appends a value in the bytes of the wire; `None` where it is none of this type. Nothing is not a number.
fn push(datatype: Datatype, cell: &[u8], data: &mut Vec<u8>) -> Option<()> {
    if datatype == Datatype::Bytes {
        data.extend(u32::try_from(cell.len()).ok()?.to_le_bytes());
        data.extend(cell);
        return Some(());
    }
    let text = std::str::from_utf8(trim(cell)).ok()?;
    let float = || if text.is_empty() { Some(f64::NAN) } else { text.parse::<f64>().ok() };
    match datatype {
        Datatype::Fp32 if text.is_empty() => data.extend(f32::NAN.to_le_bytes()),
        Datatype::Fp32 => data.extend(text.parse::<f32>().ok()?.to_le_bytes()),
        Datatype::Fp64 => data.extend(float()?.to_le_bytes()),
        Datatype::Fp16 => data.extend(f16::from_f64(float()?).to_le_bytes()),
        Datatype::Bf16 => data.extend(bf16::from_f64(float()?).to_le_bytes()),
        Datatype::Bool => match text {
            "1" | "true" | "True" | "TRUE" => data.push(1),
            "0" | "false" | "False" | "FALSE" => data.push(0),
            _ => return None,
        },
        Datatype::Uint8 => data.extend(text.parse::<u8>().ok()?.to_le_bytes()),
        Datatype::Uint16 => data.extend(text.parse::<u16>().ok()?.to_le_bytes()),
        Datatype::Uint32 => data.extend(text.parse::<u32>().ok()?.to_le_bytes()),
        Datatype::Uint64 => data.extend(text.parse::<u64>().ok()?.to_le_bytes()),
        Datatype::Int8 => data.extend(text.parse::<i8>().ok()?.to_le_bytes()),
        Datatype::Int16 => data.extend(text.parse::<i16>().ok()?.to_le_bytes()),
        Datatype::Int32 => data.extend(text.parse::<i32>().ok()?.to_le_bytes()),
        Datatype::Int64 => data.extend(text.parse::<i64>().ok()?.to_le_bytes()),
        Datatype::Bytes => return None,
    }
    Some(())
}

fn trim(cell: &[u8]) -> &[u8] {
    cell.trim_ascii()
}

fn shown_names(record: &ByteRecord) -> String {
    let names = record.iter().take(16).map(|cell| {
        let name: String = String::from_utf8_lossy(cell).chars().take(64).collect();
        format!("`{name}`")
    });
    let more = if record.len() > 16 { ", …" } else { "" };
    format!("{}{more}", names.collect::<Vec<_>>().join(", "))
}
