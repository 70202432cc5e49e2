//! Products of tables.

use std::ops::{AddAssign, Mul};

use super::super::array::{Array, Data, room};
use super::super::node::Kernel;
use super::super::onnx::Node;
use super::super::{Fault, Refused};
use super::places::{Places, broadcast, stretched, strides};
use crate::Datatype;

pub(super) fn matmul(_: &Node) -> Result<Kernel, Refused> {
    Ok(Box::new(|arguments| Ok(vec![product(arguments.get(0)?, arguments.get(1)?)?])))
}

pub(super) fn gemm(node: &Node) -> Result<Kernel, Refused> {
    let flag = |name| node.int(name).unwrap_or(0) != 0;
    let (turn_a, turn_b) = (flag("transA"), flag("transB"));
    let (alpha, beta) = (node.float("alpha").unwrap_or(1.0), node.float("beta").unwrap_or(1.0));
    Ok(Box::new(move |arguments| {
        let turned = |array: &Array, turn: bool| if turn { transposed(array) } else { Ok(array.clone()) };
        let product = product(&turned(arguments.get(0)?, turn_a)?, &turned(arguments.get(1)?, turn_b)?)?;
        let shape = product.shape().to_vec();
        let Some(added) = arguments.optional(2) else { return Ok(vec![scaled(product, alpha)?]) };
        if broadcast(added.shape(), &shape)? != shape {
            return Err(Fault::unsupported(format!("C of shape {:?}", added.shape())));
        }
        let added = added.pick(shape.clone(), stretched(added.shape(), &shape))?;
        let data = match (product.data(), added.data()) {
            (Data::F32(a), Data::F32(c)) => {
                Data::F32(a.iter().zip(c).map(|(a, c)| alpha * a + beta * c).collect())
            }
            (Data::F64(a), Data::F64(c)) => {
                let (alpha, beta) = (f64::from(alpha), f64::from(beta));
                Data::F64(a.iter().zip(c).map(|(a, c)| alpha * a + beta * c).collect())
            }
            _ => return Err(Fault::unsupported(format!("C of {}", added.datatype()))),
        };
        Ok(vec![Array::new(shape, data)?])
    }))
}

fn scaled(array: Array, by: f32) -> Result<Array, Fault> {
    if by == 1.0 {
        return Ok(array);
    }
    let data = match array.data() {
        Data::F32(elements) => Data::F32(elements.iter().map(|x| x * by).collect()),
        Data::F64(elements) => Data::F64(elements.iter().map(|x| x * f64::from(by)).collect()),
        other => return Err(Fault::unsupported(format!("{} times a fraction", other.datatype()))),
    };
    Array::new(array.shape(), data)
}

fn transposed(array: &Array) -> Result<Array, Fault> {
    let [rows, columns] = *array.shape() else {
        return Err(Fault::unsupported(format!("shape {:?} where a table is asked for", array.shape())));
    };
    let mut strides = strides(array.shape());
    strides.reverse();
    array.pick(vec![columns, rows], Places::new(&[columns, rows], strides, 0))
}

fn product(a: &Array, b: &Array) -> Result<Array, Fault> {
    let ([rows, inner], [height, columns]) = (a.shape(), b.shape()) else {
        return Err(Fault::unsupported(format!("shapes {:?} and {:?}", a.shape(), b.shape())));
    };
    let (&rows, &columns, &inner) = (rows, columns, inner);
    if inner != *height {
        return Err(Fault::input(format!("has {inner} features where {height} are asked for")));
    }
    room(&[rows, columns])?;
    let data = match (a.datatype(), b.datatype()) {
        (Datatype::Fp32, Datatype::Fp32) => Data::F32(multiply(&a.f32s()?, &b.f32s()?, rows, inner, columns)),
        (Datatype::Fp64, Datatype::Fp64) => Data::F64(multiply(&a.f64s()?, &b.f64s()?, rows, inner, columns)),
        (one, other) => return Err(Fault::unsupported(format!("{one} with {other}"))),
    };
    Array::new([rows, columns], data)
}

/// Row-major `a` of `rows` × `inner` times `b` of `inner` × `columns`.
pub(super) fn multiply<T>(a: &[T], b: &[T], rows: usize, inner: usize, columns: usize) -> Vec<T>
where
    T: Copy + Default + Mul<Output = T> + AddAssign,
{
    let mut result = vec![T::default(); rows * columns];
    if inner == 0 || columns == 0 {
        return result;
    }
    for (sums, row) in result.chunks_exact_mut(columns).zip(a.chunks_exact(inner)) {
        for (&factor, weights) in row.iter().zip(b.chunks_exact(columns)) {
            sums.iter_mut().zip(weights).for_each(|(sum, &weight)| *sum += factor * weight);
        }
    }
    result
}
