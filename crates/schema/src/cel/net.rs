//! Addresses and networks. IPv4 addresses written as IPv6 ones are none, and neither are those with a zone.

use std::net::IpAddr;

use super::eval::{Outcome, failed, no_overload};
use super::value::Value;

pub fn ip(text: &str) -> Option<IpAddr> {
    let address: IpAddr = text.parse().ok()?;
    let is_mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    (!is_mapped).then_some(address)
}

pub fn cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address = ip(address)?;
    let is_canonical =
        bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits: u8 = bits.parse().ok().filter(|_| is_canonical)?;
    (bits <= width(address)).then_some((address, bits))
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all bits behind the network's at zero.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    let cleared = u32::from(width(address) - bits.min(width(address)));
    match address {
        IpAddr::V4(address) => IpAddr::V4(
            (u32::from(address).checked_shr(cleared).unwrap_or(0).checked_shl(cleared).unwrap_or(0)).into(),
        ),
        IpAddr::V6(address) => IpAddr::V6(
            (u128::from(address).checked_shr(cleared).unwrap_or(0).checked_shl(cleared).unwrap_or(0)).into(),
        ),
    }
}

fn contains(network: (IpAddr, u8), address: IpAddr) -> bool {
    network.0.is_ipv4() == address.is_ipv4() && masked(network.0, network.1) == masked(address, network.1)
}

/// Functions that make addresses and networks of texts.
pub fn of_text<'a>(function: &str, text: &str) -> Outcome<'a> {
    match function {
        "isIP" => Ok(Value::Bool(ip(text).is_some())),
        "isCIDR" => Ok(Value::Bool(cidr(text).is_some())),
        "cidr" => match cidr(text) {
            Some((address, bits)) => Ok(Value::Cidr(address, bits)),
            None => failed(format!("network address parse error during conversion from string: {text:?}")),
        },
        _ => match ip(text) {
            Some(address) if function == "ip.isCanonical" => Ok(Value::Bool(address.to_string() == text)),
            Some(address) => Ok(Value::Ip(address)),
            None => failed(format!("IP Address {text:?} parse error during conversion from string")),
        },
    }
}

pub fn of_ip<'a>(function: &str, address: IpAddr, rest: &[Value<'a>]) -> Outcome<'a> {
    if !rest.is_empty() {
        return no_overload();
    }
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80),
    };
    let is_link_local_multicast = match address {
        IpAddr::V4(address) => matches!(address.octets(), [224, 0, 0, _]),
        IpAddr::V6(address) => address.segments().first().is_some_and(|first| first & 0xff0f == 0xff02),
    };
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    Ok(match function {
        "family" => Value::Int(if address.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(address.is_unspecified()),
        "isLoopback" => Value::Bool(address.is_loopback()),
        "isLinkLocalMulticast" => Value::Bool(is_link_local_multicast),
        "isLinkLocalUnicast" => Value::Bool(is_link_local),
        "isGlobalUnicast" => Value::Bool(
            !address.is_unspecified()
                && !address.is_loopback()
                && !address.is_multicast()
                && !is_link_local
                && !is_broadcast,
        ),
        _ => return no_overload(),
    })
}

pub fn of_cidr<'a>(function: &str, own: (IpAddr, u8), rest: &[Value<'a>]) -> Outcome<'a> {
    match (function, rest) {
        ("ip", []) => Ok(Value::Ip(own.0)),
        ("prefixLength", []) => Ok(Value::Int(own.1.into())),
        ("masked", []) => Ok(Value::Cidr(masked(own.0, own.1), own.1)),
        ("containsIP", [Value::Ip(address)]) => Ok(Value::Bool(contains(own, *address))),
        ("containsIP", [Value::String(text)]) => match of_text("ip", text.as_str())? {
            Value::Ip(address) => Ok(Value::Bool(contains(own, address))),
            _ => no_overload(),
        },
        ("containsCIDR", [Value::Cidr(address, bits)]) => {
            Ok(Value::Bool(own.1 <= *bits && contains(own, *address)))
        }
        ("containsCIDR", [Value::String(text)]) => match of_text("cidr", text.as_str())? {
            Value::Cidr(address, bits) => Ok(Value::Bool(own.1 <= bits && contains(own, address))),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}
