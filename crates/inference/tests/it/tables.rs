//! Tables become the tensors that a model takes.

use avocet_inference::steps::{Input, StepError};
use avocet_inference::{Datatype, Signature, Tensor, TensorSpec};
use proptest::prelude::*;
use types::{CsvInput, Header, Preprocessing};

fn spec(name: &str, datatype: Datatype, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: name.into(), datatype, shape: Some(shape.to_vec()) }
}

fn compile(csv: CsvInput, inputs: &[TensorSpec]) -> Result<Input, StepError> {
    let signature = Signature { inputs: inputs.to_vec(), outputs: vec![] };
    Input::compile(&Preprocessing { image: None, csv: Some(csv) }, &signature)
}

fn read(csv: CsvInput, inputs: &[TensorSpec], content: &str) -> Result<Vec<Tensor>, StepError> {
    compile(csv, inputs).unwrap().csv(content.as_bytes())
}

fn iris() -> [TensorSpec; 1] {
    [spec("x", Datatype::Fp32, &[-1, 2])]
}

fn numbers(tensors: &[Tensor]) -> Vec<f32> {
    tensors[0].elements::<f32>().unwrap().to_vec()
}

#[test]
fn rows_become_one_tensor_with_or_without_a_header() {
    for content in [
        "5.1,3.5\n4.9,3\n",
        "5.1,3.5\r\n4.9,3",
        "length,width\n5.1,3.5\n4.9,3\n",
        "\u{feff}a,b\n 5.1, 3.5\n4.9 ,3\n",
        "\"a\",\"b, c\"\n\"5.1\",3.5\n\n4.9,3\n",
    ] {
        let tensors = read(CsvInput::default(), &iris(), content).unwrap();
        assert_eq!(
            (tensors.len(), tensors[0].name(), tensors[0].shape()),
            (1, "x", &[2, 2][..]),
            "{content}"
        );
        assert_eq!(numbers(&tensors), [5.1, 3.5, 4.9, 3.0]);
    }
}

#[test]
fn columns_are_picked_by_name() {
    let columns = vec!["width".to_owned(), "length".to_owned()];
    let declared = CsvInput { columns, ..CsvInput::default() };
    let tensors = read(declared.clone(), &iris(), "id,length,width\n7,1,2\n8,3,4\n").unwrap();
    assert_eq!(numbers(&tensors), [2.0, 1.0, 4.0, 3.0]);
    let error = read(declared.clone(), &iris(), "id,length\n7,1\n").unwrap_err().to_string();
    assert_eq!(error, "the table has no column `width`; its columns are `id`, `length`");
    assert_eq!(
        numbers(&read(declared, &iris(), "1,2\n").unwrap()),
        [1.0, 2.0],
        "no header: in the model's order"
    );
}

#[test]
fn a_header_is_what_the_declaration_says() {
    let with = |header| CsvInput { header, ..CsvInput::default() };
    assert_eq!(read(with(Header::Present), &iris(), "1,2\n3,4\n").unwrap()[0].shape(), [1, 2]);
    assert_eq!(read(with(Header::Absent), &iris(), "1,2\n3,4\n").unwrap()[0].shape(), [2, 2]);
    let error = read(with(Header::Absent), &iris(), "a,b\n3,4\n").unwrap_err().to_string();
    assert_eq!(error, "the table has `a` in row 1, column 1, which is no FP32");
}

#[test]
fn a_model_with_an_input_per_column_gets_each_by_its_name() {
    let inputs = [
        spec("age", Datatype::Int64, &[-1, 1]),
        spec("city", Datatype::Bytes, &[-1, 1]),
        spec("member", Datatype::Bool, &[-1]),
    ];
    let tensors =
        read(CsvInput::default(), &inputs, "city,member,age\n\"Graz, AT\",true,41\n,0,7\n").unwrap();
    assert_eq!(*tensors[0].elements::<i64>().unwrap(), [41, 7]);
    assert_eq!(tensors[1].strings().collect::<Vec<_>>(), [&b"Graz, AT"[..], b""]);
    assert_eq!(*tensors[2].elements::<bool>().unwrap(), [true, false]);
    assert_eq!(tensors.iter().map(Tensor::shape).collect::<Vec<_>>(), [&[2, 1][..], &[2, 1], &[2]]);
    let tensors = read(CsvInput::default(), &inputs, "41,Graz,1\n").unwrap();
    assert_eq!(*tensors[0].elements::<i64>().unwrap(), [41]);
    let error = read(CsvInput::default(), &inputs, "age,city,member\n,x,1\n").unwrap_err().to_string();
    assert_eq!(error, "the table has `` in row 2, column 1, which is no INT64");
}

