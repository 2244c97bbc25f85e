//! Sizes and counts as users write them.
//!
//! Sizes: plain bytes, bare `K M G T P` as powers of 1024 (tmpfs and QEMU mean them so; the
//! [`bytesize`] crate reads them as powers of 1000, which is why it is not asked to parse),
//! `KB MB GB TB PB` as powers of 1000, `KiB MiB GiB TiB PiB` as powers of 1024. Counts: powers of
//! 1000 only. Case does not matter, and a fraction is exact: `1.5G` is 1536 MiB; of what is not whole
//! then, as in `0.3K`, the rest is dropped.

use bytesize::ByteSize;

use super::error::quoted;

/// Why a number cannot be taken.
pub(super) type Reason = String;

/// Parses a number of bytes.
pub(super) fn parse_size(text: &str) -> Result<ByteSize, Reason> {
    let (number, suffix) = split(text)?;
    let scale = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return Err(format!("{} is no unit of size", quoted(suffix.as_bytes()))),
    };
    scaled(number, scale, "bytes").map(ByteSize::b)
}

/// Parses a number of things.
pub(super) fn parse_count(text: &str) -> Result<u64, Reason> {
    let (number, suffix) = split(text)?;
    let scale = match suffix.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "ki" | "mi" | "gi" | "kib" | "mib" | "gib" | "kb" | "mb" | "gb" => {
            return Err(format!("`{suffix}` is a unit of bytes, and this counts things"));
        }
        _ => return Err(format!("{} is no unit of a count", quoted(suffix.as_bytes()))),
    };
    scaled(number, scale, "")
}

/// Splits `1.5 GiB` into `1.5` and `GiB`.
fn split(text: &str) -> Result<(&str, &str), Reason> {
    if text.is_empty() {
        return Err("there is no number".into());
    }
    if text.starts_with('-') {
        return Err("it is negative".into());
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    if number.is_empty() {
        return Err("it does not begin with a digit".into());
    }
    Ok((number, suffix.trim_start_matches(' ')))
}

/// `number` (digits with at most one point among them) times `scale`, which is `unit`s.
pub(super) fn scaled(number: &str, scale: u64, unit: &str) -> Result<u64, Reason> {
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
        None => (number, ""),
    };
    let is_decimal = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || number.ends_with('.') || !is_decimal(whole) || !is_decimal(fraction) {
        return Err(format!("{} is no decimal number", quoted(number.as_bytes())));
    }
    let too_large = || {
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        format!("it is more than {}{unit}", u64::MAX)
    };
    let scale = u128::from(scale);
    let mut total = whole
        .parse::<u64>()
        .ok()
        .and_then(|whole| u128::from(whole).checked_mul(scale))
        .ok_or_else(too_large)?;
    if !fraction.is_empty() {
        // 18 digits of scale 2^50 stay below 2^128, and no more digits can come out whole.
        let divisor = u32::try_from(fraction.len())
            .ok()
            .filter(|&digits| digits <= 18)
            .and_then(|digits| 10_u128.checked_pow(digits));
        let part = fraction.parse::<u128>().ok().and_then(|part| part.checked_mul(scale));
        let (Some(divisor), Some(part)) = (divisor, part) else {
            return Err("it has more than 18 digits after the point".into());
        };
        if scale == 1 {
            return Err("it is not whole".into());
        }
        total += part / divisor;
    }
    u64::try_from(total).map_err(|_| too_large())
}
