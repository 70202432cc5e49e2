//! Protobuf's JSON writes wide integers as strings.

use serde::de::{Deserialize, Deserializer, Error};

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Either {
    Number(u64),
    Text(String),
}

impl Either {
    fn number<E: Error>(self) -> Result<u64, E> {
        match self {
            Either::Number(number) => Ok(number),
            Either::Text(text) => text.parse().map_err(|_| E::custom("a whole number is wanted, from 0")),
        }
    }
}

pub(super) fn read<'de, D: Deserializer<'de>>(source: D) -> Result<u64, D::Error> {
    Either::deserialize(source)?.number()
}

pub(super) fn read_list<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<u64>, D::Error> {
    Vec::<Either>::deserialize(source)?.into_iter().map(Either::number).collect()
}