#[test]
fn a_missing_number_is_not_a_number() {
    let values = numbers(&read(CsvInput::default(), &iris(), "a,b\n,2\n").unwrap());
    assert!(values[0].is_nan() && values[1] == 2.0);
}

#[test]
fn other_delimiters_are_declared() {
    let declared = |delimiter: &str| CsvInput { delimiter: Some(delimiter.into()), ..CsvInput::default() };
    for delimiter in [";", "\t", "|"] {
        let content = format!("1{delimiter}2\n");
        assert_eq!(numbers(&read(declared(delimiter), &iris(), &content).unwrap()), [1.0, 2.0]);
    }
    assert!(compile(declared("\u{20ac}"), &iris()).is_err());
}

#[test]
fn what_is_wrong_with_a_table_is_said_with_its_place() {
    for (content, problem) in [
        ("", "is empty; send at least one row"),
        ("a,b\n", "has a header and no rows; send at least one row"),
        ("1,2\n3\n", "has 1 values in row 2 but 2 in the first; make them equal"),
        ("1,2,3\n", "has 3 columns, but the model takes 2"),
        ("1,2\n3,x\n", "has `x` in row 2, column 2, which is no FP32"),
    ] {
        let error = read(CsvInput::default(), &iris(), content).unwrap_err().to_string();
        assert_eq!(error, format!("the table {problem}"));
    }
}

#[test]
fn declarations_that_do_not_fit_are_found_when_the_model_is_loaded() {
    let three = CsvInput { columns: ["a", "b", "c"].map(String::from).to_vec(), ..CsvInput::default() };
    let error = compile(three.clone(), &iris()).unwrap_err().to_string();
    assert_eq!(error, "`serving.preprocessing.csv.columns` names 3 columns, but input `x` takes 2");
    let two = [spec("a", Datatype::Fp32, &[-1]), spec("b", Datatype::Fp32, &[-1, 4])];
    let error = compile(three, &two).unwrap_err().to_string();
    assert_eq!(
        error,
        "`serving.preprocessing.csv` gives each input one column, but input `b` has shape [-1, 4]"
    );
    assert!(compile(CsvInput::default(), &[spec("x", Datatype::Fp32, &[1, 3, 8, 8])]).is_err());
}

#[test]
fn rows_and_columns_are_bounded() {
    let open = [spec("x", Datatype::Fp32, &[-1, -1])];
    let wide = ["1"; 17_000].join(",");
    let error = read(CsvInput::default(), &open, &wide).unwrap_err();
    assert!(matches!(error, StepError::TooLarge { what: "columns of a table", .. }), "{error}");
    let long = "1\n".repeat((1 << 20) + 1);
    let error = read(CsvInput::default(), &open, &long).unwrap_err();
    assert!(matches!(error, StepError::TooLarge { what: "rows of a table", .. }), "{error}");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_and_tensors_have_equal_rows(content in "[0-9a,\"\n .-]{0,60}") {
        let inputs = [spec("a", Datatype::Bytes, &[-1]), spec("b", Datatype::Fp64, &[-1, 1])];
        if let Ok(tensors) = read(CsvInput::default(), &inputs, &content) {
            prop_assert_eq!(tensors[0].shape()[0], tensors[1].shape()[0]);
        }
    }

    #[test]
    fn numbers_come_back_as_they_were_written(rows in prop::collection::vec((any::<f32>(), any::<f32>()), 1..20)) {
        let lines = rows.iter().map(|(a, b)| format!("{a},{b}\n"));
        let tensors = read(CsvInput { header: Header::Absent, ..CsvInput::default() }, &iris(), &lines.collect::<String>()).unwrap();
        let expected: Vec<u32> = rows.iter().flat_map(|(a, b)| [a.to_bits(), b.to_bits()]).collect();
        let given: Vec<u32> = numbers(&tensors).iter().map(|value| value.to_bits()).collect();
        prop_assert_eq!(given, expected);
    }
}
