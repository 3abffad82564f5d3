//! Dates as the AWS CLI reads them.

/// Parses a date with an offset, in seconds since 1970: ISO 8601 (extended or basic, seconds and
/// fractions optional, offset `Z`, `UTC`, `GMT`, `+02:00` or `-0500`, a blank instead of `T`) and
/// RFC 1123. The AWS CLI reads dates with python-dateutil, which knows more forms; these are the
/// ones that programs write. A date without offset is `None`, as the CLI refuses it.
#[must_use]
pub fn parse_date(text: &str) -> Option<i64> {
    let text = text.trim();
    rfc_1123(text).or_else(|| iso_8601(text))
}

/// Formats a time in seconds since 1970 as the AWS CLI writes dates: `2026-11-30T09:12:05Z`. Times
/// before the year 1 or after 9999 become the first or last second of these years.
#[must_use]
pub fn format_date(seconds: i64) -> String {
    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_300_799;
    let seconds = seconds.clamp(FIRST, LAST);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Returns year, month and day of a day after 1970-01-01 (the algorithm `civil_from_days` of Howard
/// Hinnant).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn iso_8601(text: &str) -> Option<i64> {
    let (date, rest) = match text.as_bytes().get(4) {
        Some(b'-') => text.split_at_checked(10)?,
        _ => text.split_at_checked(8)?,
    };
    let is_basic = date.len() == 8;
    let [year, month, day] = match is_basic {
        true => digits(date, [4, 2, 2], "")?,
        false => digits(date, [4, 2, 2], "-")?,
    };
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let time_end = rest.find(|c: char| !c.is_ascii_digit() && !matches!(c, ':' | '.' | ','));
    let (time, offset) = rest.split_at(time_end?);
    let time = time_of_day(time, is_basic)?;
    Some(days(year, month, day)? * 86_400 + time - offset_seconds(offset.trim())?)
}

fn rfc_1123(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = text.split_once(", ")?;
    let words: Vec<&str> = rest.split(' ').take(6).collect();
    let [day, month, year, time, offset] = words.as_slice() else {
        return None;
    };
    let month = MONTHS.iter().position(|name| name == month)?;
    let [year] = digits(year, [4], "")?;
    let [day] = digits(day, [day.len()], "").filter(|_| day.len() <= 2)?;
    let days = days(year, i64::try_from(month).ok()? + 1, day)?;
    Some(days * 86_400 + time_of_day(time, false)? - offset_seconds(offset)?)
}

/// Returns the seconds since midnight of `HH:MM`, `HH:MM:SS` or the same without colons. A fraction
/// is cut.
fn time_of_day(text: &str, is_basic: bool) -> Option<i64> {
    let (whole, fraction) = match text.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if fraction.is_some_and(|fraction| !is_digits(fraction)) {
        return None;
    }
    let separator = if is_basic && !whole.contains(':') {
        ""
    } else {
        ":"
    };
    let [hour, minute, second] = match whole.len() {
        4 | 5 if fraction.is_none() => {
            let [hour, minute] = digits(whole, [2, 2], separator)?;
            [hour, minute, 0]
        }
        _ => digits(whole, [2, 2, 2], separator)?,
    };
    let is_valid = hour < 24 && minute < 60 && second < 60;
    is_valid.then_some(hour * 3600 + minute * 60 + second)
}

fn offset_seconds(text: &str) -> Option<i64> {
    if ["Z", "z", "UTC", "GMT"].contains(&text) {
        return Some(0);
    }
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, text.get(1..)?),
        b'-' => (-1, text.get(1..)?),
        _ => return None,
    };
    let [hours, minutes] = match rest.len() {
        2 => digits(rest, [2], "").map(|[hours]| [hours, 0])?,
        4 => digits(rest, [2, 2], "")?,
        _ => digits(rest, [2, 2], ":")?,
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Parses numbers of these lengths with a separator between them, and nothing else.
fn digits<const N: usize>(text: &str, lengths: [usize; N], separator: &str) -> Option<[i64; N]> {
    let mut values = [0; N];
    let mut rest = text;
    for (at, (value, length)) in values.iter_mut().zip(lengths).enumerate() {
        if at > 0 {
            rest = rest.strip_prefix(separator)?;
        }
        let (number, after) = rest.split_at_checked(length)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *value = number.parse().ok()?;
        rest = after;
    }
    rest.is_empty().then_some(values)
}

/// Returns the days between 1970-01-01 and a date of the Gregorian calendar (the algorithm
/// `days_from_civil` of Howard Hinnant).
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}
