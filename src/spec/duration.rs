//! Times as users write them: seconds as libfuse's timeouts are (`1`, `0.5`), or a number with one
//! of `us ms s m h`.

use std::time::Duration;

use super::error::quoted;
use super::size::Reason;

/// The longest time taken: what the FUSE protocol can carry in a reply is far more, and nobody
/// means more than a hundred years.
const MAX_SECONDS: u64 = 100 * 366 * 24 * 60 * 60;

/// Parses a time.
pub(super) fn parse_duration(text: &str) -> Result<Duration, Reason> {
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
    let nanos: u128 = match suffix.trim_start_matches(' ') {
        "us" => 1_000,
        "ms" => 1_000_000,
        "" | "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        suffix => return Err(format!("{} is no unit of time", quoted(suffix.as_bytes()))),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_decimal = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || number.ends_with('.') || !is_decimal(fraction) {
        return Err(format!("{} is no decimal number", quoted(number.as_bytes())));
    }
    // Below a nanosecond nothing counts.
    let fraction = &fraction[..fraction.len().min(13)];
    let divisor = 10_u128.pow(fraction.len() as u32);
    let part = fraction.parse::<u128>().unwrap_or(0);
    let total = whole
        .parse::<u64>()
        .ok()
        .map(|whole| u128::from(whole) * nanos + part * nanos / divisor)
        .and_then(|total| u64::try_from(total).ok())
        .filter(|total| *total <= MAX_SECONDS * 1_000_000_000)
        .ok_or("it is more than a hundred years")?;
    Ok(Duration::from_nanos(total))
}
